//! Desired state, made small: each node has a few places for pods, and a pod is one of a few contents, so that what
//! changes often changes back. The store may be set back to a backup; servers read it with a lag; what a node
//! fetches is as new as the store, and its digest is made as the fleet makes it.

use std::time::Duration;

use toono_session::{BundleDigest, Desired, PodDigest};

use crate::{random::Random, world::Bug};

const PLACES: usize = 3;
/// Of which the first is: no pod.
const CONTENTS: u64 = 4;

/// What is in each place.
pub(crate) type Pods = [u64; PLACES];

#[derive(Clone, Copy, Default)]
struct Entry {
    content: u64,
    changed: u64,
}

struct Change {
    at: Duration,
    node: usize,
    place: usize,
    entry: Entry,
}

/// What a backup is of.
#[derive(Clone)]
pub(crate) struct Backup {
    revision: u64,
    nodes: Vec<[Entry; PLACES]>,
}

/// The store that all servers read.
pub(crate) struct Store {
    now: Backup,
    log: Vec<Change>,
}

/// What one server has read of it since its start.
pub(crate) struct Index {
    read: usize,
    newest: u64,
    nodes: Vec<[Entry; PLACES]>,
    changed: Vec<u64>,
}

/// An answer to `bundle?since=`.
#[derive(Clone)]
pub(crate) struct Bundle {
    pub(crate) since: u64,
    revision: u64,
    /// What is sent of each place; none of one that did not change.
    sent: [Option<u64>; PLACES],
    present: [bool; PLACES],
    digest: BundleDigest,
}

/// What a node has on its disk.
#[derive(Clone, Default)]
pub(crate) struct Held {
    pub(crate) revision: u64,
    pub(crate) digest: BundleDigest,
    pub(crate) pods: Pods,
}

/// A pod as it counts in a digest; no pod counts nothing.
fn digest(node: usize, pods: &Pods) -> BundleDigest {
    let there = pods.iter().enumerate().filter(|(_, content)| **content > 0);
    there
        .map(|(place, content)| {
            let name = u64::try_from(node * PLACES + place).unwrap() * CONTENTS + content;
            PodDigest(Random(name).next())
        })
        .collect()
}

fn contents(entries: &[Entry; PLACES]) -> Pods {
    entries.map(|entry| entry.content)
}

impl Store {
    pub(crate) fn new(nodes: usize) -> Self {
        let now = Backup { revision: 1, nodes: vec![[Entry::default(); PLACES]; nodes] };
        Self { now, log: Vec::new() }
    }

    pub(crate) fn change(&mut self, at: Duration, node: usize, random: &mut Random) {
        self.now.revision += 1;
        let content = if random.chance(500) { 0 } else { random.below(CONTENTS) };
        let (place, entry) = (random.pick(PLACES), Entry { content, changed: self.now.revision });
        self.now.nodes[node][place] = entry;
        self.log.push(Change { at, node, place, entry });
    }

    pub(crate) fn back_up(&self) -> Backup {
        self.now.clone()
    }

    pub(crate) fn set_back(&mut self, to: Backup) {
        self.now = to;
    }

    pub(crate) fn pods(&self, node: usize) -> Pods {
        contents(&self.now.nodes[node])
    }
}

impl Index {
    pub(crate) fn of(store: &Store) -> Self {
        Self {
            read: store.log.len(),
            newest: store.now.revision,
            nodes: store.now.nodes.clone(),
            changed: vec![0; store.now.nodes.len()],
        }
    }

    /// Reads what was written until then; the nodes that it concerns.
    pub(crate) fn read(&mut self, store: &Store, until: Duration) -> Vec<usize> {
        let mut moved = Vec::new();
        while let Some(change) = store.log.get(self.read).filter(|change| change.at <= until) {
            self.read += 1;
            self.newest = change.entry.changed;
            let entry = &mut self.nodes[change.node][change.place];
            if entry.content != change.entry.content {
                *entry = change.entry;
                self.changed[change.node] = change.entry.changed;
                moved.push(change.node);
            }
        }
        moved
    }

    pub(crate) fn desired(&self, node: usize) -> Desired {
        let digest = digest(node, &self.pods(node));
        Desired { changed: self.changed[node], newest: self.newest, digest }
    }

    pub(crate) fn pods(&self, node: usize) -> Pods {
        contents(&self.nodes[node])
    }

    /// As the fleet answers: of what has changed since, the newest there is; the rest as it was read.
    pub(crate) fn bundle(&self, store: &Store, node: usize, since: u64) -> Bundle {
        let since = if since > self.newest { 0 } else { since };
        let newest = store.pods(node);
        let mut made = self.pods(node);
        let mut sent = [None; PLACES];
        for (place, entry) in self.nodes[node].iter().enumerate() {
            if entry.content > 0 && entry.changed > since {
                made[place] = newest[place];
                sent[place] = Some(newest[place]).filter(|content| *content > 0);
            }
        }
        let present = made.map(|content| content > 0);
        Bundle { since, revision: self.newest, sent, present, digest: digest(node, &made) }
    }
}

impl Held {
    fn with(&self, bundle: &Bundle) -> Pods {
        let mut pods = self.pods;
        for (place, content) in pods.iter_mut().enumerate() {
            let there = bundle.sent[place].unwrap_or(*content);
            *content = if bundle.present[place] { there } else { 0 };
        }
        pods
    }

    /// Takes a bundle, unless that does not make what the cloud means the node to have.
    pub(crate) fn store(&mut self, node: usize, bundle: &Bundle, bug: Bug) -> bool {
        let made = self.with(bundle);
        let fits = bundle.since == 0 || digest(node, &made) == bundle.digest;
        if !fits && bug != Bug::NothingChecked {
            return false;
        }
        let kept = self.digest;
        *self = Self { revision: bundle.revision, digest: bundle.digest, pods: made };
        if bug == Bug::DigestOfBefore {
            self.digest = kept;
        }
        true
    }

    /// Damage is noticed: nothing is whole, and no pod is given up for it.
    pub(crate) fn damage(&mut self) {
        self.revision = 0;
        self.digest = BundleDigest::default();
    }
}
