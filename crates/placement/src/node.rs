//! Nodes as placement sees them: what the API says of one, and the compact record in the cluster.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Node as ApiNode, apimachinery::pkg::api::resource::Quantity};

use crate::{
    intern::{Interner, Symbol},
    pod::HostPort,
    requirement::label,
    resident::Resident,
    resources::{Resources, whole},
    shared::Shared,
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

/// A node in the cluster's table, with what its pods use.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: Symbol,
    /// `None` while only pods speak of it: such a record counts usage but is never a candidate.
    pub(crate) traits: Option<Traits>,
    /// `None` while no pod is there.
    load: Option<Box<Load>>,
}

/// What is known of a node, each part shared with the nodes that are alike in it.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    site: Arc<Site>,
    offer: Arc<Offer>,
}

/// Which pods a node is meant for.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Site {
    /// Sorted by key.
    labels: Box<[(Symbol, Symbol)]>,
    taints: Box<[Taint]>,
    unschedulable: bool,
}

/// What the pods on a node use.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) used: Resources,
    pub(crate) weight: Resources,
    pub(crate) pods: i64,
    pub(crate) ports: Vec<HostPort>,
}

static NO_OFFER: Offer = Offer { resources: Resources::NONE, pods: 0 };
static NO_LOAD: Load =
    Load { used: Resources::NONE, weight: Resources::NONE, pods: 0, ports: Vec::new() };

/// The sites of the nodes that there are, each once.
#[derive(Debug, Default)]
pub(crate) struct Sites(Shared<Site>);

impl Sites {
    pub(crate) fn traits_of(&mut self, view: &NodeView, symbols: &mut Interner) -> Traits {
        let mut labels: Vec<_> = view
            .labels
            .iter()
            .map(|(key, value)| {
                let own = **value == *view.name;
                let value = if own { Symbol::OWN_NAME } else { symbols.intern(value) };
                (symbols.intern(key), value)
            })
            .collect();
        labels.sort_unstable();
        let site = Site {
            labels: labels.into(),
            taints: view.taints.clone().into(),
            unschedulable: view.unschedulable,
        };
        Traits { site: self.0.share(site), offer: Arc::clone(&view.offer) }
    }

    pub(crate) fn release(&mut self, traits: &Traits) {
        self.0.release(&traits.site);
    }
}

impl PartialEq for Traits {
    /// Equal sites are the same: each is there once.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.site, &other.site) && self.offer == other.offer
    }
}

impl Node {
    pub(crate) fn new(name: Symbol) -> Self {
        Self { name, traits: None, load: None }
    }

    pub(crate) fn is_known(&self) -> bool {
        self.traits.is_some()
    }

    fn site(&self) -> Option<&Site> {
        self.traits.as_ref().map(|traits| &*traits.site)
    }

    /// The value of a label.
    pub(crate) fn label(&self, key: Symbol) -> Option<Symbol> {
        let value = label(&self.site()?.labels, key)?;
        Some(if value == Symbol::OWN_NAME { self.name } else { value })
    }

    pub(crate) fn taints(&self) -> &[Taint] {
        self.site().map_or(&[], |site| &site.taints)
    }

    pub(crate) fn is_unschedulable(&self) -> bool {
        self.site().is_some_and(|site| site.unschedulable)
    }

    pub(crate) fn offer(&self) -> &Offer {
        self.traits.as_ref().map_or(&NO_OFFER, |traits| &traits.offer)
    }

    pub(crate) fn load(&self) -> &Load {
        self.load.as_deref().unwrap_or(&NO_LOAD)
    }

    pub(crate) fn charge(&mut self, pod: &Resident) {
        let load = self.load.get_or_insert_default();
        load.used.add(&pod.requests);
        load.weight.add(&pod.weight);
        load.pods += 1;
        load.ports.extend(pod.host_ports.iter().cloned());
    }

    pub(crate) fn release(&mut self, pod: &Resident) {
        let Some(load) = &mut self.load else { return };
        load.used.subtract(&pod.requests);
        load.weight.subtract(&pod.weight);
        load.pods -= 1;
        for port in &*pod.host_ports {
            if let Some(at) = load.ports.iter().position(|held| held == port) {
                load.ports.swap_remove(at);
            }
        }
        if load.pods <= 0 {
            self.load = None;
        }
    }
}
