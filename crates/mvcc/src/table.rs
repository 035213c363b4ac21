//! The table of all objects in all remembered versions. It must not wait, lock or write anywhere: one
//! caller at a time changes it, and says which revisions others may read.

mod history;
mod owned;
mod restore;

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use self::history::History;
use self::owned::OwnerIndex;
pub use self::restore::{Change, Restore, RestoreError};
use crate::event_log::{EventLog, Rested};
use crate::stored::{Packer, Stored, Value};
use crate::versions::{Object, Version, Versions};
use crate::{Entry, Event, EventKind, Events, Expect, Key, Op, Owner, Prefix, Rejected, Rev, Txn};

/// How many recent events the table keeps for watchers, of one resource. A watcher that is further behind has to
/// list again.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events that are whole.
    pub whole_events: usize,
    /// Bytes of values that those may keep.
    pub whole_event_bytes: usize,
    /// Older events, which are packed.
    pub rested_events: usize,
    /// Bytes that those may keep.
    pub rested_event_bytes: usize,
    /// Bytes of values that whole events may keep which are as old as what can no longer be read.
    pub old_whole_event_bytes: usize,
    /// Bytes that packed events may keep of that age.
    pub old_rested_event_bytes: usize,
}

impl Default for Limits {
    /// Whole are those of the last seconds. Packed there is room for some 500,000 changes of Nodes: whoever lists
    /// a million of them, while thousands change each second, finds all changes since then. An event takes some
    /// 200 bytes, and shares the value of an object that has not changed again. What is old goes, but for
    /// what a watcher needs that was away for long while little happened: some MB, so that a server with little
    /// to do does not grow for a day.
    fn default() -> Self {
        Self {
            whole_events: 128 * 1024,
            whole_event_bytes: 128 * 1024 * 1024,
            rested_events: 4 * 1024 * 1024,
            rested_event_bytes: 384 * 1024 * 1024,
            old_whole_event_bytes: 2 * 1024 * 1024,
            old_rested_event_bytes: 6 * 1024 * 1024,
        }
    }
}

/// The revision asked for is older than what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("revision {asked} was compacted; the oldest that can be read is {oldest}")]
pub struct Compacted {
    /// The revision asked for.
    pub asked: Rev,
    /// The oldest that can be answered.
    pub oldest: Rev,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<E = Entry> {
    /// The objects, in the order of their keys.
    pub entries: Vec<E>,
    /// Whether there are objects after the last of `entries`.
    pub more: bool,
}

impl<E> Default for Page<E> {
    fn default() -> Self {
        Self { entries: Vec::new(), more: false }
    }
}

/// Objects that were counted and not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many.
    pub objects: usize,
    /// Where to count on, if there may be more.
    pub last: Option<Key>,
}

impl From<Page<Stored>> for Page {
    fn from(page: Page<Stored>) -> Self {
        Self { entries: page.entries.into_iter().map(Entry::from).collect(), more: page.more }
    }
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its revision; the head as it was, if it changed nothing.
    pub rev: Rev,
    /// One event for each operation, in their order.
    pub events: Vec<Arc<Event>>,
}

/// All objects of one resource.
#[derive(Debug)]
struct Resource {
    objects: BTreeMap<Key, Versions>,
    owned: OwnerIndex,
    log: EventLog,
    /// Packs what the log no longer has.
    packer: Packer,
}

impl Resource {
    /// Adds an event to the log. Those that are no longer of the newest rest packed, and so do their objects.
    fn log(&mut self, event: Arc<Event>, limits: &Limits) {
        let pushed_out = self.log.push(event, limits);
        self.rest(pushed_out, limits);
    }

    /// Gives up about `most` events that only storms leave; whether there may be more.
    fn shed(&mut self, floor: Rev, limits: &Limits, most: usize) -> bool {
        let (pushed_out, more) = self.log.shed(floor, limits, most);
        self.rest(pushed_out, limits);
        more
    }

