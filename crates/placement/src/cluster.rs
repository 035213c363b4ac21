//! The picture of the cluster, kept up to date by small changes.

use std::collections::HashMap;

use crate::{
    intern::{Interner, Symbol},
    node::{Node, NodeIndex, NodeView, Sites},
    pod::{PodKey, PodView},
    resident::{Demands, Groups, Resident},
};

/// Nodes and the pods on them.
///
/// Changes may come in any order: a pod on a node that is not known yet is remembered and counts
/// once the node appears.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(crate) symbols: Interner,
    pub(crate) nodes: Vec<Node>,
    vacant: Vec<NodeIndex>,
    by_name: HashMap<Symbol, NodeIndex>,
    sites: Sites,
    known: usize,
    residents: HashMap<Box<str>, HashMap<Box<str>, Resident>>,
    demands: Demands,
    pub(crate) groups: Groups,
}

impl Cluster {
    /// An empty cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many nodes there are.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.known
    }

    /// Adds a node or takes over its changes. Returns whether anything that placement looks at changed.
    pub fn set_node(&mut self, view: &NodeView) -> bool {
        let index = self.index_of(&view.name);
        let Some(node) = self.nodes.get_mut(index.0 as usize) else { return false };
        let traits = self.sites.traits_of(view, &mut self.symbols);
        let Some(before) = node.traits.replace(traits) else {
            self.known += 1;
            return true;
        };
        let changed = node.traits.as_ref() != Some(&before);
        if changed {
            self.sites.release(&before);
        }
        changed
    }

    /// Forgets a node. Its pods stay counted until they are removed themselves.
    pub fn remove_node(&mut self, name: &str) {
        let name = self.symbols.lookup(name);
        let Some(index) = self.by_name.get(&name).copied() else { return };
        let node = self.nodes.get_mut(index.0 as usize);
        if let Some(traits) = node.and_then(|node| node.traits.take()) {
            self.sites.release(&traits);
            self.known -= 1;
        }
        self.vacate_if_unused(index);
    }

    /// Takes over a pod that is bound to a node or assumed to be; one without a node is removed.
    /// Finished pods (phase Succeeded or Failed) take no room: call [`Cluster::remove_pod`] for them.
    pub fn set_pod(&mut self, pod: &PodView) {
        match pod.node_name.as_deref() {
            Some(node) => self.assume(pod, node),
            None => self.remove_pod(&pod.key),
        }
    }

    /// Counts a pod on `node` from now on: what was just decided and is not yet visible in the API.
    pub fn assume(&mut self, pod: &PodView, node: &str) {
        self.remove_pod(&pod.key);
        let index = self.index_of(node);
        let resident = Resident::new(pod, index, &mut self.symbols, &mut self.demands);
        self.groups.add(&pod.key.namespace, &resident, &self.symbols);
        if let Some(node) = self.nodes.get_mut(index.0 as usize) {
            node.charge(&resident);
        }
        self.residents
            .entry(pod.key.namespace.clone())
            .or_default()
            .insert(pod.key.name.clone(), resident);
    }

    /// Forgets a pod: it is gone, finished, or its binding failed.
    pub fn remove_pod(&mut self, key: &PodKey) {
        let Some(namespace) = self.residents.get_mut(&key.namespace) else { return };
        let Some(resident) = namespace.remove(&key.name) else { return };
        if namespace.is_empty() {
            self.residents.remove(&key.namespace);
        }
        self.groups.remove(&key.namespace, &resident, &self.symbols);
        if let Some(node) = self.nodes.get_mut(resident.node.0 as usize) {
            node.release(&resident);
        }
        self.vacate_if_unused(resident.node);
        self.demands.release(&resident.demand);
    }

    /// The node that a pod counts on.
    #[must_use]
    pub fn node_of(&self, key: &PodKey) -> Option<&str> {
        let resident = self.residents.get(&key.namespace)?.get(&key.name)?;
        self.nodes.get(resident.node.0 as usize).map(|node| self.symbols.text(node.name))
    }

    /// Makes sure that the groups a pod spreads by are counted.
    pub(crate) fn ensure_groups(&mut self, pod: &PodView) {
        let namespace = &*pod.key.namespace;
        for selector in pod.spread.iter().filter_map(|constraint| constraint.selector.as_ref()) {
            let residents = self.residents.get(namespace).into_iter().flat_map(HashMap::values);
            self.groups.ensure_selector(namespace, selector, residents, &self.symbols);
        }
    }

    pub(crate) fn known_nodes(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        (0..).map(NodeIndex).zip(&self.nodes).filter(|(_, node)| node.is_known())
    }

    pub(crate) fn node_named(&self, name: &str) -> Option<(NodeIndex, &Node)> {
        let index = *self.by_name.get(&self.symbols.lookup(name))?;
        let node = self.nodes.get(index.0 as usize)?;
        node.is_known().then_some((index, node))
    }

    fn index_of(&mut self, name: &str) -> NodeIndex {
        let name = self.symbols.intern(name);
        if let Some(index) = self.by_name.get(&name) {
            return *index;
        }
        let node = Node::new(name);
        let index = match self.vacant.pop() {
            Some(index) => {
                if let Some(place) = self.nodes.get_mut(index.0 as usize) {
                    *place = node;
                }
                index
            }
            None => {
                self.nodes.push(node);
                NodeIndex(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_name.insert(name, index);
        index
    }

    fn vacate_if_unused(&mut self, index: NodeIndex) {
        let Some(node) = self.nodes.get_mut(index.0 as usize) else { return };
        let unused = !node.is_known() && node.load().pods == 0;
        if unused && self.by_name.remove(&node.name).is_some() {
            self.vacant.push(index);
        }
    }
}
