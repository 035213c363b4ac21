//! The picture of the cluster, kept up to date by small changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    cell::{Cell, CellId, Cells, Load},
    census::{Censuses, Stir},
    company::Namespaces,
    demand::{Demand, DemandId, Demands},
    ids::IdMap,
    images::{Images, SetId},
    intern::{Interner, Symbol},
    log::Log,
    node::{Node, NodeIndex, NodeView, Offer},
    pod::{PodKey, PodView},
    ranking::Rankings,
    site::{Place, SiteId, Sites},
    spot::{SpotId, Spots},
};

/// Where nodes are that only pods speak of so far.
const NOWHERE: (SiteId, SetId) = (SiteId::NOWHERE, SetId::NONE);

/// Nodes and the pods on them.
///
/// Changes may come in any order: a pod on a node that is not known yet is remembered and counts
/// once the node appears.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(crate) symbols: Interner,
    nodes: Vec<Node>,
    vacant: Vec<NodeIndex>,
    by_name: IdMap<Symbol, NodeIndex>,
    pub(crate) sites: Sites,
    pub(crate) images: Images,
    pub(crate) spots: Spots,
    pub(crate) cells: Cells,
    known: usize,
    no_offer: Arc<Offer>,
    residents: HashMap<Box<str>, HashMap<Box<str>, Resident>>,
    pub(crate) demands: Demands,
    pub(crate) namespaces: Namespaces,
    pub(crate) stirs: Log<Stir>,
    pub(crate) rankings: Rankings,
    pub(crate) censuses: Censuses,
}

/// A pod on a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    pub(crate) node: NodeIndex,
    pub(crate) demand: DemandId,
    pub(crate) terminating: bool,
    pub(crate) created: i64,
}

