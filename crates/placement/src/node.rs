//! Nodes as placement sees them: what the API says of one, and the compact record in the cluster.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Node as ApiNode, apimachinery::pkg::api::resource::Quantity};

use crate::{
    cell::CellId,
    intern::Symbol,
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
    /// What pods may use. Whoever describes many nodes shares it among those that offer the same.
    pub offer: Arc<Offer>,
}

/// How much room pods find on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offer {
    /// What pods may use together.
    pub resources: Resources,
    /// How many pods there may be.
    pub pods: i64,
}

impl Offer {
    /// Reads a resource list.
    #[must_use]
    pub fn from_list(list: &BTreeMap<String, Quantity>) -> Self {
        Self { resources: Resources::from_list(list), pods: list.get("pods").map_or(0, whole) }
    }
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
            offer: Arc::new(allocatable.map(Offer::from_list).unwrap_or_default()),
        }
    }
}

/// A node in the cluster's table. What is known of it and what its pods use is said by its cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) name: Symbol,
    pub(crate) cell: CellId,
}
