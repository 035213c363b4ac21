//! Bundles in the world: who is told of what, who fetches, and that both ends agree only when they do.

use super::*;
use crate::bundles::{Bundle, Index};

/// A node that fetches so often once all is calm is asked in vain.
const FETCHES_MOST: u32 = 6;
/// Of a store that is set back, the servers start anew.
const CHANGED_AT_ONCE: usize = 50;

impl World {
    /// Some pods change.
    pub(super) fn change(&mut self) {
        for _ in 0..=self.nodes.len() / CHANGED_AT_ONCE {
            let node = self.random.pick(self.nodes.len());
            self.store.change(self.now, node, &mut self.random);
        }
    }

    /// The store is set back to its backup, and every server starts anew on it.
    pub(super) fn set_back(&mut self) {
        self.store.set_back(self.backup.clone());
        (0..self.servers.len()).for_each(|server| self.restart_server(server));
    }

    /// A server reads what there is for it to read, and pokes whom that concerns.
    pub(super) fn read_store(&mut self, place: usize) {
        let server = &mut self.servers[place];
        let moved = server.index.read(&self.store, self.now.saturating_sub(server.lag));
        moved.into_iter().for_each(|node| self.poke(place, node));
    }

    /// What a fresh heartbeat's answer says of the bundle.
    pub(super) fn judge_bundle(
        &mut self,
        place: usize,
        opened: &Opened,
        bytes: &[u8],
    ) -> (u64, ReplyFlags) {
        let node = usize::try_from(opened.index.0).unwrap();
        let (revision, digest) =
            (opened.heartbeat.observed_revision, BundleDigest(opened.heartbeat.bundle_digest));
        let nothing = (revision, ReplyFlags::default());
        if !opened.fresh {
            return nothing;
        }
        let index = &self.servers[place].index;
        let taken = if self.bug == Bug::NothingAgrees { revision.max(1) } else { revision };
        let has_slot = !self.in_trouble() || self.random.chance(300);
        match index.desired(node).standing(taken, digest) {
            Standing::Right => {
                self.ledger.agreed(bytes, &index.pods(node));
                nothing
            }
            Standing::Behind(newest) if has_slot => (newest, ReplyFlags::default()),
            Standing::Differs
                if has_slot && opened.repeats && self.bug != Bug::ComparisonNotAsked =>
            {
                (revision, ReplyFlags::COMPARE)
            }
            Standing::Behind(_) | Standing::Differs => nothing,
        }
    }

    /// The node is to have this revision, or to compare.
    pub(super) fn told(&mut self, node: usize, desired: u64, flags: ReplyFlags) {
        let held = self.nodes[node].disk.held.revision;
        let compare = flags.contains(ReplyFlags::COMPARE) && self.bug != Bug::ComparisonNotMade;
        if (desired > held || compare) && !self.nodes[node].fetching {
            self.fetch(node, held);
        }
    }

    /// Asks over HTTPS; the answer takes its time.
    pub(super) fn fetch(&mut self, node: usize, since: u64) {
        let works = self.nodes[node].good || !self.in_trouble() || self.random.chance(700);
        let asked = &self.nodes[node];
        let server = &self.servers[asked.home];
        if !works || asked.off_until > self.now || server.started > self.now {
            return;
        }
        let (start, bundle) = (asked.start, server.index.bundle(&self.store, node, since));
        self.nodes[node].fetching = true;
        if !self.in_trouble() {
            self.nodes[node].fetches += 1;
        }
        let delay = Duration::from_millis(self.random.below(3_000));
        self.schedule(self.now + delay, Event::Fetched { node, start, bundle });
    }

    pub(super) fn fetched(&mut self, node: usize, bundle: &Bundle) {
        self.nodes[node].fetching = false;
        if self.nodes[node].off_until > self.now {
            return;
        }
        if !self.nodes[node].disk.held.store(node, bundle, self.bug) {
            self.fetch(node, 0);
        }
    }

    /// Everybody has what it should, and rests.
    pub(super) fn all_are_told(&mut self) {
        for (place, node) in self.nodes.iter().enumerate() {
            if node.disk.held.pods != self.store.pods(place) {
                self.ledger.broken(rules::NOT_TOLD, place);
            }
            if node.fetches > FETCHES_MOST {
                self.ledger.broken(rules::ASKED_IN_VAIN, place);
            }
        }
    }

    pub(super) fn index(&self) -> Index {
        Index::of(&self.store)
    }
}
