//! What happened to the objects of one resource, in order, for as long as there is room. It must not
//! know who watches, nor which events are durable: the reader says how far it may look.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Entry, Limits, Owner, Prefix, Rev};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or replaced.
    Put,
    /// It was removed.
    Delete,
}

/// One change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub rev: Rev,
    /// What.
    pub kind: EventKind,
    /// The object after the change; for a deletion, its last state with the deletion's revision.
    pub entry: Entry,
    /// The object before the change; `None` if the change created it.
    pub prev: Option<Entry>,
}

impl Event {
    /// The bytes of values that the event keeps in memory.
    fn held_bytes(&self) -> usize {
        let prev = self.prev.as_ref().map_or(0, |prev| prev.value.len());
        self.entry.value.len().saturating_add(prev)
    }
}

/// A piece of the event log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// The events, in order. Those of one revision are never split over two pieces.
    pub events: Vec<Arc<Event>>,
    /// Every event that was asked for up to this revision is in `events`: where to read on.
    pub through: Rev,
}

/// The newest events of one resource.
#[derive(Debug)]
pub(crate) struct EventLog {
    events: VecDeque<Arc<Event>>,
    held_bytes: usize,
    /// Every event after this revision is still here.
    floor: Rev,
}

impl EventLog {
    pub(crate) fn new(floor: Rev) -> Self {
        Self { events: VecDeque::new(), held_bytes: 0, floor }
    }

    pub(crate) fn floor(&self) -> Rev {
        self.floor
    }

    /// Adds an event; those that there is no more room for, oldest first.
    pub(crate) fn push(&mut self, event: Arc<Event>, limits: &Limits) -> Vec<Arc<Event>> {
        self.held_bytes = self.held_bytes.saturating_add(event.held_bytes());
        self.events.push_back(event);
        let mut pushed_out = Vec::new();
        while self.events.len() > limits.events_per_resource
            || self.held_bytes > limits.event_bytes_per_resource
        {
            let Some(oldest) = self.events.pop_front() else { break };
            self.held_bytes = self.held_bytes.saturating_sub(oldest.held_bytes());
            self.floor = oldest.rev;
            pushed_out.push(oldest);
        }
        pushed_out
    }

    /// Forgets the events after `to`, which are taken back. What they pushed out stays forgotten.
    pub(crate) fn take_back(&mut self, to: Rev) {
        while let Some(event) = self.events.pop_back_if(|event| event.rev > to) {
            self.held_bytes = self.held_bytes.saturating_sub(event.held_bytes());
        }
    }

    /// Events of `prefix`, and of `owner` if given, after `since` and up to `through`, looking at about
    /// `most` of them. The caller has checked `since` against the floor.
    pub(crate) fn read(
        &self,
        prefix: &Prefix,
        owner: Option<&Owner>,
        since: Rev,
        through: Rev,
        most: usize,
    ) -> Events {
        let start = self.events.partition_point(|event| event.rev <= since);
        let mut found = Events { events: Vec::new(), through: through.max(since) };
        let mut last = since;
        for (looked_at, event) in self.events.range(start..).enumerate() {
            if event.rev > through {
                break;
            }
            // At least one, as a reader that gets no further would ask forever.
            if looked_at >= most.max(1) && event.rev != last {
                found.through = last;
                break;
            }
            last = event.rev;
            let wanted = owner.is_none_or(|owner| event.entry.owner == *owner);
            if wanted && prefix.contains(&event.entry.key) {
                found.events.push(Arc::clone(event));
            }
        }
        found
    }
}
