//! What a YurtAppSet asks for, as plain values: which pools, which template, which tweaks. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use serde_json::{Map, Value};
use toono_api::{BuiltIn, LabelSelector, kinds};
use toono_openyurt::yurt_app_set::{self, WorkloadTweak, YurtAppSetSpec};

/// What kind of workload pools get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deployment,
    StatefulSet,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }

    /// What the API knows of the kind.
    pub(super) fn row(self) -> Option<&'static BuiltIn> {
        kinds::find_kind("apps/v1", self.name())
    }
}

/// What a set asks for.
#[derive(Debug)]
pub(super) struct App {
    pub(super) kind: Kind,
    pub(super) template: Template,
    pub(super) reach: Reach,
    pub(super) tweaks: Vec<Tweak>,
    pub(super) revision_history_limit: Option<i32>,
}

/// The workload before tweaks.
#[derive(Debug, Default)]
pub(super) struct Template {
    pub(super) labels: Map<String, Value>,
    pub(super) annotations: Map<String, Value>,
    pub(super) spec: Value,
}

/// What is different in some pools.
#[derive(Debug, Default)]
pub(super) struct Tweak {
    pub(super) reach: Reach,
    pub(super) replicas: Option<i32>,
    /// Containers' names and images.
    pub(super) images: Vec<(String, String)>,
    pub(super) patches: Vec<Patch>,
}

/// One operation of a JSON patch.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) operation: String,
    pub(super) path: String,
    /// Null where it says none.
    pub(super) value: Value,
}

/// Pools, named or selected by their labels.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) names: BTreeSet<String>,
    pub(super) selector: LabelSelector,
}

impl Default for Reach {
    fn default() -> Self {
        Self { names: BTreeSet::new(), selector: LabelSelector::nothing() }
    }
}

impl Reach {
    pub(super) fn includes(&self, pool: &str, labels: &BTreeMap<String, String>) -> bool {
        self.names.contains(pool)
            || self.selector.matches(|label| labels.get(label).map(String::as_str))
    }
}

impl App {
    pub(super) fn new(spec: &YurtAppSetSpec) -> Result<Self, AppError> {
        let template = &spec.workload.workload_template;
        let (kind, template) =
            match (&template.deployment_template, &template.stateful_set_template) {
                (Some(template), None) => (Kind::Deployment, template),
                (None, Some(template)) => (Kind::StatefulSet, template),
                _ => return Err(AppError::Template),
            };
        let tweaks = spec.workload.workload_tweaks.iter().enumerate();
        Ok(Self {
            kind,
            template: Template::new(template),
            reach: Reach::new("the set", &spec.pools, spec.node_pool_selector.as_ref())?,
            tweaks: tweaks
                .map(|(index, tweak)| Tweak::new(&format!("tweak {}", index + 1), tweak))
                .collect::<Result<_, _>>()?,
            revision_history_limit: spec.revision_history_limit,
        })
    }
}

impl Template {
    fn new(template: &yurt_app_set::Template) -> Self {
        let part = |name| template.metadata.get(name).and_then(Value::as_object).cloned();
        Self {
            labels: part("labels").unwrap_or_default(),
            annotations: part("annotations").unwrap_or_default(),
            spec: template.spec.clone(),
        }
    }
}

impl Tweak {
    fn new(place: &str, tweak: &WorkloadTweak) -> Result<Self, AppError> {
        let selector = tweak.node_pool_selector.as_ref();
        let images = tweak.tweaks.container_images.iter();
        let patches = tweak.tweaks.patches.iter();
        Ok(Self {
            reach: Reach::new(place, &tweak.pools, selector)?,
            replicas: tweak.tweaks.replicas,
            images: images.map(|image| (image.name.clone(), image.target_image.clone())).collect(),
            patches: patches
                .map(|patch| Patch {
                    operation: patch.operation.clone(),
                    path: patch.path.clone(),
                    value: patch.value.clone(),
                })
                .collect(),
        })
    }
}

impl Reach {
    fn new(
        place: &str,
        names: &[String],
        selector: Option<&v1::LabelSelector>,
    ) -> Result<Self, AppError> {
        let selector = match selector {
            None => LabelSelector::nothing(),
            Some(selector) => {
                // Encoding has no failure: the structure has string keys only.
                let selector = serde_json::to_value(selector).unwrap_or_default();
                LabelSelector::from_object(&selector).map_err(|error| AppError::Selector {
                    place: place.to_owned(),
                    why: error.to_string(),
                })?
            }
        };
        Ok(Self { names: names.iter().cloned().collect(), selector })
    }
}

/// A set that nothing can be made of.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AppError {
    /// The schema says it too, where it was installed.
    #[error("exactly one of deploymentTemplate and statefulSetTemplate must be given")]
    Template,
    #[error("nodepoolSelector of {place}: {why}")]
    Selector { place: String, why: String },
}
