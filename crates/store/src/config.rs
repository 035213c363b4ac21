//! What a store is told when it is opened, with every limit's default and its reason. It must not
//! read anything from anywhere.

use std::path::PathBuf;
use std::time::Duration;

/// How long older versions stay readable. Kubernetes' API server keeps etcd's history for five
/// minutes, and clients that page through a list count on that.
pub const HISTORY: Duration = Duration::from_mins(5);

/// Bytes of old versions at which history is compacted before its time: at 50,000 writes a second of
/// 1 KiB each, five minutes of it would be 15 GB.
pub const HISTORY_BYTES: usize = 512 * 1024 * 1024;

/// A journal file is followed by the next at this size. Files are removed whole after a snapshot, so
/// this is how much of the journal can outlive its use.
pub const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;

/// Zeros are written ahead of the journal's frames this much at a time, so that one sync in dozens has to
/// write the file's size too, and a small cluster's journal is not mostly zeros.
pub const RESERVE_BYTES: usize = 1024 * 1024;

/// The journal is replaced by a snapshot when it has grown by this much, and by at least
/// half of the last snapshot: small clusters restart from little, large ones do not write their
/// state again and again.
pub const SNAPSHOT_AFTER_BYTES: u64 = 128 * 1024 * 1024;

/// How a store is opened. [`StoreConfig::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The directory of the journal and the snapshots; created with mode 0700 if it does not exist.
    pub dir: PathBuf,
    /// How long older versions stay readable: [`HISTORY`].
    pub history: Duration,
    /// Bytes of older versions at which they are forgotten earlier: [`HISTORY_BYTES`].
    pub history_bytes: usize,
    /// The size of a journal file: [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// The room that is made in it at a time: [`RESERVE_BYTES`]. Less than a commit needs is none.
    pub reserve_bytes: usize,
    /// Journal growth that leads to a snapshot: [`SNAPSHOT_AFTER_BYTES`].
    pub snapshot_after_bytes: u64,
    /// How many events watchers may be behind.
    pub events: toono_mvcc::Limits,
}

impl StoreConfig {
    /// The defaults, for a store in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            history: HISTORY,
            history_bytes: HISTORY_BYTES,
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: RESERVE_BYTES,
            snapshot_after_bytes: SNAPSHOT_AFTER_BYTES,
            events: toono_mvcc::Limits::default(),
        }
    }
}
