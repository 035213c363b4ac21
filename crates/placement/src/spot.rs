//! Spots: the nodes of one site that have the same images. Most sites are one spot; sites with several
//! are those where images come and go.
//!
//! No filter tells the spots of a site apart, and only the scores of pods whose images they have.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::{
    cell::CellId,
    few::Few,
    images::SetId,
    site::{SiteId, Sites},
};

/// The place of a spot in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpotId(pub(crate) u32);

/// A spot in use.
#[derive(Debug)]
pub(crate) struct Spot {
    pub(crate) site: SiteId,
    pub(crate) images: SetId,
    /// Tells this spot from an earlier one with the same identifier.
    pub(crate) serial: u32,
    pub(crate) cells: Few<CellId>,
}

/// The spots that nodes are at.
#[derive(Debug, Default)]
pub(crate) struct Spots {
    slots: Vec<Option<Spot>>,
    vacant: Vec<SpotId>,
    ids: HashTable<SpotId>,
    hasher: RandomState,
    serial: u32,
}

impl Spots {
    pub(crate) fn get(&self, id: SpotId) -> Option<&Spot> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// The spot of nodes at a site with these images; made if it is new. It goes with its last cell.
    pub(crate) fn spot_of(&mut self, site: SiteId, images: SetId, sites: &mut Sites) -> SpotId {
        let hash = self.hasher.hash_one((site, images));
        let is_it = |id: &SpotId| {
            self.get(*id).is_some_and(|spot| (spot.site, spot.images) == (site, images))
        };
        if let Some(id) = self.ids.find(hash, is_it) {
            return *id;
        }
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            SpotId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        self.serial = self.serial.wrapping_add(1);
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            *slot = Some(Spot { site, images, serial: self.serial, cells: Few::default() });
        }
        sites.attach(site, id);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.ids.insert_unique(hash, id, |id| {
            let spot = slots.get(id.0 as usize).and_then(Option::as_ref);
            spot.map_or(0, |spot| hasher.hash_one((spot.site, spot.images)))
        });
        id
    }

    pub(crate) fn attach(&mut self, id: SpotId, cell: CellId) {
        if let Some(Some(spot)) = self.slots.get_mut(id.0 as usize) {
            spot.cells.insert(cell);
        }
    }

    pub(crate) fn detach(&mut self, id: SpotId, cell: CellId, sites: &mut Sites) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        let Some(spot) = slot else { return };
        spot.cells.remove(&cell);
        let Some(spot) = slot.take_if(|spot| spot.cells.is_empty()) else { return };
        let hash = self.hasher.hash_one((spot.site, spot.images));
        if let Ok(entry) = self.ids.find_entry(hash, |known| *known == id) {
            entry.remove();
        }
        sites.detach(spot.site, id);
        self.vacant.push(id);
    }

    /// How many spots are in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.ids.len()
    }
}
