//! What happened to the objects of one resource, in order, for as long as there is room. It must not
//! know who watches, nor which events are durable: the reader says how far it may look.
//!
//! Nearly all watchers read what has just happened, so the newest events are whole. Older ones are for who was
//! held up, or has just listed a million objects: they rest packed, as the objects do, in memory that they
//! mostly share with those.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::stored::Stored;
use crate::{Entry, Key, Limits, Owner, Prefix, Rev};

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

/// An event whose objects are as the table keeps them.
#[derive(Clone, Debug)]
pub struct Rested {
    pub(crate) rev: Rev,
    pub(crate) kind: EventKind,
    pub(crate) entry: Stored,
    pub(crate) prev: Option<Stored>,
}

impl Rested {
    /// What it takes at most: its values may be shared with the table, or with the event before.
    fn held_bytes(&self) -> usize {
        let prev = self.prev.as_ref().map_or(0, |prev| prev.value.held_bytes());
        size_of::<Self>().saturating_add(self.entry.value.held_bytes()).saturating_add(prev)
    }
}

/// An event as it is taken out: cheap while others wait, and made an [`Event`] afterwards.
#[derive(Clone, Debug)]
pub enum Logged {
    /// It is whole.
    Whole(Arc<Event>),
    /// It is packed.
    Rested(Box<Rested>),
}

impl From<Logged> for Arc<Event> {
    fn from(logged: Logged) -> Self {
        match logged {
            Logged::Whole(event) => event,
            Logged::Rested(rested) => {
                let Rested { rev, kind, entry, prev } = *rested;
                Self::new(Event { rev, kind, entry: entry.into(), prev: prev.map(Entry::from) })
            }
        }
    }
}

/// A piece of the event log.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// The events, in order. Those of one revision are never split over two pieces.
    pub events: Vec<Logged>,
    /// Every event that was asked for up to this revision is in `events`: where to read on.
    pub through: Rev,
}

/// The newest events of one resource.
#[derive(Debug)]
pub(crate) struct EventLog {
    /// Older than those in `events`.
    rested: VecDeque<Rested>,
    rested_bytes: usize,
    events: VecDeque<Arc<Event>>,
    held_bytes: usize,
    /// Every event after this revision is still here.
    floor: Rev,
}

impl EventLog {
    pub(crate) fn new(floor: Rev) -> Self {
        Self {
            rested: VecDeque::new(),
            rested_bytes: 0,
            events: VecDeque::new(),
            held_bytes: 0,
            floor,
        }
    }

    pub(crate) fn floor(&self) -> Rev {
        self.floor
    }

    /// Adds an event; those that are to [`rest`](Self::rest), oldest first.
    pub(crate) fn push(&mut self, event: Arc<Event>, limits: &Limits) -> Vec<Arc<Event>> {
        self.held_bytes = self.held_bytes.saturating_add(event.held_bytes());
        self.events.push_back(event);
        let mut pushed_out = Vec::new();
        while self.events.len() > limits.whole_events || self.held_bytes > limits.whole_event_bytes
        {
            let Some(oldest) = self.events.pop_front() else { break };
            self.held_bytes = self.held_bytes.saturating_sub(oldest.held_bytes());
            pushed_out.push(oldest);
        }
        pushed_out
    }

    /// Keeps the next of those that were pushed out, for as long as there is room.
    pub(crate) fn rest(&mut self, event: Rested, limits: &Limits) {
        self.rested_bytes = self.rested_bytes.saturating_add(event.held_bytes());
        self.rested.push_back(event);
        while self.rested.len() > limits.rested_events
            || self.rested_bytes > limits.rested_event_bytes
        {
            let Some(oldest) = self.rested.pop_front() else { break };
            self.rested_bytes = self.rested_bytes.saturating_sub(oldest.held_bytes());
            self.floor = oldest.rev;
        }
    }

    /// Gives up about `most` of the events up to `floor`, beyond what is kept in any case: those that are to
    /// [`rest`](Self::rest), and whether there may be more.
    pub(crate) fn shed(
        &mut self,
        floor: Rev,
        limits: &Limits,
        most: usize,
    ) -> (Vec<Arc<Event>>, bool) {
        let is_old = |rev: Rev| rev <= floor;
        let mut given_up = 0;
        while given_up < most {
            let full = self.rested_bytes > limits.old_rested_event_bytes;
            let Some(oldest) = self.rested.pop_front_if(|event| full && is_old(event.rev)) else {
                break;
            };
            self.rested_bytes = self.rested_bytes.saturating_sub(oldest.held_bytes());
            self.floor = oldest.rev;
            given_up += 1;
        }
        let mut pushed_out = Vec::new();
        while pushed_out.len() < most {
            let full = self.held_bytes > limits.old_whole_event_bytes;
            let Some(oldest) = self.events.pop_front_if(|event| full && is_old(event.rev)) else {
                break;
            };
            self.held_bytes = self.held_bytes.saturating_sub(oldest.held_bytes());
            pushed_out.push(oldest);
        }
        let more = given_up == most || pushed_out.len() == most;
        (pushed_out, more)
    }

    /// Forgets the events after `to`, which are taken back. What they pushed out stays where it is.
    pub(crate) fn take_back(&mut self, to: Rev) {
        while let Some(event) = self.events.pop_back_if(|event| event.rev > to) {
            self.held_bytes = self.held_bytes.saturating_sub(event.held_bytes());
        }
        while let Some(event) = self.rested.pop_back_if(|event| event.rev > to) {
            self.rested_bytes = self.rested_bytes.saturating_sub(event.held_bytes());
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
        let wanted =
            |key: &Key, of: &Owner| owner.is_none_or(|owner| of == owner) && prefix.contains(key);
        let start = self.rested.partition_point(|event| event.rev <= since);
        let rested = self.rested.range(start..).map(|event| {
            let Stored { key, owner, .. } = &event.entry;
            let logged = || Logged::Rested(Box::new(event.clone()));
            (event.rev, wanted(key, owner).then(logged))
        });
        let start = self.events.partition_point(|event| event.rev <= since);
        let whole = self.events.range(start..).map(|event| {
            let Entry { key, owner, .. } = &event.entry;
            (event.rev, wanted(key, owner).then(|| Logged::Whole(Arc::clone(event))))
        });
        let mut found = Events { events: Vec::new(), through: through.max(since) };
        let mut last = since;
        for (looked_at, (rev, logged)) in rested.chain(whole).enumerate() {
            if rev > through {
                break;
            }
            // At least one, as a reader that gets no further would ask forever.
            if looked_at >= most.max(1) && rev != last {
                found.through = last;
                break;
            }
            last = rev;
            found.events.extend(logged);
        }
        found
    }
}
