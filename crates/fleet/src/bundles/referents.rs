//! What pods reference, ConfigMaps and Secrets: which there are, and on which nodes pods reference them.
//!
//! No contents. Pods of one Deployment have one list of references, kept once; nodes are kept by list, not by pod
//! and referent, so a million pods of a few templates cost next to nothing here.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use toono_session::ReferentDigest;
use toono_wire::referent::{ReferentKind, ReferentName};

use super::{BundleIndex, nodes::NodeSet};
use crate::objects::ReferentObject;

/// One referent's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ReferentIndex(u32);

/// The place of a list of references that pods have alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ListIndex(u32);

/// All that exist or are referenced.
#[derive(Debug, Default)]
pub(super) struct Referents {
    entries: Vec<Entry>,
    vacant: Vec<ReferentIndex>,
    by_name: HashMap<ReferentName, ReferentIndex>,
    lists: Vec<List>,
    vacant_lists: Vec<ListIndex>,
    by_references: HashMap<Arc<[ReferentIndex]>, ListIndex>,
    /// Of lists of the API that are being told: what they have told.
    told: HashMap<ReferentKind, HashSet<ReferentIndex>>,
}

#[derive(Debug)]
struct Entry {
    name: ReferentName,
    revision: u64,
    /// None when it does not exist.
    digest: Option<ReferentDigest>,
    /// Revision of the last change, as bundles count.
    changed: u64,
    /// The lists that it is in.
    lists: Vec<ListIndex>,
}

#[derive(Debug)]
struct List {
    referents: Arc<[ReferentIndex]>,
    nodes: NodeSet,
}

/// A change of a referent on its way to the nodes whose pods reference it: there may be a million.
#[derive(Debug)]
pub(crate) struct Spread {
    referent: ReferentIndex,
    /// The change's revision, as bundles count.
    pub(super) revision: u64,
    /// The lists that are left, and the node of the last of them that was reached last.
    lists: Vec<ListIndex>,
    after: Option<BundleIndex>,
}

