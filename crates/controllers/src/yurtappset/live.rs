//! A workload that there is, of either kind: whose it is, how it fares, and what of it is not as it should be.

use std::sync::Arc;

use k8s_openapi::{
    api::apps::v1::{
        Deployment, DeploymentCondition, DeploymentSpec, StatefulSet, StatefulSetSpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
    serde::{Serialize, de::DeserializeOwned},
};
use serde_json::{Map, Value, json};
use toono_openyurt::keys::{CONTROLLER_REVISION_HASH, POOL_NAME};

use super::{app::Kind, render::Rendered};
use crate::{
    object::Metadata,
    patch::{self, map_at},
};

/// What `kubectl rollout restart` sets in a template: a wish of its own, not another template.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// A workload.
#[derive(Clone, Debug)]
pub(super) enum Live {
    Deployment(Arc<Deployment>),
    StatefulSet(Arc<StatefulSet>),
}

/// How far a workload is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Its controller has seen its newest spec.
    pub(super) observed: bool,
    pub(super) wanted: i32,
    pub(super) ready: i32,
    pub(super) updated: i32,
    /// Why it does not get further, where its controller says so.
    pub(super) stuck: Option<String>,
}

impl Progress {
    pub(super) fn is_ready(&self) -> bool {
        self.observed && self.ready >= self.wanted
    }

    pub(super) fn is_updated(&self) -> bool {
        self.observed && self.updated >= self.wanted
    }
}

impl Live {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Deployment(_) => Kind::Deployment,
            Self::StatefulSet(_) => Kind::StatefulSet,
        }
    }

    pub(super) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Deployment(one) => &one.metadata,
            Self::StatefulSet(one) => &one.metadata,
        }
    }

    pub(super) fn version(&self) -> &str {
        self.metadata().resource_version.as_deref().unwrap_or_default()
    }

    /// The pool it is of: by its selector, which cannot be changed, or else by its label.
    pub(super) fn pool(&self) -> Option<&str> {
        let selector = match self {
            Self::Deployment(one) => one.spec.as_ref().map(|spec| &spec.selector),
            Self::StatefulSet(one) => one.spec.as_ref().map(|spec| &spec.selector),
        };
        selector.and_then(pool_of).or_else(|| self.label(POOL_NAME))
    }

    /// The revision that it was written for last.
    pub(super) fn revision(&self) -> Option<&str> {
        self.label(CONTROLLER_REVISION_HASH)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.metadata().labels.as_ref()?.get(key).map(String::as_str)
    }

    pub(super) fn progress(&self) -> Progress {
        let generation = self.metadata().generation;
        match self {
            Self::Deployment(one) => {
                let status = one.status.clone().unwrap_or_default();
                Progress {
                    observed: status.observed_generation >= generation,
                    wanted: one.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
                    ready: status.ready_replicas.unwrap_or(0),
                    updated: status.updated_replicas.unwrap_or(0),
                    stuck: status.conditions.as_deref().and_then(stuck),
                }
            }
            Self::StatefulSet(one) => {
                let status = one.status.clone().unwrap_or_default();
                let wanted = one.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let kept = one.spec.as_ref().map_or(0, |spec| kept_back(spec).min(wanted));
                Progress {
                    observed: status.observed_generation >= generation,
                    wanted,
                    ready: status.ready_replicas.unwrap_or(0),
                    // Pods below the partition stay as they are, as was asked.
                    updated: status.updated_replicas.unwrap_or(0) + kept,
                    stuck: None,
                }
            }
        }
    }

    /// What makes it as `rendered`: a merge patch, `None` where it is. What was made of `before` and is asked for no
    /// more is taken away; what others added to its labels and annotations stays.
    pub(super) fn difference(
        &self,
        rendered: &Rendered,
        before: Option<&Rendered>,
        revision: &str,
    ) -> Result<Option<Value>, serde_json::Error> {
        let spec = match self {
            Self::Deployment(one) => {
                self.spec_difference::<DeploymentSpec>(one.spec.as_ref(), rendered, revision)?
            }
            Self::StatefulSet(one) => {
                self.spec_difference::<StatefulSetSpec>(one.spec.as_ref(), rendered, revision)?
            }
        };
        let metadata = self.metadata();
        let value = |part: &Option<_>| serde_json::to_value(part.as_ref());
        let (labels, annotations) = (value(&metadata.labels)?, value(&metadata.annotations)?);
        let no_more = Map::new();
        let mut changed = json!({
            "labels": map_difference(&labels, &rendered.labels, before.map_or(&no_more, |it| &it.labels)),
            "annotations": map_difference(
                &annotations,
                &rendered.annotations,
                before.map_or(&no_more, |it| &it.annotations),
            ),
        });
        let same = |part: &Value| part.as_object().is_none_or(Map::is_empty);
        if spec.is_none()
            && changed.as_object().is_some_and(|parts| parts.values().all(same))
            && self.revision().is_some()
        {
            return Ok(None);
        }
        if let Some(labels) = map_at(&mut changed, &["labels"])
            && self.revision() != Some(revision)
        {
            labels.insert(CONTROLLER_REVISION_HASH.to_owned(), revision.into());
        }
        let mut patch = json!({"metadata": changed});
        if let (Some(spec), Some(fields)) = (spec, patch.as_object_mut()) {
            fields.insert("spec".to_owned(), spec);
        }
        Ok(Some(patch))
    }

    fn spec_difference<S>(
        &self,
        live: Option<&S>,
        rendered: &Rendered,
        revision: &str,
    ) -> Result<Option<Value>, serde_json::Error>
    where
        S: Serialize + DeserializeOwned + PartialEq,
    {
        let before = serde_json::to_value(live)?;
        let stamp = before
            .pointer("/template/metadata/labels")
            .and_then(|labels| labels.get(CONTROLLER_REVISION_HASH)?.as_str().map(str::to_owned));
        // Pods keep the revision that they say as long as nothing else of them changes: a new number alone
        // is no reason to replace them.
        let kept = with_defaults(&before, rendered, stamp.as_deref().unwrap_or(revision));
        let kept: S = serde_json::from_value(kept)?;
        if live == Some(&kept) {
            return Ok(None);
        }
        let same_pods = serde_json::to_value(&kept)?.get("template") == before.get("template");
        let stamp = stamp.filter(|_| same_pods);
        let wanted = with_defaults(&before, rendered, stamp.as_deref().unwrap_or(revision));
        let wanted = serde_json::to_value(serde_json::from_value::<S>(wanted)?)?;
        Ok(Some(patch::difference(&before, &wanted)))
    }
}

