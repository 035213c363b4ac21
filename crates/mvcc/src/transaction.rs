//! What is asked of the table: changes and the conditions they stand under. It must not apply them.

use thiserror::Error;

use crate::{Draft, Entry, Key, Owner, Rev};

/// What must be true of a key for a transaction to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing; a [`Op::Delete`] still needs an object to delete.
    Any,
    /// There is no object.
    Absent,
    /// The object's newest version was written at this revision.
    At(Rev),
}

/// One change.
#[derive(Clone, Debug)]
pub enum Op {
    /// Create the object, or replace it.
    Put {
        /// Where.
        key: Key,
        /// The object.
        value: Draft,
        /// Who it belongs to if this creates it. A replaced object keeps the owner it has.
        owner: Owner,
    },
    /// Remove the object.
    Delete {
        /// Where.
        key: Key,
        /// The object as watchers of its deletion see it, carrying the revision of the deletion.
        last: Draft,
    },
}

impl Op {
    /// The object that the change is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// The object that will be written.
    #[must_use]
    pub fn draft(&self) -> &Draft {
        match self {
            Self::Put { value, .. } => value,
            Self::Delete { last, .. } => last,
        }
    }
}

/// Changes that happen together at one revision, or not at all.
///
/// All conditions look at the table as it was before the transaction. No two `ops` may be about the
/// same key. A transaction without `ops` only checks its guards and uses up no revision.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// Conditions on keys that the transaction does not change.
    pub guards: Vec<(Key, Expect)>,
    /// The changes, each with the condition on its own key.
    pub ops: Vec<(Expect, Op)>,
}

impl Txn {
    /// A single change.
    #[must_use]
    pub fn of(expect: Expect, op: Op) -> Self {
        Self { guards: Vec::new(), ops: vec![(expect, op)] }
    }
}

/// Why a transaction did not happen. Nothing of it did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejected {
    /// A condition did not hold.
    #[error("{key} is not as the transaction expects it")]
    Conflict {
        /// The first key whose condition failed.
        key: Key,
        /// What is there, `None` if nothing is.
        current: Option<Entry>,
    },
    /// Two changes are about the same key.
    #[error("the transaction changes {key} twice")]
    Duplicate {
        /// The key.
        key: Key,
    },
}
