//! Which pods each node must know, what those reference, and since which revision: an index in memory, no I/O.
//!
//! A node's *desired revision* moves with every change of its pods and of what they reference that concerns it, and
//! never goes back. After a start the index knows neither earlier deletions nor whether a pod's newest
//! revision was only its status. What it can always tell is whether a node has what it should: by the
//! digest of its bundle, which the index keeps up with each change. `docs/protocol.md` says what follows
//! from what.
//!
//! Pods, ConfigMaps and Secrets are read beside each other, so a change may be heard of after a newer one has been
//! told to nodes. It then counts as one later than all that was told: nobody may take it for known.
//!
//! There is one of each of these for every node and every pod, so they are small: a node's bundle is found
//! by a dense index, and a pod is kept by what names it, not by what it says.

mod node;
mod nodes;
mod referents;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use toono_api::{Uid, intern::Pool};
use toono_session::{BundleDigest, Desired, NodeIndex, PodDigest, ReferentDigest, Standing};
use toono_wire::referent::{ReferentKind, ReferentName};

use crate::objects::{PodObject, ReferentObject};
use node::{Held, NodeBundle};
use referents::{ListIndex, Referents};

pub(crate) use referents::Spread;

/// Nodes that one slice of a [`Spread`] reaches: with as many pods as nodes can have, some tenths of a millisecond's
/// work.
const SLICE: usize = 64;

/// The names of namespaces, each once.
static NAMESPACES: Pool<str> = Pool::new();

/// A node's place among the bundles. It stays while the node is a member or has pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BundleIndex(u32);

/// All pods, by node.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    nodes: Vec<NodeBundle>,
    vacant: Vec<BundleIndex>,
    by_name: HashMap<Arc<str>, BundleIndex>,
    /// Of a list that is being told, after the first one: what it has told.
    listing: Option<HashSet<Uid>>,
    /// The revision of the first whole list; none before it.
    start: Option<u64>,
    /// The newest revision seen.
    newest: u64,
    /// The newest revision that any node was told.
    told: u64,
    /// The newest revision that a change counts as.
    counted: u64,
    referents: Referents,
}

/// What a node is to be told: which of its pods, of those it has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Up to which all changes are in it.
    pub(crate) revision: u64,
    /// Pods that changed since the revision that the node asked about.
    pub(crate) pods: Vec<Named>,
    /// The uid of every pod of the node.
    pub(crate) present: Vec<String>,
    /// ConfigMaps and Secrets that changed since, or that no pod of the node referenced then.
    pub(crate) referents: Vec<(ReferentName, ReferentDigest)>,
    /// All that there are of those that its pods reference.
    pub(crate) referenced: Vec<ReferentName>,
    /// Of all that are present.
    pub(crate) digest: BundleDigest,
}

/// One pod, by the names that find it and the one that tells it from others of these names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Box<str>,
    pub(crate) uid: Uid,
    /// What its digest counts for in [`News::digest`].
    pub(crate) digest: PodDigest,
}

impl Named {
    /// Where the API has it.
    pub(crate) fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }
}

impl BundleIndex {
    /// No node's.
    pub(crate) const NONE: Self = Self(u32::MAX);