impl ReferentIndex {
    fn place(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl ListIndex {
    /// Of pods that reference nothing.
    pub(super) const NONE: Self = Self(u32::MAX);

    fn place(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Spread {
    /// Whether every node has been reached.
    pub(crate) fn is_done(&self) -> bool {
        self.lists.is_empty()
    }
}

// === what the API tells ===

impl Referents {
    /// A list of all of a kind begins.
    pub(super) fn list(&mut self, kind: ReferentKind) {
        self.told.insert(kind, HashSet::new());
    }

    /// All of a kind have been told. Returns those that were not.
    pub(super) fn list_ended(&mut self, kind: ReferentKind) -> Vec<ReferentName> {
        let Some(told) = self.told.remove(&kind) else { return Vec::new() };
        let there = self.by_name.iter().filter(|(name, _)| name.kind == kind);
        let exists = |index: ReferentIndex| self.entry(index).is_some_and(|it| it.digest.is_some());
        let gone = there.filter(|(_, index)| !told.contains(index) && exists(**index));
        gone.map(|(name, _)| name.clone()).collect()
    }

    /// One was added or changed. Returns what is to be told when any pod references it; `revision` is the change's,
    /// as bundles count.
    pub(super) fn put(&mut self, object: ReferentObject, revision: u64) -> Option<Spread> {
        let index = self.index_of(object.name);
        let kind = self.entry(index)?.name.kind;
        if let Some(told) = self.told.get_mut(&kind) {
            told.insert(index);
        }
        let entry = self.entries.get_mut(index.place())?;
        if entry.revision > object.revision {
            return None;
        }
        entry.revision = object.revision;
        if entry.digest == Some(object.digest) {
            return None;
        }
        entry.digest = Some(object.digest);
        // While nobody references it, nobody has to hear of it.
        entry.changed = if entry.lists.is_empty() { object.revision } else { revision };
        self.spread(index)
    }

    /// One is gone.
    pub(super) fn delete(&mut self, name: &ReferentName, revision: u64) -> Option<Spread> {
        let index = *self.by_name.get(name)?;
        let entry = self.entries.get_mut(index.place())?;
        entry.digest.take()?;
        entry.changed = revision;
        let spread = self.spread(index);
        self.forget_if_unused(index);
        spread
    }

    /// Whether one of this name exists or is referenced.
    pub(super) fn knows(&self, name: &ReferentName) -> bool {
        self.by_name.contains_key(name)
    }

    /// All of a kind that pods reference. Others of the kind are forgotten.
    pub(super) fn referenced(&mut self, kind: ReferentKind) -> Vec<ReferentName> {
        let of_kind = self.by_name.iter().filter(|(name, _)| name.kind == kind);
        let is_used =
            |index: &ReferentIndex| self.entry(*index).is_some_and(|entry| !entry.lists.is_empty());
        let (used, unused): (Vec<_>, Vec<_>) = of_kind
            .map(|(name, index)| (name.clone(), *index))
            .partition(|(_, index)| is_used(index));
        for (_, index) in unused {
            if let Some(entry) = self.entries.get_mut(index.place()) {
                entry.digest = None;
            }
            self.forget_if_unused(index);
        }
        used.into_iter().map(|(name, _)| name).collect()
    }

    fn spread(&self, referent: ReferentIndex) -> Option<Spread> {
        let entry = self.entry(referent).filter(|it| !it.lists.is_empty())?;
        let (revision, lists) = (entry.changed, entry.lists.clone());
        Some(Spread { referent, revision, lists, after: None })
    }

    /// The next nodes that a change reaches, at most so many.
    pub(super) fn next(&self, spread: &mut Spread, most: usize) -> Vec<BundleIndex> {
        let mut reached = Vec::new();
        while let Some(list) = spread.lists.last() {
            // Its place may be another list's by now.
            let list = self.lists.get(list.place());
            let list = list.filter(|list| list.referents.contains(&spread.referent));
            let room = most - reached.len();
            let found = list.map(|list| list.nodes.after(spread.after, room)).unwrap_or_default();
            spread.after = found.last().copied();
            let whole = found.len() < room;
            reached.extend(found);
            if !whole {
                break;
            }
            spread.lists.pop();
            spread.after = None;
        }
        reached
    }
}

// === what pods reference ===

impl Referents {
    /// The list of what a pod of this namespace references.
    pub(super) fn list_of(
        &mut self,
        namespace: &Arc<str>,
        references: &[(ReferentKind, Box<str>)],
    ) -> ListIndex {
        if references.is_empty() {
            return ListIndex::NONE;
        }
        let named = |(kind, name): &(ReferentKind, Box<str>)| ReferentName {
            kind: *kind,
            namespace: namespace.clone(),
            name: name.as_ref().into(),
        };
        let referents: Arc<[_]> = references.iter().map(|it| self.index_of(named(it))).collect();
        if let Some(list) = self.by_references.get(&referents) {
            return *list;
        }
        let made = List { referents: referents.clone(), nodes: NodeSet::default() };
        let index = match self.vacant_lists.pop() {
            Some(index) => {
                if let Some(place) = self.lists.get_mut(index.place()) {
                    *place = made;
                }
                index
            }
            None => {
                self.lists.push(made);
                ListIndex(u32::try_from(self.lists.len() - 1).unwrap_or(u32::MAX))
            }
        };
        for referent in referents.iter() {
            if let Some(entry) = self.entries.get_mut(referent.place()) {
                entry.lists.push(index);
            }
        }
        self.by_references.insert(referents, index);
        index
    }

    /// A node has pods with this list.
    pub(super) fn attach(&mut self, list: ListIndex, node: BundleIndex) {
        if let Some(list) = self.lists.get_mut(list.place()) {
            list.nodes.insert(node);
        }
    }

    /// A node has none with this list any more.
    pub(super) fn detach(&mut self, list: ListIndex, node: BundleIndex) {
        let Some(found) = self.lists.get_mut(list.place()) else { return };
        found.nodes.remove(node);
        if !found.nodes.is_empty() {
            return;
        }
        let referents = std::mem::take(&mut found.referents);
        if self.by_references.remove(&referents).is_none() {
            return;
        }
        self.vacant_lists.push(list);
        for referent in referents.iter() {
            if let Some(entry) = self.entries.get_mut(referent.place()) {
                entry.lists.retain(|it| *it != list);
            }
            self.forget_if_unused(*referent);
        }
    }

    /// What is in a list.
    pub(super) fn of(&self, list: ListIndex) -> &[ReferentIndex] {
        self.lists.get(list.place()).map_or(&[], |list| &list.referents)
    }

    /// One that exists: its name, its digest, and when it changed.
    pub(super) fn existing(
        &self,
        referent: ReferentIndex,
    ) -> Option<(&ReferentName, ReferentDigest, u64)> {
        let entry = self.entry(referent)?;
        Some((&entry.name, entry.digest?, entry.changed))
    }

    fn entry(&self, index: ReferentIndex) -> Option<&Entry> {
        self.entries.get(index.place())
    }

    fn index_of(&mut self, name: ReferentName) -> ReferentIndex {
        if let Some(index) = self.by_name.get(&name) {
            return *index;
        }
        let entry =
            Entry { name: name.clone(), revision: 0, digest: None, changed: 0, lists: Vec::new() };
        let index = match self.vacant.pop() {
            Some(index) => {
                if let Some(place) = self.entries.get_mut(index.place()) {
                    *place = entry;
                }
                index
            }
            None => {
                self.entries.push(entry);
                ReferentIndex(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_name.insert(name, index);
        index
    }

    fn forget_if_unused(&mut self, index: ReferentIndex) {
        let Some(entry) = self.entries.get(index.place()) else { return };
        let unused = entry.digest.is_none() && entry.lists.is_empty();
        if unused && self.by_name.get(&entry.name) == Some(&index) {
            self.by_name.remove(&entry.name);
            self.vacant.push(index);
        }
    }
}
