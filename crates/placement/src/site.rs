//! Sites: what nodes have alike, whatever runs on them (labels, taints, cordon), each once, and
//! which sites carry a label.
//!
//! A node's label that repeats the node's own name does not make a site: a million hostnames
//! would make a million. Such a value is kept as [`Symbol::OWN_NAME`] and resolved for the node at
//! hand.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;

use crate::{
    few::Few,
    intern::{Interner, Symbol},
    node::NodeView,
    requirement::label,
    spot::SpotId,
    taints::Taint,
};

/// The place of a site in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SiteId(pub(crate) u32);

impl SiteId {
    /// Of nodes that only pods speak of so far.
    pub(crate) const NOWHERE: Self = Self(u32::MAX);
}

/// Which pods a node is meant for.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    /// Sorted by key.
    labels: Box<[(Symbol, Symbol)]>,
    pub(crate) taints: Box<[Taint]>,
    pub(crate) unschedulable: bool,
}

impl Site {
    fn of(view: &NodeView, symbols: &mut Interner) -> Self {
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
        Self {
            labels: labels.into(),
            taints: view.taints.clone().into(),
            unschedulable: view.unschedulable,
        }
    }

    /// Gives back the symbols that were made for it.
    fn release(&self, symbols: &mut Interner) {
        for (key, value) in &*self.labels {
            symbols.release(*key);
            symbols.release(*value);
        }
    }

    /// A label's value as it is kept: [`Symbol::OWN_NAME`] where each node has its own.
    pub(crate) fn kept(&self, key: Symbol) -> Option<Symbol> {
        label(&self.labels, key)
    }

    /// A label's value on the node of this name.
    pub(crate) fn label(&self, key: Symbol, name: Symbol) -> Option<Symbol> {
        self.kept(key).map(|value| if value == Symbol::OWN_NAME { name } else { value })
    }
}

/// A site in use.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) site: Arc<Site>,
    /// Tells this site from an earlier one with the same identifier.
    pub(crate) serial: u64,
    /// How many nodes there are.
    pub(crate) nodes: usize,
    pub(crate) spots: Few<SpotId>,
}

/// The sites that nodes are at.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    places: Vec<Option<Place>>,
    vacant: Vec<SiteId>,
    ids: HashTable<SiteId>,
    hasher: RandomState,
    by_label: HashMap<Symbol, HashMap<Symbol, Few<SiteId>>>,
    serial: u64,
}

impl Sites {
    /// The site of a node; made if it is new. It goes with its last node.
    pub(crate) fn site_of(&mut self, view: &NodeView, symbols: &mut Interner) -> SiteId {
        let site = Site::of(view, symbols);
        let hash = self.hasher.hash_one(&site);
        let known =
            self.ids.find(hash, |id| self.get(*id).is_some_and(|known| *known.site == site));
        if let Some(id) = known.copied() {
            site.release(symbols);
            return id;
        }
        self.serial += 1;
        let place =
            Place { site: Arc::new(site), serial: self.serial, nodes: 0, spots: Few::default() };
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(None);
            SiteId(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX))
        });
        for (key, value) in &*place.site.labels {
            self.by_label.entry(*key).or_default().entry(*value).or_default().insert(id);
        }
        if let Some(slot) = self.places.get_mut(id.0 as usize) {
            *slot = Some(place);
        }
        let (places, hasher) = (&self.places, &self.hasher);
        self.ids.insert_unique(hash, id, |id| {
            let place = places.get(id.0 as usize).and_then(Option::as_ref);
            place.map_or(0, |place| hasher.hash_one(&place.site))
        });
        id
    }

    pub(crate) fn get(&self, id: SiteId) -> Option<&Place> {
        self.places.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SiteId, &Place)> {
        let places = (0..).map(SiteId).zip(&self.places);
        places.filter_map(|(id, place)| Some((id, place.as_ref()?)))
    }

    /// Changes with each site that appears or goes.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn attach(&mut self, id: SiteId, spot: SpotId) {
        if let Some(Some(place)) = self.places.get_mut(id.0 as usize) {
            place.spots.insert(spot);
        }
    }

    pub(crate) fn detach(&mut self, id: SiteId, spot: SpotId) {
        let Some(Some(place)) = self.places.get_mut(id.0 as usize) else { return };
        place.spots.remove(&spot);
    }

    pub(crate) fn count_nodes(&mut self, id: SiteId, by: isize) {
        if let Some(Some(place)) = self.places.get_mut(id.0 as usize) {
            place.nodes = place.nodes.saturating_add_signed(by);
        }
    }

    /// Forgets a site that has no nodes any more.
    pub(crate) fn close_if_empty(&mut self, id: SiteId, symbols: &mut Interner) {
        let Some(slot) = self.places.get_mut(id.0 as usize) else { return };
        let Some(place) = slot.take_if(|place| place.nodes == 0) else { return };
        for (key, value) in &*place.site.labels {
            let Some(values) = self.by_label.get_mut(key) else { continue };
            if let Some(sites) = values.get_mut(value) {
                sites.remove(&id);
                if sites.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.by_label.remove(key);
            }
        }
        if let Ok(entry) =
            self.ids.find_entry(self.hasher.hash_one(&place.site), |known| *known == id)
        {
            entry.remove();
        }
        place.site.release(symbols);
        self.serial += 1;
        self.vacant.push(id);
    }

    /// The sites where a label has this value.
    pub(crate) fn labelled(&self, key: Symbol, value: Symbol) -> &Few<SiteId> {
        let sites = self.by_label.get(&key).and_then(|values| values.get(&value));
        sites.unwrap_or(&Few::None)
    }

    /// How many values a label has, not counting nodes' own names.
    pub(crate) fn values(&self, key: Symbol) -> usize {
        let Some(values) = self.by_label.get(&key) else { return 0 };
        values.len() - usize::from(values.contains_key(&Symbol::OWN_NAME))
    }

    /// Whether some nodes have their own names as this label's value.
    pub(crate) fn is_own_name(&self, key: Symbol) -> bool {
        !self.labelled(key, Symbol::OWN_NAME).is_empty()
    }
}
