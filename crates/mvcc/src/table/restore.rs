//! Building a table from what was kept: the objects of a snapshot, then the changes after it. It must
//! not know how they were kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::{Limits, OwnerIndex, Resource, Table};
use crate::event_log::EventLog;
use crate::stored::{Packer, Value};
use crate::versions::{Object, Versions};
use crate::{Entry, EventKind, Key, Owner, Rev};

/// A change that was already decided on, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: EventKind,
    /// To what.
    pub key: Key,
    /// The object after the change; its last state for a deletion.
    pub value: Bytes,
    /// Who the object belongs to.
    pub owner: Owner,
}

/// What was kept does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Objects did not come in the order of resources, then keys.
    #[error("{key} is out of order")]
    Order {
        /// The key that came too late.
        key: Key,
    },
    /// A change is not the one after the head.
    #[error("revision {found} follows revision {head}")]
    Gap {
        /// The newest revision before the change.
        head: Rev,
        /// The revision of the change.
        found: Rev,
    },
    /// The change deletes an object that does not exist.
    #[error("revision {rev} deletes {key}, which does not exist")]
    NothingToDelete {
        /// The revision of the change.
        rev: Rev,
        /// The key.
        key: Key,
    },
}

/// A table in the making. Trees built from sorted objects are packed, where those grown by
/// insertion are half empty.
#[derive(Debug)]
pub struct Restore {
    table: Table,
    name: Box<str>,
    objects: Vec<(Key, Versions)>,
    owned: OwnerIndex,
    packer: Packer,
}

impl Restore {
    /// Begins with nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            table: Table::new(limits),
            name: Box::default(),
            objects: Vec::new(),
            owned: OwnerIndex::default(),
            packer: Packer::default(),
        }
    }

    /// Adds an object. They come by resource, in the order of [`Table::resources`], and in that by key.
    pub fn push(&mut self, entry: Entry) -> Result<(), RestoreError> {
        let resource = entry.key.resource();
        if resource != &*self.name {
            if resource < &*self.name {
                return Err(RestoreError::Order { key: entry.key });
            }
            let next = resource.into();
            self.pack();
            self.name = next;
        } else if self.objects.last().is_some_and(|(last, _)| *last >= entry.key) {
            return Err(RestoreError::Order { key: entry.key });
        }
        let value = Value::Whole(entry.value);
        let object = Object {
            value: self.packer.pack(&value).unwrap_or(value),
            created: entry.created,
            modified: entry.modified,
            owner: self.table.shared(entry.owner),
        };
        self.owned.add(&object.owner, &entry.key);
        self.objects.push((entry.key, Versions::One(object)));
        Ok(())
    }

    fn pack(&mut self) {
        if self.objects.is_empty() {
            return;
        }
        let objects: BTreeMap<_, _> = std::mem::take(&mut self.objects).into_iter().collect();
        let owned = std::mem::take(&mut self.owned);
        let packer = std::mem::take(&mut self.packer);
        let resource = Resource { objects, owned, log: EventLog::new(Rev::ZERO), packer };
        self.table.resources.insert(std::mem::take(&mut self.name), resource);
    }

    /// The table as it was at `rev`. Nothing before that is known to it.
    #[must_use]
    pub fn finish(mut self, rev: Rev) -> Table {
        self.pack();
        self.table.head = rev;
        self.table.floor = rev;
        self.table.log_floor = rev;
        for resource in self.table.resources.values_mut() {
            resource.log = EventLog::new(rev);
        }
        self.table
    }
}

impl Table {
    /// Applies changes that were decided on before, all of revision `rev`, which must be the next.
    /// After an error the table is of no use.
    pub fn replay(&mut self, rev: Rev, changes: Vec<Change>) -> Result<(), RestoreError> {
        if rev != self.head.next() {
            return Err(RestoreError::Gap { head: self.head, found: rev });
        }
        self.follow(rev, changes)
    }

    /// As [`Table::replay`], at any revision above the head: where others write to the same store,
    /// some revisions are not about objects. Without changes, this only moves the head.
    pub fn follow(&mut self, rev: Rev, changes: Vec<Change>) -> Result<(), RestoreError> {
        if rev <= self.head {
            return Err(RestoreError::Gap { head: self.head, found: rev });
        }
        for Change { kind, key, value, owner } in changes {
            if kind == EventKind::Delete && self.newest(&key).is_none() {
                return Err(RestoreError::NothingToDelete { rev, key });
            }
            self.write(rev, kind, key, value, owner);
        }
        self.head = rev;
        Ok(())
    }
}
