//! The handle that the rest of the program holds.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot, watch};
use toono_mvcc::{Compacted, Entry, Key, Op, Owner, Page, Prefix, Rev, Txn};

use crate::aging::Aging;
use crate::disk::{Directory, Disk};
use crate::etcd::Etcd;
use crate::memory::Memory;
use crate::upkeep::{Load, Upkeep};
use crate::writer::{self, Request, Writer};
use crate::{
    CommitError, ConnectError, EtcdConfig, OpenError, Poisoned, StoreConfig, Unavailable, Watcher,
    journal,
};

/// The most bytes that one transaction may have, keys and all. Kubernetes' API server takes requests
/// of 3 MiB; this leaves room for transactions that change several objects.
pub const MAX_TXN_BYTES: usize = 16 * 1024 * 1024;

/// The longest key, and the longest name of an owner. Group, plural, namespace and name of Kubernetes
/// have at most 253 bytes each.
pub const MAX_KEY_BYTES: usize = 1024;

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

/// A store. Clones are the same store; dropping the last one waits for the write in progress and
/// closes it. Watchers do not keep it open.
#[derive(Clone, Debug)]
pub struct Store {
    memory: Arc<Memory>,
    engine: Engine,
}

/// What makes commits durable.
#[derive(Clone, Debug)]
enum Engine {
    Journal(Arc<Threads>),
    Etcd(Arc<Etcd>),
}

/// The store's threads, which end when this is dropped.
#[derive(Debug)]
struct Threads {
    /// `None` only while it is being dropped.
    queue: Option<mpsc::Sender<Request>>,
    load: Arc<Load>,
    poisoned: Arc<OnceLock<Poisoned>>,
    handles: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.load.stop();
        // The writer ends when nobody can send to it any more, and its end ends the upkeep. The
        // directory's lock is released by whichever is last.
        self.queue = None;
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }
}

impl Store {
    /// Opens the store in a directory, which it then has for itself, and recovers what is in it.
    /// This reads the whole state from the disk: call it where blocking is allowed.
    pub fn open(config: StoreConfig) -> Result<(Self, Recovery), OpenError> {
        let disk = Directory::open(&config.dir)?;
        Self::open_on(Arc::new(disk), &config)
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        config: &StoreConfig,
    ) -> Result<(Self, Recovery), OpenError> {
        let recovered = journal::recover(Arc::clone(&disk), config)?;
        if let Some(cut) = &recovered.report.tail_cut {
            tracing::warn!(
                file = %cut.file.display(),
                offset = cut.offset,
                bytes = cut.bytes,
                "cut an unfinished write off the end of the journal"
            );
        }
        let memory = Arc::new(Memory::new(recovered.table));
        let load = Arc::new(Load::new(config, recovered.snapshot.bytes, recovered.journal_bytes));
        let (queue, requests) = mpsc::channel(writer::QUEUE);
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let poisoned = Arc::new(OnceLock::new());
        let writer = Writer::new(
            Arc::clone(&memory),
            recovered.journal,
            requests,
            Arc::clone(&load),
            wake,
            Arc::clone(&poisoned),
        );
        let aging = Aging::new(config.history, config.history_bytes);
        let upkeep =
            Upkeep::new(Arc::clone(&disk), Arc::clone(&memory), Arc::clone(&load), woken, aging);
        // The first of them ends by itself, should the second not start.
        let mut threads = Threads { queue: Some(queue), load, poisoned, handles: Vec::new() };
        let failed = |source| OpenError::Io {
            action: "start a thread for",
            path: disk.dir().to_owned(),
            source,
        };
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        threads.handles.push(spawn("store-writer").spawn(|| writer.run()).map_err(failed)?);
        threads.handles.push(spawn("store-upkeep").spawn(|| upkeep.run()).map_err(failed)?);
        Ok((Self { memory, engine: Engine::Journal(Arc::new(threads)) }, recovered.report))
    }

    /// Opens the store in an etcd, which other servers may have open too, and reads what is in it.
    pub async fn connect(config: EtcdConfig) -> Result<(Self, Recovery), ConnectError> {
        let (etcd, memory) = Etcd::open(config).await?;
        let revision = memory.visible();
        let recovery = Recovery { revision, snapshot: revision, ..Recovery::default() };
        Ok((Self { memory, engine: Engine::Etcd(Arc::new(etcd)) }, recovery))
    }

