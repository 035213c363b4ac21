//! What can go wrong, with the file or the key that it went wrong with.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use toono_mvcc::{Entry, Key, Rejected};

/// The store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has this store open.
    #[error("the store in {} is in use by another process", dir.display())]
    Taken {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `create`, …
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is damaged in a place that leaving out would lose acknowledged writes. Nothing was
    /// changed on the disk.
    #[error("{} is damaged at byte {offset}: {kind}", file.display())]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where in it, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        kind: DamageKind,
    },
}

impl OpenError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Taken { .. } => {
                "stop the other server, or give this one a data directory of its own"
            }
            Self::Io { .. } => "check the directory's permissions, free space and disk",
            Self::Damaged { .. } => {
                "copy the whole directory away, then restore it from a backup or from another \
                 replica; nothing in it was changed"
            }
        }
    }
}

/// What is wrong at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// Bytes that are no whole record, and whole records after them.
    Garbage {
        /// The file that has a whole record further on.
        intact_file: PathBuf,
        /// Where in that file.
        intact_offset: u64,
    },
    /// Revisions are missing.
    Gap {
        /// The newest revision before the gap.
        after: u64,
        /// The revision found.
        found: u64,
    },
    /// A snapshot that does not add up, and no older one with the journal since then.
    Snapshot,
    /// A whole record whose content contradicts the state before it.
    Contradiction(String),
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage { intact_file, intact_offset } => write!(
                f,
                "no whole record there, but one follows at byte {intact_offset} of {}",
                intact_file.display()
            ),
            Self::Gap { after, found } => {
                write!(f, "revision {found} follows revision {after}")
            }
            Self::Snapshot => {
                f.write_str("the snapshot does not add up, and nothing older is complete")
            }
            Self::Contradiction(what) => f.write_str(what),
        }
    }
}

/// A transaction was not acknowledged.
#[derive(Clone, Debug, Error)]
pub enum CommitError {
    /// A condition did not hold. Nothing was changed.
    #[error("{key} is not as the transaction expects it")]
    Conflict {
        /// The first key whose condition failed.
        key: Key,
        /// What is there, `None` if nothing is.
        current: Option<Entry>,
    },
    /// Two changes are about the same key. Nothing was changed.
    #[error("the transaction changes {key} twice")]
    Duplicate {
        /// The key.
        key: Key,
    },
    /// A name in the key contains a slash. Nothing was changed.
    #[error("{key} is no key of an object")]
    InvalidKey {
        /// The key.
        key: Key,
    },
    /// The transaction has more bytes than the journal takes in one. Nothing was changed.
    #[error("the transaction has {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// etcd does not take a transaction of this size. Nothing was changed.
    #[error("etcd refused a transaction of {bytes} bytes: {reason}")]
    TooLargeForEtcd {
        /// About how large it is.
        bytes: usize,
        /// etcd's words.
        reason: String,
    },
    /// etcd could not be asked, or asked in time. Nothing was changed.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The answer was lost on its way, or etcd gave up on it. Whether the transaction happened, or will,
    /// is not known, and it must not be sent again as if it had not.
    #[error("whether the write was done is not known: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// The disk has no room for the transaction. Nothing was changed; the store takes writes again when
    /// there is room.
    #[error("the store's disk is full: {path}", path = path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The journal failed, now or earlier. Whether this transaction will be there after a restart is
    /// not known; no later one will.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The store is being closed. Whether this transaction will be there is not known.
    #[error("the store is closed")]
    Closed,
}

impl From<Rejected> for CommitError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Conflict { key, current } => Self::Conflict { key, current },
            Rejected::Duplicate { key } => Self::Duplicate { key },
        }
    }
}

/// etcd could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the store's etcd is not available: {reason}")]
pub struct Unavailable {
    /// etcd's words, or those of the network.
    pub reason: String,
}

/// A write or a sync of the journal failed. What the disk holds of it cannot be known without reading
/// it again, so the store takes no more writes until it was opened anew. Reads go on.
#[derive(Clone, Debug, Error)]
#[error("the journal failed to {action} {}; the store takes no writes until the server restarts", path.display())]
pub struct Poisoned {
    /// What failed, as a verb: `write`, `sync`, …
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: Arc<io::Error>,
}

impl Poisoned {
    /// Whether there was just no room.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}
