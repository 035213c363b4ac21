//! The handle that the rest of the program holds.

use std::path::PathBuf;
use std::sync::Arc;

use toono_mvcc::{Compacted, Entry, Key, Page, Prefix, Rev, Table, Txn};

use crate::memory::Memory;
use crate::{CommitError, OpenError, StoreConfig, Watcher};

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The newest revision.
    pub revision: Rev,
    /// The revision of the snapshot that it began with; 0 if there was none.
    pub snapshot: Rev,
    /// Revisions read from the journal after it.
    pub replayed: u64,
    /// An unfinished or damaged end of the journal, which was cut off.
    pub tail_cut: Option<TailCut>,
}

/// The end of the journal was no whole record: a write that was never acknowledged, or a damage with
/// nothing after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// The journal file.
    pub file: PathBuf,
    /// Where it ends now.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
}

/// What a commit did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its revision; for a transaction without changes, a revision at which its guards held.
    pub rev: Rev,
    /// One entry for each operation, in their order. That of a deletion is the object's last state.
    pub entries: Vec<Entry>,
}

/// A store. Clones are the same store; it is closed when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    memory: Arc<Memory>,
}

impl Store {
    /// Opens the store in a directory, which it then has for itself, and recovers what is in it.
    /// This reads the whole state from the disk: call it where blocking is allowed.
    pub fn open(config: StoreConfig) -> Result<(Self, Recovery), OpenError> {
        let memory = Arc::new(Memory::new(Table::new(config.events)));
        Ok((Self { memory }, Recovery::default()))
    }

    /// Applies a transaction. Answers after it is on the disk and visible to every reader.
    ///
    /// Dropping the future does not take the transaction back.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let applied = self.memory.write().apply(txn)?;
        let resources = applied.events.iter().map(|event| event.entry.key.resource());
        self.memory.publish(applied.rev, resources);
        let entries = applied.events.iter().map(|event| event.entry.clone()).collect();
        Ok(Committed { rev: applied.rev, entries })
    }

    /// The newest revision that is durable and visible.
    #[must_use]
    pub fn revision(&self) -> Rev {
        self.memory.visible()
    }

    /// The object at `key`, now or as it was at a revision. A revision above [`Store::revision`] is
    /// read as that.
    pub fn get(&self, key: &Key, at: Option<Rev>) -> Result<Option<Entry>, Compacted> {
        self.memory.get(key, at)
    }

    /// The first `limit` objects of `prefix` after the key `after`, as they were at revision `at`;
    /// `usize::MAX` for all of them. Pages of the same revision fit together. A revision above
    /// [`Store::revision`] is read as that.
    pub fn list(
        &self,
        prefix: &Prefix,
        at: Rev,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, Compacted> {
        self.memory.list(prefix, at, after, limit)
    }

    /// Every event of `prefix` after `since`, in order, then live.
    pub fn watch(&self, prefix: &Prefix, since: Rev) -> Result<Watcher, Compacted> {
        self.memory.read().events(prefix, since, since, 0)?;
        Ok(Watcher::new(Arc::clone(&self.memory), prefix.clone(), since))
    }
}
