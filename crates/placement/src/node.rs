//! Nodes as placement sees them: what the API says of one, and the compact record in the cluster.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Node as ApiNode, apimachinery::pkg::api::resource::Quantity};

use crate::{
    cell::CellId,
    images::Image,
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
    /// The images that it has, see [`Image::reported`]; shared in the same way.
    pub images: Arc<[Image]>,
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
        let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
        let images = Image::reported(images.map(|image| {
            (image.names.as_deref().unwrap_or_default(), image.size_bytes.unwrap_or(0))
        }));
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
            images: images.into(),
        }
    }
}

/// A node in the cluster's table. What is known of it and what its pods use is said by its cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) name: Symbol,
    pub(crate) cell: CellId,
}
