//! The files of a store: names, formats, and what is written when. It must not decide on a
//! transaction, nor show a revision to anybody.
//!
//! ```text
//! DIR/lock
//! DIR/journal-00000000000000000001.log    frames of revisions from 1 on
//! DIR/journal-00000000000000048112.log    … and the rest of them
//! DIR/snapshot-00000000000000048000.snap  every object as of revision 48000
//! ```
//!
//! Zeros follow the last frame of a journal file: room for frames to come, so that a sync has no new size of
//! the file to write.
//!
//! Numbers in names have 20 digits, so that names sort as numbers do.

mod frame;
mod log;
mod recovery;
mod snapshot;

pub(crate) use frame::FrameBuilder;
pub(crate) use log::{Journal, remove_covered};
pub(crate) use recovery::recover;
pub(crate) use snapshot::{Snapshot, SnapshotError};

use toono_mvcc::Rev;

/// The journal file that begins with this revision.
fn segment_name(first: Rev) -> String {
    format!("journal-{:020}.log", first.0)
}

/// The snapshot as of this revision.
fn snapshot_name(rev: Rev) -> String {
    format!("snapshot-{:020}.snap", rev.0)
}

/// A snapshot that is being written.
fn unfinished_name(rev: Rev) -> String {
    format!("snapshot-{:020}.tmp", rev.0)
}

/// What a file in the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Segment(Rev),
    Snapshot(Rev),
    Unfinished,
}

fn file_kind(name: &str) -> Option<FileKind> {
    let number = |prefix, suffix| {
        let digits: &str = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        let number = digits.parse().ok().filter(|_| digits.len() == 20)?;
        Some(Rev(number))
    };
    number("journal-", ".log")
        .map(FileKind::Segment)
        .or_else(|| number("snapshot-", ".snap").map(FileKind::Snapshot))
        .or_else(|| number("snapshot-", ".tmp").map(|_| FileKind::Unfinished))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let rev = Rev(48_112);
        assert_eq!(file_kind(&segment_name(rev)), Some(FileKind::Segment(rev)));
        assert_eq!(file_kind(&snapshot_name(rev)), Some(FileKind::Snapshot(rev)));
        assert_eq!(file_kind(&unfinished_name(rev)), Some(FileKind::Unfinished));
        for other in ["lock", "journal-1.log", "journal-0000000000000000000x.log", "ca.crt"] {
            assert_eq!(file_kind(other), None, "{other}");
        }
        assert!(segment_name(Rev(9)) < segment_name(Rev(10)));
    }
}
