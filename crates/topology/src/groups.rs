//! Groups of endpoints: their numbers, and which endpoint stands at which of a group's slots. An endpoint keeps
//! its slot for as long as it can, so that one that moves changes one slot.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::{
    front::{Fate, GroupId, Protocol},
    plan,
    tracked::{Change, Tracked},
};

/// FNV-1a, 32 bits (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>).
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

#[derive(Debug, Default)]
pub(crate) struct Groups {
    known: BTreeMap<GroupId, Known>,
    slots: Tracked<(GroupId, u32), SocketAddr>,
    /// Endpoints of groups with affinity: to them a client may come back.
    members: Tracked<(GroupId, SocketAddr), ()>,
    /// A group of datagrams lost an endpoint, or got its first one.
    disturbed: bool,
}

#[derive(Debug)]
struct Known {
    name: String,
    protocol: Protocol,
    size: u32,
    affinity_seconds: u32,
}

impl Groups {
    /// Has the group with this name be so; its number.
    pub(crate) fn put(&mut self, name: String, wanted: &plan::Group) -> GroupId {
        let id = self.number(&name);
        let (protocol, affinity_seconds) = (wanted.protocol, wanted.affinity_seconds);
        let old_affinity = self.known.get(&id).map_or(0, |known| known.affinity_seconds);
        let size = self.place(id, &wanted.endpoints, protocol);
        self.known.insert(id, Known { name, protocol, size, affinity_seconds });
        let none = BTreeSet::new();
        self.keep_members(id, if affinity_seconds > 0 { &wanted.endpoints } else { &none });
        self.disturbed |= protocol == Protocol::Udp && old_affinity != affinity_seconds;
        id
    }

    /// Removes the group.
    pub(crate) fn remove(&mut self, id: GroupId) {
        let Some(known) = self.known.remove(&id) else { return };
        self.place(id, &BTreeSet::new(), known.protocol);
        self.keep_members(id, &BTreeSet::new());
    }

    /// What becomes of packets to a front that leads to the group.
    pub(crate) fn fate(&self, id: GroupId) -> Option<Fate> {
        let known = self.known.get(&id)?;
        Some(Fate::Group { id, size: known.size, affinity_seconds: known.affinity_seconds })
    }

    /// The endpoints of the group, by slot.
    pub(crate) fn endpoints(&self, id: GroupId) -> impl Iterator<Item = SocketAddr> {
        self.slots.all().range((id, 0)..=(id, u32::MAX)).map(|(_, endpoint)| *endpoint)
    }

    pub(crate) fn slots(&self) -> &BTreeMap<(GroupId, u32), SocketAddr> {
        self.slots.all()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &(GroupId, SocketAddr)> {
        self.members.all().keys()
    }

    pub(crate) fn take_slots(&mut self) -> Vec<Change<(GroupId, u32), SocketAddr>> {
        self.slots.take_changes()
    }

    pub(crate) fn take_members(&mut self) -> Vec<Change<(GroupId, SocketAddr), ()>> {
        self.members.take_changes()
    }

    pub(crate) fn take_disturbed(&mut self) -> bool {
        std::mem::take(&mut self.disturbed)
    }

    fn number(&self, name: &str) -> GroupId {
        let hash = name
            .bytes()
            .fold(FNV_OFFSET, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME));
        let mut id = GroupId(hash);
        while self.known.get(&id).is_some_and(|known| known.name != name) {
            id = GroupId(id.0.wrapping_add(1));
        }
        id
    }

    /// Fills the group's slots with these endpoints; how many there are.
    fn place(&mut self, id: GroupId, wanted: &BTreeSet<SocketAddr>, protocol: Protocol) -> u32 {
        let old: Vec<SocketAddr> = self.endpoints(id).collect();
        let had: BTreeSet<SocketAddr> = old.iter().copied().collect();
        let mut new = wanted.difference(&had).copied();
        let mut slots: Vec<SocketAddr> = Vec::with_capacity(wanted.len());
        let mut left: Vec<SocketAddr> = old.clone();
        // What is gone gives its slot to what is new, or else to the last.
        let mut at = 0;
        while let Some(endpoint) = left.get(at).copied() {
            if wanted.contains(&endpoint) {
                slots.push(endpoint);
                at += 1;
            } else if let Some(endpoint) = new.next() {
                slots.push(endpoint);
                at += 1;
            } else {
                left.swap_remove(at);
            }
        }
        slots.extend(new);
        let is_udp = protocol == Protocol::Udp;
        self.disturbed |= is_udp && (old.is_empty() || !had.is_subset(wanted));
        for slot in 0..slots.len().max(old.len()) {
            let (before, after) = (old.get(slot), slots.get(slot));
            if before != after
                && let Ok(number) = u32::try_from(slot)
            {
                self.slots.set((id, number), after.copied());
            }
        }
        u32::try_from(slots.len()).unwrap_or(u32::MAX)
    }

    fn keep_members(&mut self, id: GroupId, wanted: &BTreeSet<SocketAddr>) {
        let old = self.members.all();
        let had: BTreeSet<SocketAddr> = old
            .range((id, SocketAddr::from(([0, 0, 0, 0], 0)))..)
            .map(|(key, ())| *key)
            .take_while(|(group, _)| *group == id)
            .map(|(_, endpoint)| endpoint)
            .collect();
        for endpoint in had.difference(wanted) {
            self.members.set((id, *endpoint), None);
        }
        for endpoint in wanted.difference(&had) {
            self.members.set((id, *endpoint), Some(()));
        }
    }
}
