//! Pokes that wait to be sent: a bundle that moved is worth one, however often it moves meanwhile.

use std::collections::{HashSet, VecDeque};

use toono_session::NodeIndex;

/// Dial-back pokes that wait; each dial repeats its poke every second, so dropping one costs a second.
const DIAL_QUEUE: usize = 4_096;

/// One poke to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Tell the node its desired revision of the moment.
    Bundle(NodeIndex),
    /// Tell the node the revision of its pool's part of the moment.
    Pool(NodeIndex),
    /// Ask the node for a tunnel.
    Dial(NodeIndex, u64),
}

/// Bounded: a node is in it once for its bundle; dials have [`DIAL_QUEUE`].
#[derive(Debug, Default)]
pub(crate) struct Pokes {
    moved: VecDeque<NodeIndex>,
    queued: HashSet<NodeIndex>,
    dials: VecDeque<(NodeIndex, u64)>,
    /// Who puts them here does not do so faster than they are sent.
    pools: VecDeque<NodeIndex>,
}

impl Pokes {
    pub(crate) fn bundle_moved(&mut self, node: NodeIndex) {
        if self.queued.insert(node) {
            self.moved.push_back(node);
        }
    }

    pub(crate) fn pool_moved(&mut self, node: NodeIndex) {
        self.pools.push_back(node);
    }

    /// A poke that was taken out and has to wait.
    pub(crate) fn put_back(&mut self, due: Due) {
        match due {
            Due::Bundle(node) if self.queued.insert(node) => self.moved.push_front(node),
            Due::Pool(node) => self.pools.push_front(node),
            Due::Bundle(_) | Due::Dial(..) => {}
        }
    }

    pub(crate) fn dial_back(&mut self, node: NodeIndex, ticket: u64) {
        if self.dials.len() < DIAL_QUEUE {
            self.dials.push_back((node, ticket));
        }
    }

    /// The next poke; someone waits for a dial, so those go first.
    pub(crate) fn next(&mut self) -> Option<Due> {
        if let Some((node, ticket)) = self.dials.pop_front() {
            return Some(Due::Dial(node, ticket));
        }
        if let Some(node) = self.moved.pop_front() {
            self.queued.remove(&node);
            return Some(Due::Bundle(node));
        }
        self.pools.pop_front().map(Due::Pool)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.moved.is_empty() && self.dials.is_empty() && self.pools.is_empty()
    }
}
