//! Cells: the nodes of one spot that offer the same and have the same load.
//!
//! Nodes of a cell differ in nothing but their names, so a pod is tried once for all of them. A
//! cell is the unit of everything that is indexed; [`Cells::log`] tells which ones changed.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;

use crate::{
    demand::Demand,
    few::Few,
    log::Log,
    node::{NodeIndex, Offer},
    pod::HostPort,
    resources::Resources,
    site::{SiteId, Sites},
    spot::{SpotId, Spots},
};

/// The place of a cell in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CellId(pub(crate) u32);

/// What the pods on a node use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Load {
    pub(crate) used: Resources,
    pub(crate) weight: Resources,
    pub(crate) pods: i64,
    /// Sorted.
    pub(crate) ports: Vec<HostPort>,
}

impl Load {
    pub(crate) fn charge(&mut self, demand: &Demand) {
        self.used.add(&demand.requests);
        self.weight.add(&demand.weight);
        self.pods += 1;
        if !demand.host_ports.is_empty() {
            self.ports.extend(demand.host_ports.iter().cloned());
            self.ports.sort_unstable();
        }
    }

    pub(crate) fn release(&mut self, demand: &Demand) {
        self.used.subtract(&demand.requests);
        self.weight.subtract(&demand.weight);
        self.pods -= 1;
        for port in &*demand.host_ports {
            if let Some(at) = self.ports.iter().position(|held| held == port) {
                self.ports.remove(at);
            }
        }
    }
}

/// Nodes that are alike.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) spot: SpotId,
    pub(crate) site: SiteId,
    pub(crate) offer: Arc<Offer>,
    /// All that have no pods share one.
    pub(crate) load: Arc<Load>,
    pub(crate) nodes: Few<NodeIndex>,
}

impl Cell {
    fn is(&self, spot: SpotId, offer: &Offer, load: &Load) -> bool {
        self.spot == spot && *self.offer == *offer && *self.load == *load
    }
}

/// The cells that there are.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    slots: Vec<Option<Cell>>,
    vacant: Vec<CellId>,
    ids: HashTable<CellId>,
    hasher: RandomState,
    no_load: Arc<Load>,
    pub(crate) log: Log<CellId>,
}

impl Cells {
    pub(crate) fn get(&self, id: CellId) -> Option<&Cell> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (CellId, &Cell)> {
        let slots = (0..).map(CellId).zip(&self.slots);
        slots.filter_map(|(id, cell)| Some((id, cell.as_ref()?)))
    }

    /// Puts a node into the cell where it belongs. It stays in the one where it was until it leaves.
    pub(crate) fn enter(
        &mut self,
        node: NodeIndex,
        (site, spot): (SiteId, SpotId),
        offer: &Arc<Offer>,
        load: Load,
        spots: &mut Spots,
    ) -> CellId {
        let hash = hash_of(&self.hasher, spot, offer, &load);
        let is_it = |id: &CellId| self.get(*id).is_some_and(|cell| cell.is(spot, offer, &load));
        let id = match self.ids.find(hash, is_it) {
            Some(id) => *id,
            None => {
                let none = load == *self.no_load;
                let load = if none { Arc::clone(&self.no_load) } else { Arc::new(load) };
                let (offer, nodes) = (Arc::clone(offer), Few::default());
                self.open(hash, Cell { spot, site, offer, load, nodes }, spots)
            }
        };
        if let Some(Some(cell)) = self.slots.get_mut(id.0 as usize) {
            cell.nodes.insert(node);
        }
        self.log.push(id);
        id
    }

    /// Takes a node out of a cell.
    pub(crate) fn leave(
        &mut self,
        node: NodeIndex,
        id: CellId,
        spots: &mut Spots,
        sites: &mut Sites,
    ) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        let Some(cell) = slot else { return };
        cell.nodes.remove(&node);
        if let Some(cell) = slot.take_if(|cell| cell.nodes.is_empty()) {
            let hash = hash_of(&self.hasher, cell.spot, &cell.offer, &cell.load);
            if let Ok(entry) = self.ids.find_entry(hash, |known| *known == id) {
                entry.remove();
            }
            self.vacant.push(id);
            spots.detach(cell.spot, id, sites);
        }
        self.log.push(id);
    }

    fn open(&mut self, hash: u64, cell: Cell, spots: &mut Spots) -> CellId {
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            CellId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        spots.attach(cell.spot, id);
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            *slot = Some(cell);
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.ids.insert_unique(hash, id, |id| {
            let cell = slots.get(id.0 as usize).and_then(Option::as_ref);
            cell.map_or(0, |cell| hash_of(hasher, cell.spot, &cell.offer, &cell.load))
        });
        id
    }

    /// How many there may be: identifiers are below this.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

fn hash_of(hasher: &RandomState, spot: SpotId, offer: &Offer, load: &Load) -> u64 {
    hasher.hash_one((spot, offer, load))
}
