//! Images that nodes have already: Kubernetes' ImageLocality.
//!
//! A pod is drawn to nodes with its images, by their sizes, and the more so the more nodes have them, lest
//! one node draws all. So what an image is worth changes with each node that pulls it, for all nodes
//! at once. Nothing that is kept in order knows of that worth: nodes are told apart by *which* images
//! they have, as sets (a fleet has few different ones), and what a set is worth to a pod is reckoned when the
//! pod is placed. While an image is rolled out over a million nodes each of them goes from one set to
//! another, and that is all that changes.
//!
//! An image is as large as the node said that had it first, as in Kubernetes. Images that are too small
//! to earn a point alone are left out: all such images of a pod together are less than a point.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::{
    intern::{Interner, Symbol},
    pod::PodView,
    score::MAX_SCORE,
};

/// Fewer bytes are worth nothing.
const LEAST_BYTES: i64 = 23 << 20;
/// More for each container are worth no more.
const MOST_BYTES_PER_CONTAINER: i64 = 1_000 << 20;
/// What a point takes, at least. The more containers a pod has the more it takes.
const BYTES_PER_POINT: i64 = (MOST_BYTES_PER_CONTAINER - LEAST_BYTES) / MAX_SCORE;

/// An image on a node, by one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// The name, with its tag or digest.
    pub name: Box<str>,
    /// Its size in bytes.
    pub size_bytes: i64,
}

impl Image {
    /// The images that a node reports (names and bytes of each), by name, each name once, without those
    /// that are too small to matter.
    #[must_use]
    pub fn reported<'a>(images: impl IntoIterator<Item = (&'a [String], i64)>) -> Vec<Self> {
        let large = images.into_iter().filter(|(_, bytes)| *bytes >= BYTES_PER_POINT);
        let mut all: Vec<_> = large
            .flat_map(|(names, size_bytes)| {
                names.iter().map(move |name| Self { name: name.as_str().into(), size_bytes })
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.dedup_by(|later, first| later.name == first.name);
        all
    }
}

/// The images of a pod's containers, one for each, as nodes would name them.
pub(crate) fn of_pod(spec: &PodSpec) -> Vec<Box<str>> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let image = |container: &Container| with_tag(container.image.as_deref().unwrap_or_default());
    containers.map(image).collect()
}

/// The name with the tag that is meant when none is given.
fn with_tag(name: &str) -> Box<str> {
    match name.rfind(':') <= name.rfind('/') {
        true => format!("{name}:latest").into(),
        false => name.into(),
    }
}

/// The place of a set of images in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SetId(u32);

impl SetId {
    /// No images.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// The images that some nodes have.
#[derive(Debug)]
struct Set {
    /// Sorted.
    names: Box<[Symbol]>,
    nodes: usize,
}

/// An image that some node has.
#[derive(Debug)]
struct Known {
    size_bytes: i64,
    nodes: usize,
}

/// The images that nodes have.
#[derive(Debug, Default)]
pub(crate) struct Images {
    sets: Vec<Option<Set>>,
    vacant: Vec<SetId>,
    ids: HashTable<SetId>,
    hasher: RandomState,
    known: HashMap<Symbol, Known>,
}

impl Images {
    /// Takes over that a node which had the images of `before` now has these.
    pub(crate) fn change(
        &mut self,
        before: SetId,
        images: &[Image],
        symbols: &mut Interner,
    ) -> SetId {
        let mut now: Vec<_> =
            images.iter().map(|image| (symbols.intern(&image.name), image.size_bytes)).collect();
        now.sort_unstable();
        now.dedup_by_key(|(name, _)| *name);
        let had = names(&self.sets, before);
        for (name, size_bytes) in &now {
            let alone = had.binary_search(name).is_ok();
            let known = self.known.get_mut(name).filter(|known| alone && known.nodes == 1);
            // Nobody else has it: what the node says last counts.
            known.into_iter().for_each(|known| known.size_bytes = *size_bytes);
        }
        if had.iter().eq(now.iter().map(|(name, _)| name)) {
            now.iter().for_each(|(name, _)| symbols.release(*name));
            return before;
        }
        for (name, size_bytes) in &now {
            let new = Known { size_bytes: *size_bytes, nodes: 0 };
            self.known.entry(*name).or_insert(new).nodes += 1;
        }
        let id = self.set_of(now.into_iter().map(|(name, _)| name).collect(), symbols);
        self.leave(before, symbols);
        id
    }

    /// Takes over that a node which had the images of `before` has none any more.
    pub(crate) fn leave(&mut self, before: SetId, symbols: &mut Interner) {
        let Some(slot) = self.sets.get_mut(before.0 as usize) else { return };
        let Some(set) = slot else { return };
        for name in &*set.names {
            let Some(known) = self.known.get_mut(name) else { continue };
            known.nodes -= 1;
            if known.nodes == 0 {
                self.known.remove(name);
            }
        }
        set.nodes -= 1;
        let Some(set) = slot.take_if(|set| set.nodes == 0) else { return };
        let hash = self.hasher.hash_one(&set.names);
        if let Ok(entry) = self.ids.find_entry(hash, |id| *id == before) {
            entry.remove();
        }
        set.names.iter().for_each(|name| symbols.release(*name));
        self.vacant.push(before);
    }