    fn place(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Bundles {
    /// A list begins.
    pub(crate) fn list(&mut self) {
        self.listing = self.start.map(|_| HashSet::new());
    }

    /// A pod that a list tells of. Returns its node when that must hear of it: what the first list tells,
    /// most nodes know, and who does not is told apart by its digest.
    pub(crate) fn listed(&mut self, pod: PodObject) -> Option<NodeIndex> {
        if let Some(listing) = &mut self.listing {
            listing.insert(pod.uid.clone());
        }
        self.place(pod, self.start.is_some())
    }

    /// A list has been told wholly, at a revision. Returns the nodes whose pods were not in it.
    pub(crate) fn list_ended(&mut self, revision: u64) -> Vec<NodeIndex> {
        self.start.get_or_insert(revision);
        let counts_as = self.counts_as(revision);
        let Some(listing) = self.listing.take() else {
            self.newest = self.newest.max(revision);
            return Vec::new();
        };
        let (mut moved, mut emptied) = (Vec::new(), Vec::new());
        for (index, bundle) in (0..).map(BundleIndex).zip(&mut self.nodes) {
            if bundle.retain(&listing, index, &mut self.referents) {
                bundle.desired = bundle.desired.max(counts_as);
                self.counted = self.counted.max(counts_as);
                moved.extend(bundle.member);
                emptied.push(index);
            }
        }
        self.newest = self.newest.max(revision).max(self.counted);
        emptied.into_iter().for_each(|index| self.vacate_if_unused(index));
        moved
    }

    /// A pod was added or changed. Returns its node when that must hear of it.
    pub(crate) fn put(&mut self, pod: PodObject) -> Option<NodeIndex> {
        let revision = pod.revision;
        let moved = self.place(pod, true);
        self.newest = self.newest.max(revision).max(self.counted);
        moved
    }

    /// A pod is gone, since the revision that it has.
    pub(crate) fn delete(&mut self, pod: &PodObject) -> Option<NodeIndex> {
        self.newest = self.newest.max(pod.revision);
        let counts_as = self.counts_as(pod.revision);
        let index = *self.by_name.get(&*pod.node)?;
        let bundle = self.nodes.get_mut(index.place())?;
        if !bundle.remove(&pod.uid, index, &mut self.referents) {
            return None;
        }
        bundle.desired = bundle.desired.max(counts_as);
        (self.counted, self.newest) = (self.counted.max(counts_as), self.newest.max(counts_as));
        let member = bundle.member;
        self.vacate_if_unused(index);
        member
    }

    /// A binding never changes in Kubernetes, so a pod is looked for on no other node.
    fn place(&mut self, pod: PodObject, moves: bool) -> Option<NodeIndex> {
        if pod.node.is_empty() {
            return None;
        }
        let index = self.index_of(&pod.node);
        let namespace = NAMESPACES.share(&*pod.namespace);
        let counts_as = if moves { self.counts_as(pod.revision) } else { pod.revision };
        let bundle = self.nodes.get_mut(index.place())?;
        let old = bundle.pod(&pod.uid);
        if old.is_some_and(|old| old.revision > pod.revision) {
            return None;
        }
        let added = old.map_or(counts_as, Held::added);
        let same = old.filter(|old| old.digest == pod.digest).map(|old| (old.changed, old.list));
        let list = match same {
            _ if pod.ended => ListIndex::NONE,
            Some((_, list)) => list,
            None => self.referents.list_of(&namespace, &pod.references),
        };
        let changed = same.map_or(counts_as, |(changed, _)| changed);
        let PodObject { uid, name, revision, digest, .. } = pod;
        let held = Held { uid, namespace, name, revision, digest, changed, age: 0, list };
        let differs = bundle.put(held.added_at(added), index, &mut self.referents);
        let before = bundle.desired;
        if moves && (same.is_none() || differs) {
            bundle.desired = bundle.desired.max(counts_as);
            self.counted = self.counted.max(counts_as);
        }
        bundle.member.filter(|_| bundle.desired > before)
    }

    /// What a change of this revision counts as: no node was told that it knows all up to there.
    fn counts_as(&self, revision: u64) -> u64 {
        revision.max(self.told + 1)
    }

    /// How what a node says it holds compares with what it should hold.
    pub(crate) fn standing(
        &self,
        node: BundleIndex,
        revision: u64,
        digest: BundleDigest,
    ) -> Standing {
        if self.start.is_none() {
            return Standing::Right;
        }
        let bundle = self.nodes.get(node.place());
        let (changed, own) = bundle.map_or_else(Default::default, |it| (it.desired, it.digest));
        Desired { changed, newest: self.newest(), digest: own }.standing(revision, digest)
    }

    /// The answer to `bundle?since=`; none before the first list is whole.
    pub(crate) fn bundle(&mut self, node: &str, since: u64) -> Option<News> {
        self.start?;
        let since = if since > self.newest { 0 } else { since };
        self.told = self.newest();
        // Not the node's newest change: while a list is told, older ones may still be missing.
        let revision = self.told;
        let index = self.by_name.get(node).copied().unwrap_or(BundleIndex::NONE);
        let Some(bundle) = self.nodes.get(index.place()) else {
            // Its Node is gone, and so are its pods.
            return Some(News { revision, ..News::default() });
        };
        let named = |held: &Held| Named {
            namespace: held.namespace.clone(),
            name: held.name.clone(),
            uid: held.uid.clone(),
            digest: held.digest,
        };
        let (mut referents, mut referenced) = (Vec::new(), Vec::new());
        for (referent, added) in bundle.references(&self.referents) {
            let Some((name, digest, changed)) = self.referents.existing(referent) else { continue };
            referenced.push(name.clone());
            if changed.max(added) > since {
                referents.push((name.clone(), digest));
            }
        }
        Some(News {
            revision,
            pods: bundle.pods.iter().filter(|held| held.changed > since).map(named).collect(),
            present: bundle.pods.iter().map(|held| held.uid.to_string()).collect(),
            referents,
            referenced,
            // Not as it is kept: a change may be on its way to this node.
            digest: bundle.sum(&self.referents),
        })
    }

    /// What a node holds that has just been made, and that holds nothing: the revision up to which nothing is
    /// all there is for it, so that it need not ask; 0 when it has to.
    pub(crate) fn nothing_for(&mut self, node: BundleIndex) -> u64 {
        match self.nodes.get(node.place()) {
            Some(bundle) if bundle.pods.is_empty() && self.start.is_some() => {
                self.told = self.newest();
                self.told
            }
            _ => 0,
        }
    }

    /// The names of the pod with this uid, if it is bound to this node.
    pub(crate) fn pod(&self, node: &str, uid: &str) -> Option<(&str, &str)> {
        let index = self.by_name.get(node)?;
        let held = self.nodes.get(index.place())?.pod(&Uid::from(uid))?;
        Some((&held.namespace, &held.name))
    }

    pub(crate) fn count(&self, node: BundleIndex) -> usize {
        self.nodes.get(node.place()).map_or(0, |bundle| bundle.pods.len())
    }

    /// The newest revision as nodes are told it: 0 would tell them that they have nothing.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.max(1)
    }

    /// A member's place, kept until [`Bundles::leave`].
    pub(crate) fn enter(&mut self, name: &str, member: NodeIndex) -> BundleIndex {
        let index = self.index_of(name);
        if let Some(bundle) = self.nodes.get_mut(index.place()) {
            bundle.member = Some(member);
        }
        index
    }

    /// The member at a place is gone; its pods may still be there.
    pub(crate) fn leave(&mut self, node: BundleIndex) {
        if let Some(bundle) = self.nodes.get_mut(node.place()) {
            bundle.member = None;
        }
        self.vacate_if_unused(node);
    }

    fn index_of(&mut self, name: &str) -> BundleIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let name: Arc<str> = name.into();
        let bundle = NodeBundle { name: name.clone(), ..NodeBundle::default() };
        let index = match self.vacant.pop() {
            Some(index) => {
                if let Some(place) = self.nodes.get_mut(index.place()) {
                    *place = bundle;
                }
                index
            }
            None => {
                self.nodes.push(bundle);
                BundleIndex(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_name.insert(name, index);
        index
    }

    fn vacate_if_unused(&mut self, index: BundleIndex) {
        let Some(bundle) = self.nodes.get(index.place()) else { return };
        let unused = bundle.member.is_none() && bundle.pods.is_empty();
        if unused && self.by_name.get(&bundle.name) == Some(&index) {
            self.by_name.remove(&bundle.name);
            self.vacant.push(index);
        }
    }
}

// === what pods reference ===

impl Bundles {
    /// A list of all ConfigMaps, or of all Secrets, begins.
    pub(crate) fn list_referents(&mut self, kind: ReferentKind) {
        self.referents.list(kind);
    }

    /// Such a list has been told wholly, at a revision: what was not in it is gone.
    pub(crate) fn referents_listed(&mut self, kind: ReferentKind, revision: u64) -> Vec<Spread> {
        let gone = self.referents.list_ended(kind);
        gone.iter().filter_map(|name| self.delete_referent(name, revision)).collect()
    }

    /// A ConfigMap or Secret was added or changed. Returns the change's way to those who must hear of it.
    pub(crate) fn put_referent(&mut self, mut object: ReferentObject) -> Option<Spread> {
        object.name.namespace = NAMESPACES.share(&*object.name.namespace);
        let counts_as = self.counts_as(object.revision);
        let spread = self.referents.put(object, counts_as)?;
        self.note(counts_as);
        Some(spread)
    }

    /// A ConfigMap or Secret is gone.
    pub(crate) fn delete_referent(&mut self, name: &ReferentName, revision: u64) -> Option<Spread> {
        let counts_as = self.counts_as(revision);
        let spread = self.referents.delete(name, counts_as)?;
        self.note(counts_as);
        Some(spread)
    }

    /// Whether there is one of this name, or pods reference it.
    pub(crate) fn knows(&self, name: &ReferentName) -> bool {
        self.referents.knows(name)
    }

    /// All of a kind that pods reference. Others of the kind are forgotten.
    pub(crate) fn referenced(&mut self, kind: ReferentKind) -> Vec<ReferentName> {
        self.referents.referenced(kind)
    }

    /// A change counts as this.
    fn note(&mut self, revision: u64) {
        self.counted = self.counted.max(revision);
        self.newest = self.newest.max(revision);
    }

    /// Lets a change reach some more nodes; returns those that must hear of it.
    pub(crate) fn spread(&mut self, spread: &mut Spread) -> Vec<NodeIndex> {
        let mut moved = Vec::new();
        for index in self.referents.next(spread, SLICE) {
            let Some(bundle) = self.nodes.get_mut(index.place()) else { continue };
            bundle.digest = bundle.sum(&self.referents);
            bundle.desired = bundle.desired.max(spread.revision);
            moved.extend(bundle.member);
        }
        moved
    }
}

#[cfg(test)]
mod referent_tests;
#[cfg(test)]
mod tests;
