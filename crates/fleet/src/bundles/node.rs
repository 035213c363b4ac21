//! One node's bundle: its pods, and the sum of what it must know.

use std::{collections::HashSet, sync::Arc};

use toono_api::Uid;
use toono_session::{BundleDigest, NodeIndex, PodDigest};

use super::{
    BundleIndex,
    referents::{ListIndex, ReferentIndex, Referents},
};

#[derive(Debug, Default)]
pub(super) struct NodeBundle {
    pub(super) name: Arc<str>,
    /// The newest change since the start; 0 for none.
    pub(super) desired: u64,
    /// Of the pods below and of what they reference.
    pub(super) digest: BundleDigest,
    /// The member of this name, if there is one: only a member can hear anything.
    pub(super) member: Option<NodeIndex>,
    /// In the order of their uids.
    pub(super) pods: Vec<Held>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) uid: Uid,
    pub(super) namespace: Arc<str>,
    pub(super) name: Box<str>,
    pub(super) revision: u64,
    pub(super) digest: PodDigest,
    /// Revision of the last change that concerns the node.
    pub(super) changed: u64,
    /// By how much less the revision is at which the pod came to the node. Where it does not fit, the pod counts as
    /// newer than it is, and its node is sent more than it needs.
    pub(super) age: u32,
    /// What it references.
    pub(super) list: ListIndex,
}

impl Held {
    /// The revision at which the pod came to the node.
    pub(super) fn added(&self) -> u64 {
        self.changed.saturating_sub(self.age.into())
    }

    pub(super) fn added_at(mut self, revision: u64) -> Self {
        self.age = u32::try_from(self.changed.saturating_sub(revision)).unwrap_or(u32::MAX);
        self
    }
}

impl NodeBundle {
    fn find(&self, uid: &Uid) -> Result<usize, usize> {
        self.pods.binary_search_by(|held| held.uid.cmp(uid))
    }

    pub(super) fn pod(&self, uid: &Uid) -> Option<&Held> {
        self.pods.get(self.find(uid).ok()?)
    }

    /// Takes a pod, instead of what it was. Whether that makes another digest.
    pub(super) fn put(&mut self, pod: Held, own: BundleIndex, all: &mut Referents) -> bool {
        let (new, list) = (pod.digest, pod.list);
        let old = match self.find(&pod.uid) {
            Ok(at) => self.pods.get_mut(at).map(|held| std::mem::replace(held, pod)),
            Err(at) => {
                // Most nodes have a handful: room for as many more again would be a waste.
                self.pods.reserve_exact(1);
                self.pods.insert(at, pod);
                None
            }
        };
        if old.as_ref().is_some_and(|old| (old.digest, old.list) == (new, list)) {
            return false;
        }
        all.attach(list, own);
        old.into_iter().for_each(|old| self.leave(old.list, own, all));
        self.settle(all)
    }

    pub(super) fn remove(&mut self, uid: &Uid, own: BundleIndex, all: &mut Referents) -> bool {
        let Ok(at) = self.find(uid) else { return false };
        let held = self.pods.remove(at);
        self.leave(held.list, own, all);
        self.settle(all);
        true
    }

    /// Keeps only these; whether any other was there.
    pub(super) fn retain(
        &mut self,
        uids: &HashSet<Uid>,
        own: BundleIndex,
        all: &mut Referents,
    ) -> bool {
        let gone: Vec<Held> = self.pods.extract_if(.., |pod| !uids.contains(&pod.uid)).collect();
        gone.iter().for_each(|pod| self.leave(pod.list, own, all));
        if !gone.is_empty() {
            self.settle(all);
        }
        !gone.is_empty()
    }

    /// A pod with this list is not here any more.
    fn leave(&self, list: ListIndex, own: BundleIndex, all: &mut Referents) {
        if !self.pods.iter().any(|pod| pod.list == list) {
            all.detach(list, own);
        }
    }

    fn settle(&mut self, all: &Referents) -> bool {
        let sum = self.sum(all);
        let differs = self.digest != sum;
        self.digest = sum;
        differs
    }

    /// The digest as it should be now.
    pub(super) fn sum(&self, all: &Referents) -> BundleDigest {
        let pods: BundleDigest = self.pods.iter().map(|pod| pod.digest).collect();
        // Pods are many and mostly have the same few lists.
        let mut lists: Vec<ListIndex> = self.pods.iter().map(|pod| pod.list).collect();
        lists.sort_unstable();
        lists.dedup();
        let mut referents: Vec<_> = lists.iter().flat_map(|list| all.of(*list)).collect();
        referents.sort_unstable();
        referents.dedup();
        let existing = referents.iter().filter_map(|referent| all.existing(**referent));
        existing.fold(pods, |sum, (_, digest, _)| sum.with(digest))
    }

    /// All that its pods reference, each once, with the revision at which the first of them came.
    pub(super) fn references(&self, all: &Referents) -> Vec<(ReferentIndex, u64)> {
        let of = |pod: &Held| {
            let added = pod.added();
            all.of(pod.list).iter().map(move |referent| (*referent, added))
        };
        let mut references: Vec<_> = self.pods.iter().flat_map(of).collect();
        references.sort_unstable();
        references.dedup_by_key(|(referent, _)| *referent);
        references
    }
}