    fn rest(&mut self, pushed_out: Vec<Arc<Event>>, limits: &Limits) {
        for oldest in pushed_out {
            let Self { objects, log, packer, .. } = self;
            let mut versions = objects.get_mut(&oldest.entry.key);
            let mut packed = |entry: &Entry| {
                let kept = versions.as_mut().and_then(|it| it.pack(entry.modified, packer));
                Stored::packed(entry, kept.cloned().as_ref(), packer)
            };
            let (entry, prev) = (packed(&oldest.entry), oldest.prev.as_ref().map(&mut packed));
            log.rest(Rested { rev: oldest.rev, kind: oldest.kind, entry, prev }, limits);
        }
    }
}

/// All objects in all remembered versions, and the events that led from one to the next.
#[derive(Debug)]
pub struct Table {
    head: Rev,
    floor: Rev,
    /// Nothing is known of events up to here; what a resource without a log goes by.
    log_floor: Rev,
    /// By `group/plural`: objects are found in a tree of their own kind, and a resource's name is
    /// compared once and not at every step.
    resources: BTreeMap<Box<str>, Resource>,
    history: History,
    owners: HashSet<Owner>,
    limits: Limits,
}

impl Table {
    /// The empty table, at revision 0.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            head: Rev::ZERO,
            floor: Rev::ZERO,
            log_floor: Rev::ZERO,
            resources: BTreeMap::new(),
            history: History::default(),
            owners: HashSet::new(),
            limits,
        }
    }

    /// The revision of the newest change, durable or not.
    #[must_use]
    pub fn head(&self) -> Rev {
        self.head
    }

    /// The oldest revision that can be read.
    #[must_use]
    pub fn floor(&self) -> Rev {
        self.floor
    }

    /// The bytes of values kept only for reads below the head.
    #[must_use]
    pub fn history_bytes(&self) -> usize {
        self.history.bytes()
    }

    /// One prefix for each resource that was ever written.
    #[must_use]
    pub fn resources(&self) -> Vec<Prefix> {
        self.resources.keys().map(|name| Prefix::of_resource(name)).collect()
    }

    /// Checks a transaction against the head and, if all its conditions hold, applies it at the next
    /// revision.
    pub fn apply(&mut self, txn: Txn) -> Result<Applied, Rejected> {
        self.check(&txn)?;
        if txn.ops.is_empty() {
            return Ok(Applied { rev: self.head, events: Vec::new() });
        }
        let rev = self.head.next();
        let mut events = Vec::with_capacity(txn.ops.len());
        for (_, op) in txn.ops {
            let value = op.draft().seal(rev);
            let (kind, key, owner) = match op {
                Op::Put { key, owner, .. } => (EventKind::Put, key, owner),
                Op::Delete { key, .. } => (EventKind::Delete, key, Owner::PLATFORM),
            };
            events.push(self.write(rev, kind, key, value, owner));
        }
        self.head = rev;
        Ok(Applied { rev, events })
    }

    /// Whether all conditions of a transaction hold at the head.
    pub fn check(&self, txn: &Txn) -> Result<(), Rejected> {
        let guards = txn.guards.iter().map(|(key, expect)| (key, *expect, false));
        let ops =
            txn.ops.iter().map(|(expect, op)| (op.key(), *expect, matches!(op, Op::Delete { .. })));
        for (key, expect, needs_object) in guards.chain(ops) {
            let current = self.newest(key);
            let holds = match expect {
                Expect::Any => !needs_object || current.is_some(),
                Expect::Absent => !needs_object && current.is_none(),
                Expect::At(rev) => current.is_some_and(|object| object.modified == rev),
            };
            if !holds {
                let current = current.map(|object| stored(key, object).into());
                return Err(Rejected::Conflict { key: key.clone(), current });
            }
        }
        if txn.ops.len() > 1 {
            let mut seen = HashSet::with_capacity(txn.ops.len());
            if let Some((_, op)) = txn.ops.iter().find(|(_, op)| !seen.insert(op.key())) {
                return Err(Rejected::Duplicate { key: op.key().clone() });
            }
        }
        Ok(())
    }

    /// The object now, if it exists.
    fn newest(&self, key: &Key) -> Option<&Object> {
        self.resources.get(key.resource())?.objects.get(key)?.newest()
    }

    /// Writes one change at `rev`, which is above every version that the key has.
    fn write(
        &mut self,
        rev: Rev,
        kind: EventKind,
        key: Key,
        value: Bytes,
        owner: Owner,
    ) -> Arc<Event> {
        let prev: Option<Entry> = self.newest(&key).map(|object| stored(&key, object).into());
        let (created, owner) = match &prev {
            Some(prev) => (prev.created, prev.owner.clone()),
            None => (rev, self.shared(owner)),
        };
        let object = Object { value: Value::Whole(value), created, modified: rev, owner };
        let event = Arc::new(Event { rev, kind, entry: stored(&key, &object).into(), prev });
        if let Some(prev) = &event.prev {
            self.history.superseded(rev, key.clone(), prev.value.len());
        }
        let log_floor = self.log_floor;
        let resource = match self.resources.get_mut(key.resource()) {
            Some(resource) => resource,
            None => self.resources.entry(key.resource().into()).or_insert_with(|| Resource {
                objects: BTreeMap::new(),
                owned: OwnerIndex::default(),
                log: EventLog::new(log_floor),
                packer: Packer::default(),
            }),
        };
        resource.owned.add(&object.owner, &key);
        match (resource.objects.get_mut(&key), kind) {
            (Some(versions), EventKind::Put) => versions.push(Version::Object(object)),
            (Some(versions), EventKind::Delete) => versions.push(Version::Deleted(rev)),
            (None, EventKind::Put) => {
                resource.objects.insert(key, Versions::One(object));
            }
            // Not reached: what is deleted was found to exist.
            (None, EventKind::Delete) => {}
        }
        resource.log(Arc::clone(&event), &self.limits);
        event
    }

    /// The same owner, in the text that all its objects share.
    fn shared(&mut self, owner: Owner) -> Owner {
        if owner.is_platform() {
            return owner;
        }
        if let Some(known) = self.owners.get(&owner) {
            return known.clone();
        }
        self.owners.insert(owner.clone());
        owner
    }

    /// The object at `key` as it was at revision `at`.
    pub fn get(&self, key: &Key, at: Rev) -> Result<Option<Entry>, Compacted> {
        self.readable(at)?;
        let versions = self.resources.get(key.resource()).and_then(|it| it.objects.get(key));
        let object = versions.and_then(|versions| versions.at(at));
        Ok(object.map(|object| stored(key, object).into()))
    }

    /// The first `limit` objects of `prefix` after the key `after`, as they were at revision `at`.
    pub fn list(
        &self,
        prefix: &Prefix,
        at: Rev,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page<Stored>, Compacted> {
        self.readable(at)?;
        let Some(resource) = self.resources.get(prefix.resource_name()) else {
            return Ok(Page::default());
        };
        let objects = resource.objects.range::<str, _>((start(prefix, after), Bound::Unbounded));
        let objects = objects.take_while(|(key, _)| prefix.contains(key));
        Ok(page(objects.filter_map(|(key, versions)| Some((key, versions.at(at)?))), limit))
    }

    /// How many objects of `prefix` there are after a key, at a revision. It looks at `most` of them, so that a caller
    /// holding a lock stays quick; count on from [`Counted::last`].
    ///
    /// # Errors
    /// As [`Table::list`].
    pub fn count(
        &self,
        prefix: &Prefix,
        at: Rev,
        after: Option<&Key>,
        most: usize,
    ) -> Result<Counted, Compacted> {
        self.readable(at)?;
        let mut counted = Counted::default();
        let Some(resource) = self.resources.get(prefix.resource_name()) else {
            return Ok(counted);
        };
        let objects = resource.objects.range::<str, _>((start(prefix, after), Bound::Unbounded));
        let objects = objects.take_while(|(key, _)| prefix.contains(key));
        for (looked, (key, versions)) in (1..).zip(objects) {
            counted.objects += usize::from(versions.at(at).is_some());
            if looked == most {
                counted.last = Some(key.clone());
                break;
            }
        }
        Ok(counted)
    }

    /// Events of `prefix` after `since` and up to `through`, looking at about `most` of them so that
    /// a caller holding a lock stays quick; read on from [`Events::through`]. With an owner, only the
    /// events of its objects.
    pub fn events(
        &self,
        prefix: &Prefix,
        owner: Option<&Owner>,
        since: Rev,
        through: Rev,
        most: usize,
    ) -> Result<Events, Compacted> {
        let log = self.resources.get(prefix.resource_name()).map(|resource| &resource.log);
        let oldest = log.map_or(self.log_floor, EventLog::floor);
        if since < oldest {
            return Err(Compacted { asked: since, oldest });
        }
        Ok(match log {
            Some(log) => log.read(prefix, owner, since, through, most),
            None => Events { events: Vec::new(), through: through.max(since) },
        })
    }

    /// Makes `floor` the oldest revision that can be read, at once, and forgets about `most` of the
    /// versions that only older reads saw. Answers whether there is more to forget: call again.
    ///
    /// Events stay for watchers, within limits of their own. A floor below the present one, or above the head, is
    /// moved to it.
    pub fn compact(&mut self, floor: Rev, most: usize) -> bool {
        self.floor = floor.clamp(self.floor, self.head);
        let mut more = false;
        for resource in self.resources.values_mut() {
            more |= resource.shed(self.floor, &self.limits, most);
        }
        for _ in 0..most {
            let Some(key) = self.history.pop(self.floor) else { return more };
            let Some(resource) = self.resources.get_mut(key.resource()) else { continue };
            let Resource { objects, owned, .. } = resource;
            if let Some(versions) = objects.get_mut(&key)
                && owned.keep_up(&key, versions, |versions| versions.compact(self.floor))
            {
                objects.remove(&key);
            }
        }
        more || self.history.has(self.floor)
    }

    /// Takes back all that was applied after `to`, which is not below the floor: `events` are those of
    /// that, in their order. For a caller that could not make them durable, and showed them to nobody.
    pub fn take_back(&mut self, to: Rev, events: &[Arc<Event>]) {
        for event in events.iter().rev() {
            let key = &event.entry.key;
            let Some(resource) = self.resources.get_mut(key.resource()) else { continue };
            let Resource { objects, owned, log, .. } = resource;
            log.take_back(to);
            if let Some(versions) = objects.get_mut(key)
                && owned.keep_up(key, versions, Versions::take_back)
            {
                objects.remove(key);
            }
        }
        self.history.take_back(to);
        self.head = to;
    }

    fn readable(&self, at: Rev) -> Result<(), Compacted> {
        if at < self.floor {
            return Err(Compacted { asked: at, oldest: self.floor });
        }
        Ok(())
    }
}

/// Where a part of a list begins.
fn start<'a>(prefix: &'a Prefix, after: Option<&'a Key>) -> Bound<&'a str> {
    match after {
        Some(after) if after.as_str() >= prefix.as_str() => Bound::Excluded(after.as_str()),
        _ => Bound::Included(prefix.as_str()),
    }
}

/// The first `limit` of these.
fn page<'a>(objects: impl Iterator<Item = (&'a Key, &'a Object)>, limit: usize) -> Page<Stored> {
    let mut page = Page::default();
    for (key, object) in objects {
        if page.entries.len() == limit {
            page.more = true;
            break;
        }
        page.entries.push(stored(key, object));
    }
    page
}

/// The object as it is taken out.
fn stored(key: &Key, object: &Object) -> Stored {
    let Object { value, created, modified, owner } = object.clone();
    Stored { key: key.clone(), value, created, modified, owner }
}
