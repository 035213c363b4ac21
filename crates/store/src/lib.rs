//! The objects of a cluster, durable: a journal with group commit, snapshots, recovery, and watches
//! over the versioned table of the `mvcc` crate.
//!
//! It must not know what an object means, and nothing but [`Store::commit`] changes one.
//!
//! All reads are from memory. A commit is evaluated in memory first, at a revision that no reader may
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

mod config;
#[cfg(test)]
mod crash_tests;
mod disk;
mod error;
mod journal;
mod memory;
mod store;
mod upkeep;
mod watcher;
mod writer;

pub use config::{HISTORY, HISTORY_BYTES, SEGMENT_BYTES, SNAPSHOT_AFTER_BYTES, StoreConfig};
pub use error::{CommitError, DamageKind, OpenError, Poisoned};
pub use store::{Committed, MAX_KEY_BYTES, MAX_TXN_BYTES, Recovery, Store, TailCut};
pub use toono_mvcc::{
    Compacted, Draft, Entry, Event, EventKind, Expect, Key, Op, Owner, Page, Prefix, Rev, Txn,
};
pub use watcher::{Lagged, WatchItem, Watcher};
