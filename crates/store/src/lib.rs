//! The objects of a cluster, durable: a journal with group commit, snapshots, recovery, and watches
//! over the versioned table of the `mvcc` crate.
//!
//! It must not know what an object means, and nothing but [`Store::commit`] changes one.
//!
//! There are two engines behind one [`Store`]: the journal, for one server on one machine, and etcd, for
//! several servers that share one state ([`EtcdConfig`]). All reads are from memory with either.
//!
//! With the journal, a commit is evaluated in memory first, at a revision that no reader may
//! name yet; when its journal record is on the disk the revision becomes visible and the commit is
//! acknowledged. Commits that wait together share one write and one sync.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use toono_store::{Draft, Expect, Key, Op, Owner, Prefix, Store, StoreConfig, Txn, WatchItem};
//!
//! let (store, recovery) = Store::open(StoreConfig::new(dir.path().join("store")))?;
//! let value = Draft::new(r#"{"metadata":{"resourceVersion":""#, r#""}}"#);
//! let key = Key::new("", "pods", "default", "web");
//! let create = Op::Put { key: key.clone(), value, owner: Owner::PLATFORM };
//! let created = store.commit(Txn::of(Expect::Absent, create)).await?;
//!
//! let stored = store.get(&key, None)?.ok_or("not there")?;
//! assert_eq!(stored.value, r#"{"metadata":{"resourceVersion":"1"}}"#);
//! let mut watcher = store.watch(&Prefix::resource("", "pods"), recovery.revision)?;
//! let WatchItem::Event(event) = watcher.next().await? else { return Err("no event".into()) };
//! assert_eq!(event.rev, created.rev);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a server with several replicas must do
//!
//! With etcd, another server may have answered a write that this one has not heard of yet. Kubernetes
//! promises that a get or list without a `resourceVersion`, and a watch that begins with "most recent",
//! see every write that was answered before. So such a request first awaits [`Store::current`], which
//! costs nothing with the journal. One with `resourceVersion=0`, or any other, reads memory as it is.

mod aging;
mod config;
#[cfg(test)]
mod crash_tests;
mod disk;
mod error;
mod etcd;
mod journal;
mod memory;
mod store;
mod upkeep;
mod watcher;
mod writer;

pub use config::{
    HISTORY, HISTORY_BYTES, RESERVE_BYTES, SEGMENT_BYTES, SNAPSHOT_AFTER_BYTES, StoreConfig,
};
pub use error::{CommitError, DamageKind, OpenError, Poisoned, Unavailable};
pub use etcd::{ConnectError, ETCD_PREFIX, EtcdConfig, REQUEST_TIMEOUT};
pub use store::{Committed, MAX_KEY_BYTES, MAX_TXN_BYTES, Recovery, Store, TailCut};
pub use toono_mvcc::{
    Compacted, Draft, Entry, Event, EventKind, Expect, Key, Limits, Op, Owner, Page, Prefix, Rev,
    Txn,
};
pub use watcher::{Lagged, WatchItem, Watcher};
