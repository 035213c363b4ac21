//! Nodes as placement sees them: what the API says of one, and the compact record in the cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node as ApiNode;

use crate::{
    intern::{Interner, Symbol},
    pod::HostPort,
    resident::Resident,
    resources::{Resources, whole},
    taints::Taint,
};

/// The place of a node in the cluster's table. Indexes are dense and reused after removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub(crate) u32);

/// What the API says of a node, as far as placement cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: Box<str>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// It is cordoned.
    pub unschedulable: bool,
    /// What pods may use.
    pub allocatable: Resources,
    /// How many pods it may run.
    pub allocatable_pods: i64,
}

impl NodeView {
    /// Reads the API's object.
    #[must_use]
    pub fn from_node(node: &ApiNode) -> Self {
        let spec = node.spec.as_ref();
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec
                .and_then(|spec| spec.taints.as_ref())
                .into_iter()
                .flatten()
                .filter_map(Taint::from_core)
                .collect(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            allocatable: allocatable.map(Resources::from_list).unwrap_or_default(),
            allocatable_pods: allocatable.and_then(|list| list.get("pods")).map_or(0, whole),
        }
    }
}

/// A node in the cluster's table, with what its pods use.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: Box<str>,
    /// False while only pods speak of it: such a record counts usage but is never a candidate.
    pub(crate) known: bool,
    /// Sorted by key.
    pub(crate) labels: Box<[(Symbol, Symbol)]>,
    pub(crate) taints: Box<[Taint]>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    pub(crate) allocatable_pods: i64,
    pub(crate) used: Resources,
    pub(crate) weight: Resources,
    pub(crate) pods: i64,
    pub(crate) ports: Vec<HostPort>,
}

impl Node {
    pub(crate) fn describe(&mut self, view: &NodeView, symbols: &mut Interner) {
        let mut labels: Vec<_> = view
            .labels
            .iter()
            .map(|(key, value)| (symbols.intern(key), symbols.intern(value)))
            .collect();
        labels.sort_unstable();
        self.known = true;
        self.labels = labels.into();
        self.taints = view.taints.clone().into();
        self.unschedulable = view.unschedulable;
        self.allocatable = view.allocatable.clone();
        self.allocatable_pods = view.allocatable_pods;
    }

    pub(crate) fn forget(&mut self) {
        self.known = false;
        self.labels = Box::default();
        self.taints = Box::default();
    }

    pub(crate) fn charge(&mut self, pod: &Resident) {
        self.used.add(&pod.requests);
        self.weight.add(&pod.weight);
        self.pods += 1;
        self.ports.extend(pod.host_ports.iter().cloned());
    }

    pub(crate) fn release(&mut self, pod: &Resident) {
        self.used.subtract(&pod.requests);
        self.weight.subtract(&pod.weight);
        self.pods -= 1;
        for port in &*pod.host_ports {
            if let Some(at) = self.ports.iter().position(|held| held == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}