    /// Applies a transaction. Answers after it is on the disk, or in etcd, and visible to every reader of
    /// this store.
    ///
    /// Dropping the future does not take back a transaction that was handed over.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        check(&txn)?;
        let threads = match &self.engine {
            Engine::Journal(threads) => threads,
            Engine::Etcd(etcd) => return etcd.commit(txn).await,
        };
        let queue = threads.queue.as_ref().ok_or(CommitError::Closed)?;
        let (answer, answered) = oneshot::channel();
        queue.send(Request { txn, answer }).await.map_err(|_| CommitError::Closed)?;
        answered.await.map_err(|_| CommitError::Closed)?
    }

    /// Why the store takes no more writes, if it does not: a server with such a store is not ready, and
    /// has to be started again.
    #[must_use]
    pub fn poisoned(&self) -> Option<&Poisoned> {
        match &self.engine {
            Engine::Journal(threads) => threads.poisoned.get(),
            Engine::Etcd(_) => None,
        }
    }

    /// Why this server cannot follow etcd any more, if it cannot: it has to be started again. A server
    /// with such a store is not ready.
    #[must_use]
    pub fn lost(&self) -> Option<&Unavailable> {
        match &self.engine {
            Engine::Journal(_) => None,
            Engine::Etcd(etcd) => etcd.lost(),
        }
    }

    /// Makes sure that reads from here on see every commit that was answered before, by whichever
    /// server; gives a revision that does. At once with the journal, where there is one server.
    pub async fn current(&self) -> Result<Rev, Unavailable> {
        match &self.engine {
            Engine::Journal(_) => Ok(self.memory.visible()),
            Engine::Etcd(etcd) => etcd.current().await,
        }
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
        self.memory.list(prefix, None, at, after, limit)
    }

    /// How many objects [`Store::list`] would read after a key, without a limit.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn count(&self, prefix: &Prefix, at: Rev, after: Option<&Key>) -> Result<usize, Compacted> {
        self.memory.count(prefix, at, after)
    }

    /// As [`Store::list`], only the objects of one owner: it reads those and no others, and skips over
    /// the others only for the platform itself.
    pub fn list_owned(
        &self,
        prefix: &Prefix,
        owner: &Owner,
        at: Rev,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, Compacted> {
        self.memory.list(prefix, Some(owner), at, after, limit)
    }

    /// Every event of `prefix` after `since`, in order, then live.
    pub fn watch(&self, prefix: &Prefix, since: Rev) -> Result<Watcher, Compacted> {
        self.watcher(prefix, None, since)
    }

    /// As [`Store::watch`], with the events of another resource in between, in the one order of
    /// revisions: for a view that is made of both.
    pub fn watch_with(
        &self,
        prefix: &Prefix,
        other: &Prefix,
        since: Rev,
    ) -> Result<Watcher, Compacted> {
        self.memory.read().events(other, None, since, since, 0)?;
        Ok(self.watcher(prefix, None, since)?.with(other.clone()))
    }

    /// The newest revision that changed an object of the prefix's resource, or zero if none did since
    /// somebody asked first. It is there before the commit is answered.
    #[must_use]
    pub fn changes(&self, prefix: &Prefix) -> watch::Receiver<Rev> {
        self.memory.subscribe(prefix.resource_name())
    }

    /// As [`Store::watch`], only the events of one owner's objects. Progress is that of the whole store.
    pub fn watch_owned(
        &self,
        prefix: &Prefix,
        owner: &Owner,
        since: Rev,
    ) -> Result<Watcher, Compacted> {
        self.watcher(prefix, Some(owner.clone()), since)
    }

    fn watcher(
        &self,
        prefix: &Prefix,
        owner: Option<Owner>,
        since: Rev,
    ) -> Result<Watcher, Compacted> {
        self.memory.read().events(prefix, owner.as_ref(), since, since, 0)?;
        Ok(Watcher::new(Arc::clone(&self.memory), prefix.clone(), owner, since))
    }
}

/// What the journal cannot hold is refused here, where it concerns only its sender.
fn check(txn: &Txn) -> Result<(), CommitError> {
    let mut bytes = 0_usize;
    for (_, op) in &txn.ops {
        if !op.key().is_well_formed() {
            return Err(CommitError::InvalidKey { key: op.key().clone() });
        }
        let owner = match op {
            Op::Put { owner, .. } => owner.as_str().len(),
            Op::Delete { .. } => 0,
        };
        let names = op.key().as_str().len().max(owner);
        if names > MAX_KEY_BYTES {
            return Err(CommitError::TooLarge { bytes: names, limit: MAX_KEY_BYTES });
        }
        bytes = bytes.saturating_add(op.draft().max_len()).saturating_add(2 * MAX_KEY_BYTES);
    }
    if bytes > MAX_TXN_BYTES {
        return Err(CommitError::TooLarge { bytes, limit: MAX_TXN_BYTES });
    }
    Ok(())
}