    fn set_of(&mut self, names: Box<[Symbol]>, symbols: &mut Interner) -> SetId {
        if names.is_empty() {
            return SetId::NONE;
        }
        let hash = self.hasher.hash_one(&names);
        let known = self.ids.find(hash, |id| *self.names(*id) == *names).copied();
        if let Some(id) = known {
            names.iter().for_each(|name| symbols.release(*name));
            if let Some(Some(set)) = self.sets.get_mut(id.0 as usize) {
                set.nodes += 1;
            }
            return id;
        }
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.sets.push(None);
            SetId(u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(slot) = self.sets.get_mut(id.0 as usize) {
            *slot = Some(Set { names, nodes: 1 });
        }
        let (sets, hasher) = (&self.sets, &self.hasher);
        self.ids.insert_unique(hash, id, |id| {
            let set = sets.get(id.0 as usize).and_then(Option::as_ref);
            set.map_or(0, |set| hasher.hash_one(&set.names))
        });
        id
    }

    fn names(&self, id: SetId) -> &[Symbol] {
        names(&self.sets, id)
    }

    /// How many sets are in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.ids.len()
    }
}

fn names(sets: &[Option<Set>], id: SetId) -> &[Symbol] {
    let set = sets.get(id.0 as usize).and_then(Option::as_ref);
    set.map_or(&[], |set| &set.names)
}

/// What images are worth to a pod now.
#[derive(Debug, Default)]
pub(crate) struct Locality {
    /// Those of its images that any node has, sorted, with the bytes that each counts as.
    wanted: Vec<(Symbol, i64)>,
    containers: i64,
}

impl Locality {
    /// Nothing is wanted if not even all the pod's images together would earn a point: so it is with
    /// images that few of the nodes have.
    pub(crate) fn of(pod: &PodView, images: &Images, nodes: usize, symbols: &Interner) -> Self {
        let mut wanted: Vec<(Symbol, i64)> = Vec::new();
        for name in &pod.images {
            let symbol = symbols.lookup(name);
            let Some(known) = images.known.get(&symbol) else { continue };
            let share = known.nodes as f64 / nodes as f64;
            let bytes = (known.size_bytes as f64 * share) as i64;
            match wanted.iter_mut().find(|(wanted, _)| *wanted == symbol) {
                Some((_, sum)) => *sum = sum.saturating_add(bytes),
                None => wanted.push((symbol, bytes)),
            }
        }
        wanted.sort_unstable();
        let mut locality = Self { wanted, containers: pod.images.len() as i64 };
        if locality.points(&locality.names()) == 0 {
            locality.wanted.clear();
        }
        locality
    }

    /// The images that make a difference, sorted.
    pub(crate) fn names(&self) -> Vec<Symbol> {
        self.wanted.iter().map(|(name, _)| *name).collect()
    }

    /// Those of them that a set has, sorted.
    pub(crate) fn held(&self, set: SetId, images: &Images) -> Box<[Symbol]> {
        let names = images.names(set);
        let held = |(name, _): &(Symbol, i64)| names.binary_search(name).is_ok().then_some(*name);
        self.wanted.iter().filter_map(held).collect()
    }

    /// The points of nodes with a set of images.
    pub(crate) fn points_of(&self, set: SetId, images: &Images) -> i64 {
        if self.wanted.is_empty() { 0 } else { self.points(&self.held(set, images)) }
    }

    /// The points of nodes that have these of the pod's images.
    pub(crate) fn points(&self, held: &[Symbol]) -> i64 {
        let there = self.wanted.iter().filter(|(name, _)| held.contains(name));
        let bytes = there.fold(0_i64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let most = MOST_BYTES_PER_CONTAINER * self.containers;
        if bytes <= LEAST_BYTES || most == 0 {
            return 0;
        }
        MAX_SCORE * (bytes.min(most) - LEAST_BYTES) / (most - LEAST_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_the_latest() {
        for (name, full) in [
            ("nginx", "nginx:latest"),
            ("host:5000/app", "host:5000/app:latest"),
            ("host:5000/app:1", "host:5000/app:1"),
            ("app@sha256:00", "app@sha256:00"),
        ] {
            assert_eq!(&*with_tag(name), full);
        }
    }

    #[test]
    fn all_that_is_left_out_is_less_than_a_point() {
        for containers in 1..100 {
            let most = MOST_BYTES_PER_CONTAINER * containers;
            assert!(BYTES_PER_POINT * containers <= (most - LEAST_BYTES) / MAX_SCORE);
        }
    }
}