/// The spec as the API would keep it, and with what others may ask for where the set asks for nothing.
fn with_defaults(before: &Value, rendered: &Rendered, revision: &str) -> Value {
    let mut workload = json!({"metadata": {}, "spec": rendered.spec_of(revision)});
    if let (Some(spec), Some(replicas)) = (map_at(&mut workload, &["spec"]), before.get("replicas"))
    {
        spec.entry("replicas").or_insert_with(|| replicas.clone());
    }
    let annotations = before.pointer("/template/metadata/annotations");
    if let Some(at) = annotations.and_then(|annotations| annotations.get(RESTARTED_AT))
        && let Some(annotations) =
            map_at(&mut workload, &["spec", "template", "metadata", "annotations"])
    {
        annotations.entry(RESTARTED_AT).or_insert_with(|| at.clone());
    }
    if let Some(row) = rendered.kind.row() {
        (row.default)(&mut workload);
    }
    workload.get_mut("spec").map(Value::take).unwrap_or_default()
}

/// The merge patch that puts `wanted` into a map, and takes from it what only `before` had.
fn map_difference(
    live: &Value,
    wanted: &Map<String, Value>,
    before: &Map<String, Value>,
) -> Map<String, Value> {
    let known = |key: &str| live.get(key);
    let put = wanted.iter().filter(|(key, value)| known(key) != Some(value));
    let put = put.map(|(key, value)| (key.clone(), value.clone()));
    let gone = before.keys().filter(|key| !wanted.contains_key(*key) && known(key).is_some());
    put.chain(gone.map(|key| (key.clone(), Value::Null))).collect()
}

fn pool_of(selector: &LabelSelector) -> Option<&str> {
    selector.match_labels.as_ref()?.get(POOL_NAME).map(String::as_str)
}

/// Pods that a stateful set's strategy leaves as they are.
fn kept_back(spec: &StatefulSetSpec) -> i32 {
    let Some(strategy) = &spec.update_strategy else { return 0 };
    match strategy.type_.as_deref() {
        // Nobody but the user replaces them.
        Some("OnDelete") => i32::MAX,
        _ => strategy.rolling_update.as_ref().and_then(|rolling| rolling.partition).unwrap_or(0),
    }
}

/// What the deployment's controller says of pods that it cannot make, or of a rollout that takes too long.
fn stuck(conditions: &[DeploymentCondition]) -> Option<String> {
    let says = |type_: &str, status: &str| {
        conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status)
    };
    let condition = says("ReplicaFailure", "True").or_else(|| says("Progressing", "False"))?;
    condition.message.clone().or_else(|| condition.reason.clone())
}

impl PartialEq for Live {
    fn eq(&self, other: &Self) -> bool {
        self.metadata().uid() == other.metadata().uid() && self.version() == other.version()
    }
}
