//! Which keys have versions that only older reads see, in the order in which they can be forgotten.
//! It must not hold the versions themselves.

use std::collections::VecDeque;

use crate::{Key, Rev};

/// At `rev`, the version of `key` that was the newest before ceased to be.
#[derive(Debug)]
struct Superseded {
    rev: Rev,
    key: Key,
    bytes: usize,
}

/// A queue, so that compaction costs what it forgets and not what there is.
#[derive(Debug, Default)]
pub(super) struct History {
    queue: VecDeque<Superseded>,
    bytes: usize,
}

impl History {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn superseded(&mut self, rev: Rev, key: Key, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.queue.push_back(Superseded { rev, key, bytes });
    }

    /// What was superseded after `to` was not.
    pub(super) fn take_back(&mut self, to: Rev) {
        while let Some(last) = self.queue.pop_back_if(|newest| newest.rev > to) {
            self.bytes = self.bytes.saturating_sub(last.bytes);
        }
    }

    /// The next key that has a version to forget for reads at `floor` and later.
    pub(super) fn pop(&mut self, floor: Rev) -> Option<Key> {
        let next = self.queue.pop_front_if(|oldest| oldest.rev <= floor)?;
        self.bytes = self.bytes.saturating_sub(next.bytes);
        Some(next.key)
    }

    pub(super) fn has(&self, floor: Rev) -> bool {
        self.queue.front().is_some_and(|oldest| oldest.rev <= floor)
    }
}
