//! One commit as etcd is to be asked for it: every key it depends on compared with what memory has, and
//! its changes. It must not send anything.

use bytes::Bytes;
use toono_mvcc::{Draft, Entry, Expect, Key, Op, Owner, Rejected, Rev, Txn};

use super::messages::{Compare, DeleteRangeRequest, Operation, PutRequest, RequestOp, TxnRequest};
use super::names::{Object, push_last};
use super::{Shared, place, rev, revision};
use crate::Committed;

/// A commit that would succeed if etcd has what memory has.
pub(super) struct Plan {
    conditions: Vec<Compare>,
    changes: Vec<Change>,
    bytes: usize,
}

struct Change {
    key: Key,
    /// The key in etcd.
    name: Bytes,
    deletes: bool,
    draft: Draft,
    /// When the object came to be, if it is there already.
    created: Option<Rev>,
    owner: Owner,
}

impl Plan {
    /// Checks a commit against memory.
    pub(super) fn of(txn: &Txn, shared: &Shared) -> Result<Self, Rejected> {
        let table = shared.memory.read();
        table.check(txn)?;
        let present = |key: &Key| table.get(key, table.head()).ok().flatten();
        let mut plan = Self { conditions: Vec::new(), changes: Vec::new(), bytes: 0 };
        for (key, expect) in &txn.guards {
            if *expect != Expect::Any {
                plan.condition(shared.names.object(key), present(key).as_ref());
            }
        }
        for (_, op) in &txn.ops {
            let present = present(op.key());
            let name = shared.names.object(op.key());
            // Also where anything goes: what follows depends on what is there, its owner above all.
            plan.condition(name.clone(), present.as_ref());
            plan.change(name, op, present);
        }
        Ok(plan)
    }

    fn condition(&mut self, name: Bytes, present: Option<&Entry>) {
        let at = present.map_or(0, |entry| revision(entry.modified));
        self.bytes = self.bytes.saturating_add(name.len());
        self.conditions.push(Compare::modified_at(name, at));
    }

    fn change(&mut self, name: Bytes, op: &Op, present: Option<Entry>) {
        let created = present.as_ref().map(|entry| entry.created);
        let (key, draft, owner) = match op {
            Op::Put { key, value, owner } => (key, value, owner.clone()),
            Op::Delete { key, last } => (key, last, Owner::PLATFORM),
        };
        let owner = present.map_or(owner, |entry| entry.owner);
        let deletes = matches!(op, Op::Delete { .. });
        self.bytes = self.bytes.saturating_add(2 * name.len()).saturating_add(draft.max_len());
        let (key, draft) = (key.clone(), draft.clone());
        self.changes.push(Change { key, name, deletes, draft, created, owner });
    }

    pub(super) fn changes_nothing(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn operations(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn conditions(&self) -> usize {
        self.conditions.len()
    }

    /// About how long it is on the wire.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds it to a transaction in this place, and what it deletes to `lasts`.
    pub(super) fn add_to(&self, request: &mut TxnRequest, at: u8, lasts: &mut Vec<u8>) {
        request.compare.extend(self.conditions.iter().cloned());
        for change in &self.changes {
            let key = change.name.clone();
            let object = Object {
                place: at,
                created_place: change.created.map_or(at, place),
                owner: change.owner.clone(),
                draft: change.draft.clone(),
            };
            request.success.push(if change.deletes {
                push_last(lasts, &change.key, &object);
                Operation::DeleteRange(DeleteRangeRequest { key }).into()
            } else {
                put(key, object.value())
            });
        }
    }

    /// What it did, if it happened in this place of etcd's transaction.
    pub(super) fn committed(&self, revision: i64, at: u8) -> Committed {
        let rev = rev(revision, at);
        let entries = self.changes.iter().map(|change| Entry {
            key: change.key.clone(),
            value: change.draft.seal(rev),
            created: change.created.unwrap_or(rev),
            modified: rev,
            owner: change.owner.clone(),
        });
        Committed { rev, entries: entries.collect() }
    }
}

/// Writes a key.
pub(super) fn put(key: Bytes, value: Bytes) -> RequestOp {
    Operation::Put(PutRequest { key, value }).into()
}
