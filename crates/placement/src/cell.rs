//! Cells: the nodes of one site that offer the same and have the same load.
//!
//! Nodes of a cell differ in nothing but their names, so a pod is tried once for all of them. A
//! cell is the unit of everything that is indexed; [`Cells::log`] tells which ones changed.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;

use crate::{
    demand::Demand,
    node::{NodeIndex, Offer},
    pod::HostPort,
    resources::Resources,
    site::{SiteId, Sites},
};

/// Changes remembered for rankings that were not asked since. A ranking that missed more is made
/// anew, which costs about as much as catching up with so many.
const LOG_LENGTH: usize = 1 << 16;

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
    pub(crate) site: SiteId,
    pub(crate) offer: Arc<Offer>,
    pub(crate) load: Load,
    pub(crate) nodes: BTreeSet<NodeIndex>,
}

impl Cell {
    fn is(&self, site: SiteId, offer: &Offer, load: &Load) -> bool {
        self.site == site && *self.offer == *offer && self.load == *load
    }
}

/// The cells that there are.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    slots: Vec<Option<Cell>>,
    vacant: Vec<CellId>,
    ids: HashTable<CellId>,
    hasher: RandomState,
    log: Log,
}

/// The newest changes of cells.
#[derive(Debug, Default)]
struct Log {
    newest: VecDeque<CellId>,
    /// How many changes there were before them.
    dropped: u64,
}

impl Cells {
    pub(crate) fn get(&self, id: CellId) -> Option<&Cell> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (CellId, &Cell)> {
        let slots = (0..).map(CellId).zip(&self.slots);
        slots.filter_map(|(id, cell)| Some((id, cell.as_ref()?)))
    }

    /// Puts a node into the cell where it belongs.
    pub(crate) fn enter(
        &mut self,
        node: NodeIndex,
        site: SiteId,
        offer: &Arc<Offer>,
        load: Load,
        sites: &mut Sites,
    ) -> CellId {
        let hash = hash_of(&self.hasher, site, offer, &load);
        let is_it = |id: &CellId| self.get(*id).is_some_and(|cell| cell.is(site, offer, &load));
        let id = match self.ids.find(hash, is_it) {
            Some(id) => *id,
            None => self.open(
                hash,
                Cell { site, offer: Arc::clone(offer), load, nodes: BTreeSet::new() },
                sites,
            ),
        };
        if let Some(Some(cell)) = self.slots.get_mut(id.0 as usize) {
            cell.nodes.insert(node);
        }
        sites.count_nodes(site, 1);
        self.log.push(id);
        id
    }

    /// Takes a node out of its cell.
    pub(crate) fn leave(&mut self, node: NodeIndex, id: CellId, sites: &mut Sites) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        let Some(cell) = slot else { return };
        cell.nodes.remove(&node);
        let site = cell.site;
        sites.count_nodes(site, -1);
        if let Some(cell) = slot.take_if(|cell| cell.nodes.is_empty()) {
            let hash = hash_of(&self.hasher, cell.site, &cell.offer, &cell.load);
            if let Ok(entry) = self.ids.find_entry(hash, |known| *known == id) {
                entry.remove();
            }
            self.vacant.push(id);
            sites.detach(site, id);
        }
        self.log.push(id);
    }

    fn open(&mut self, hash: u64, cell: Cell, sites: &mut Sites) -> CellId {
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            CellId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        sites.attach(cell.site, id);
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            *slot = Some(cell);
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.ids.insert_unique(hash, id, |id| {
            let cell = slots.get(id.0 as usize).and_then(Option::as_ref);
            cell.map_or(0, |cell| hash_of(hasher, cell.site, &cell.offer, &cell.load))
        });
        id
    }

    /// How many changes there have been: what to give [`Cells::changed_since`] later.
    pub(crate) fn changes(&self) -> u64 {
        self.log.dropped + self.log.newest.len() as u64
    }

    /// The cells that changed after that many changes, some more than once; `None` when that is too
    /// long ago.
    pub(crate) fn changed_since(&self, seen: u64) -> Option<impl Iterator<Item = CellId>> {
        let skip = seen.checked_sub(self.log.dropped)?;
        Some(
            self.log
                .newest
                .range(usize::try_from(skip).ok()?.min(self.log.newest.len())..)
                .copied(),
        )
    }
}

impl Log {
    fn push(&mut self, cell: CellId) {
        self.newest.push_back(cell);
        if self.newest.len() > LOG_LENGTH {
            self.newest.pop_front();
            self.dropped += 1;
        }
    }
}

fn hash_of(hasher: &RandomState, site: SiteId, offer: &Offer, load: &Load) -> u64 {
    hasher.hash_one((site, offer, load))
}