/// A node with all that is known of it.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) index: NodeIndex,
    pub(crate) name: Symbol,
    pub(crate) cell: &'a Cell,
    pub(crate) cell_id: CellId,
    pub(crate) site: SiteId,
    pub(crate) place: &'a Place,
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

    /// Adds a node or takes over its changes. Returns whether pods that fitted nowhere may fit now: images
    /// that come or go change only which node is best.
    pub fn set_node(&mut self, view: &NodeView) -> bool {
        let index = self.index_of(&view.name);
        let (Some(cell), had) = (self.cell_of(index), self.images_of(index)) else { return false };
        let (before, same_offer) = (cell.site, *cell.offer == *view.offer);
        let load = Load::clone(&cell.load);
        let site = self.sites.site_of(view, &mut self.symbols);
        let images = self.images.change(had, &view.images, &mut self.symbols);
        if before == site && same_offer && had == images {
            return false;
        }
        self.known += usize::from(before == SiteId::NOWHERE);
        self.move_node(index, (site, images), &view.offer, load);
        before != site || !same_offer
    }

    /// Forgets a node. Its pods stay counted until they are removed themselves.
    pub fn remove_node(&mut self, name: &str) {
        let name = self.symbols.lookup(name);
        let Some(index) = self.by_name.get(&name).copied() else { return };
        let known = self.cell_of(index).filter(|cell| cell.site != SiteId::NOWHERE);
        if let Some(load) = known.map(|cell| Load::clone(&cell.load)) {
            self.known -= 1;
            self.images.leave(self.images_of(index), &mut self.symbols);
            let no_offer = Arc::clone(&self.no_offer);
            self.move_node(index, NOWHERE, &no_offer, load);
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
        let demand = self.demands.of(pod, &mut self.symbols);
        let (terminating, created) = (pod.terminating, pod.created);
        let resident = Resident { node: index, demand, terminating, created };
        self.count(&resident, true);
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
        self.count(&resident, false);
        if self.demands.drop_if_unused(resident.demand, &mut self.symbols) {
            self.stirs.push(Stir::Gone(resident.demand));
        }
        self.vacate_if_unused(resident.node);
    }

    /// Counts a pod on its node, or counts it there no more.
    pub(crate) fn count(&mut self, resident: &Resident, there: bool) {
        let Resident { node, demand, terminating, .. } = *resident;
        self.demands.count(demand, node, terminating, there);
        self.stirs.push(Stir::Pod { demand, node, terminating, more: there });
        self.change_load(node, demand, if there { Load::charge } else { Load::release });
    }

    /// All pods on nodes, in no order.
    pub(crate) fn residents(&self) -> impl Iterator<Item = (&str, &str, &Resident)> {
        self.residents.iter().flat_map(|(namespace, pods)| {
            pods.iter().map(move |(name, resident)| (&**namespace, &**name, resident))
        })
    }

    /// Takes over a namespace's labels: inter-pod affinity may select namespaces by them.
    pub fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.namespaces.set(name, labels);
    }

    /// Forgets a namespace's labels.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// The node that a pod counts on.
    #[must_use]
    pub fn node_of(&self, key: &PodKey) -> Option<&str> {
        let resident = self.residents.get(&key.namespace)?.get(&key.name)?;
        Some(self.symbols.text(self.node(resident.node)?.name))
    }

    /// A node that is known, with all that is known of it.
    pub(crate) fn see(&self, index: NodeIndex) -> Option<Seen<'_>> {
        let node = self.node(index)?;
        let cell = self.cells.get(node.cell)?;
        let place = self.sites.get(cell.site)?;
        Some(Seen { index, name: node.name, cell, cell_id: node.cell, site: cell.site, place })
    }

    pub(crate) fn node_named(&self, name: &str) -> Option<NodeIndex> {
        let index = *self.by_name.get(&self.symbols.lookup(name))?;
        self.see(index).map(|seen| seen.index)
    }

    pub(crate) fn node_of_name(&self, name: Symbol) -> Option<NodeIndex> {
        self.by_name.get(&name).copied()
    }

    /// All nodes that are known.
    pub(crate) fn known_nodes(&self) -> impl Iterator<Item = NodeIndex> {
        let known = self.cells.iter().filter(|(_, cell)| cell.site != SiteId::NOWHERE);
        known.flat_map(|(_, cell)| cell.nodes.iter())
    }

    pub(crate) fn name_of(&self, index: NodeIndex) -> &str {
        self.node(index).map_or("", |node| self.symbols.text(node.name))
    }

    fn node(&self, index: NodeIndex) -> Option<Node> {
        self.nodes.get(index.0 as usize).copied()
    }

    fn cell_of(&self, index: NodeIndex) -> Option<&Cell> {
        self.cells.get(self.node(index)?.cell)
    }

    /// The images that a node has.
    fn images_of(&self, index: NodeIndex) -> SetId {
        let spot = self.cell_of(index).and_then(|cell| self.spots.get(cell.spot));
        spot.map_or(SetId::NONE, |spot| spot.images)
    }

    fn change_load(&mut self, index: NodeIndex, id: DemandId, change: fn(&mut Load, &Demand)) {
        let (Some(cell), Some(kin)) = (self.cell_of(index), self.demands.get(id)) else { return };
        let (offer, mut load) = (Arc::clone(&cell.offer), Load::clone(&cell.load));
        let stand = (cell.site, cell.spot);
        change(&mut load, &kin.demand);
        self.move_within(index, stand, &offer, load);
    }

    fn move_node(
        &mut self,
        index: NodeIndex,
        (site, images): (SiteId, SetId),
        offer: &Arc<Offer>,
        load: Load,
    ) {
        let before = self.cell_of(index).map_or(SiteId::NOWHERE, |cell| cell.site);
        let spot = self.spots.spot_of(site, images, &mut self.sites);
        self.move_within(index, (site, spot), offer, load);
        self.stirs.push(Stir::Node(index));
        if site == before {
            return;
        }
        self.sites.count_nodes(site, 1);
        self.sites.count_nodes(before, -1);
        self.sites.close_if_empty(before, &mut self.symbols);
    }

    /// Moves a node to another cell, of the same spot or of one whose nodes are counted already.
    fn move_within(
        &mut self,
        index: NodeIndex,
        stand: (SiteId, SpotId),
        offer: &Arc<Offer>,
        load: Load,
    ) {
        let Some(from) = self.node(index).map(|node| node.cell) else { return };
        let cell = self.cells.enter(index, stand, offer, load, &mut self.spots);
        if cell == from {
            return;
        }
        self.cells.leave(index, from, &mut self.spots, &mut self.sites);
        if let Some(node) = self.nodes.get_mut(index.0 as usize) {
            node.cell = cell;
        }
    }

    fn index_of(&mut self, name: &str) -> NodeIndex {
        if let Some(index) = self.by_name.get(&self.symbols.lookup(name)) {
            return *index;
        }
        let name = self.symbols.intern(name);
        let index = self
            .vacant
            .pop()
            .unwrap_or_else(|| NodeIndex(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)));
        let (site, images) = NOWHERE;
        let spot = self.spots.spot_of(site, images, &mut self.sites);
        let load = Load::default();
        let cell = self.cells.enter(index, (site, spot), &self.no_offer, load, &mut self.spots);
        match self.nodes.get_mut(index.0 as usize) {
            Some(node) => *node = Node { name, cell },
            None => self.nodes.push(Node { name, cell }),
        }
        self.by_name.insert(name, index);
        index
    }

    fn vacate_if_unused(&mut self, index: NodeIndex) {
        let Some(node) = self.node(index) else { return };
        let unused = self
            .cells
            .get(node.cell)
            .is_some_and(|cell| cell.site == SiteId::NOWHERE && cell.load.pods == 0);
        if unused && self.by_name.remove(&node.name).is_some() {
            self.cells.leave(index, node.cell, &mut self.spots, &mut self.sites);
            self.symbols.release(node.name);
            self.vacant.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::images::Image;

    #[test]
    fn nothing_is_left_of_what_is_gone() {
        let mut cluster = Cluster::new();
        let labels =
            |name: &str| [("host".to_owned(), name.to_owned()), ("zone".into(), "z".into())];
        for name in ["a", "b"] {
            let labels = labels(name).into();
            let images = [Image { name: "app:1".into(), size_bytes: 1 << 30 }].into();
            cluster.set_node(&NodeView {
                name: name.into(),
                labels,
                images,
                ..NodeView::default()
            });
        }
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["x", "y"]}]}});
        let pod = |name: &str| {
            PodView::from_pod(
                &serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "ns", "labels": {"app": "x", "job": name}},
                "spec": {"containers": [], "affinity": {"podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [term]}}}}))
                .unwrap(),
            )
        };
        let pods = [(pod("one"), "a"), (pod("two"), "b"), (pod("three"), "unknown")];
        pods.iter().for_each(|(pod, node)| cluster.assume(pod, node));
        assert!(cluster.symbols.used() > 0);
        pods.iter().for_each(|(pod, _)| cluster.remove_pod(&pod.key));
        cluster.remove_node("b");
        cluster.set_node(&NodeView { name: "a".into(), ..NodeView::default() });
        cluster.remove_node("a");
        assert_eq!((cluster.symbols.used(), cluster.node_count()), (0, 0));
        assert_eq!((cluster.sites.iter().count(), cluster.cells.iter().count()), (0, 0));
        assert_eq!((cluster.spots.used(), cluster.images.used()), (0, 0));
    }
}
