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
    /// Ask the node for a tunnel.
    Dial(NodeIndex, u64),
}

/// Bounded: a node is in it once for its bundle; dials have [`DIAL_QUEUE`].
#[derive(Debug, Default)]
pub(crate) struct Pokes {
    moved: VecDeque<NodeIndex>,
    queued: HashSet<NodeIndex>,
    dials: VecDeque<(NodeIndex, u64)>,
}

impl Pokes {
    pub(crate) fn bundle_moved(&mut self, node: NodeIndex) {
        if self.queued.insert(node) {
            self.moved.push_back(node);
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
        let node = self.moved.pop_front()?;
        self.queued.remove(&node);
        Some(Due::Bundle(node))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.moved.is_empty() && self.dials.is_empty()
    }
}
