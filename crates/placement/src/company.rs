//! Which other pods a pod wants near or far: inter-pod affinity and anti-affinity as the API says
//! it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{self as core, PodSpec};

use crate::requirement::{Operator, Requirement};

/// Pods, and the label whose values are the domains that they are looked for in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodTerm {
    /// The label whose values are the domains.
    pub topology_key: Box<str>,
    /// Which pods; `None` selects none.
    pub selector: Option<Vec<Requirement>>,
    /// In these namespaces.
    pub namespaces: Vec<Box<str>>,
    /// And in those whose labels meet all of these.
    pub namespace_selector: Option<Vec<Requirement>>,
}

/// What a pod wants of other pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Company {
    /// Its domains must have such pods.
    pub near: Vec<PodTerm>,
    /// Its domains must not.
    pub apart: Vec<PodTerm>,
    /// With weights: the more such pods are in its domains, the better, or, below zero, the worse.
    pub liking: Vec<(i64, PodTerm)>,
}

/// The labels of namespaces.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    labels: HashMap<Box<str>, BTreeMap<String, String>>,
    serial: u64,
}

impl Namespaces {
    pub(crate) fn set(&mut self, name: &str, labels: BTreeMap<String, String>) {
        if self.labels.get(name) != Some(&labels) {
            self.labels.insert(name.into(), labels);
            self.serial += 1;
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.serial += u64::from(self.labels.remove(name).is_some());
    }

    /// Changes when any label does.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }
}

impl Company {
    /// Reads the API's object; `None` when it says nothing.
    pub(crate) fn of(
        spec: &PodSpec,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Option<Arc<Self>> {
        let affinity = spec.affinity.as_ref()?;
        let term = |term: &core::PodAffinityTerm| PodTerm::of(term, namespace, labels);
        let (near, apart) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let near_required =
            near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref());
        let apart_required = apart
            .and_then(|apart| apart.required_during_scheduling_ignored_during_execution.as_ref());
        let near_preferred = near
            .and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref());
        let apart_preferred = apart
            .and_then(|apart| apart.preferred_during_scheduling_ignored_during_execution.as_ref());
        let weighted = |sign: i64| {
            move |one: &core::WeightedPodAffinityTerm| {
                (
                    sign * i64::from(one.weight),
                    PodTerm::of(&one.pod_affinity_term, namespace, labels),
                )
            }
        };
        let likes = near_preferred.into_iter().flatten().map(weighted(1));
        let dislikes = apart_preferred.into_iter().flatten().map(weighted(-1));
        let company = Self {
            near: near_required.into_iter().flatten().map(term).collect(),
            apart: apart_required.into_iter().flatten().map(term).collect(),
            liking: likes.chain(dislikes).collect(),
        };
        let says =
            !(company.near.is_empty() && company.apart.is_empty() && company.liking.is_empty());
        says.then(|| Arc::new(company))
    }

    /// All terms.
    pub(crate) fn terms(&self) -> impl Iterator<Item = &PodTerm> {
        let required = self.near.iter().chain(&self.apart);
        required.chain(self.liking.iter().map(|(_, term)| term))
    }
}

impl PodTerm {
    fn of(
        term: &core::PodAffinityTerm,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let mut selector = term.label_selector.as_ref().map(Requirement::of_selector);
        if let Some(requirements) = &mut selector {
            let own = |key: &String| labels.get(key).map(|value| Requirement::equals(key, value));
            requirements.extend(term.match_label_keys.iter().flatten().filter_map(own));
            let other = |key| Some(Requirement { operator: Operator::NotIn, ..own(key)? });
            requirements.extend(term.mismatch_label_keys.iter().flatten().filter_map(other));
        }
        let namespace_selector = term.namespace_selector.as_ref().map(Requirement::of_selector);
        let mut namespaces: Vec<Box<str>> =
            term.namespaces.iter().flatten().map(|name| name.as_str().into()).collect();
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(namespace.into());
        }
        Self {
            topology_key: term.topology_key.as_str().into(),
            selector,
            namespaces,
            namespace_selector,
        }
    }

    /// Whether pods of a namespace with these labels may be meant.
    #[must_use]
    pub fn is_about(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.iter().any(|name| **name == *namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.iter().all(|one| one.matches(labels)))
    }

    /// Whether a pod with these labels is selected, in a namespace that the term is about.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector
            .as_ref()
            .is_some_and(|selector| selector.iter().all(|one| one.matches(labels)))
    }

    pub(crate) fn is_about_namespace(&self, namespace: &str, namespaces: &Namespaces) -> bool {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.is_about(namespace, namespaces.labels.get(namespace).unwrap_or(&NONE))
    }
}
