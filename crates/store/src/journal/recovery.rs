//! Finding out what was committed, from the files alone. It must not change any of them before it is
//! certain that the store can be opened.
//!
//! What a crash leaves at the end of the journal is a write that nobody was told had succeeded: it is
//! cut off. Anything else that is not as it was written means that the disk lost something that
//! somebody was promised, and opening is refused with the place.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use toono_mvcc::{Change, Limits, RestoreError, Rev, Table};

use super::frame::{Frame, FrameKind, Record, take_record};
use super::log::{Journal, remove_covered};
use super::snapshot::ReadError;
use super::{FileKind, Snapshot, file_kind, segment_name, snapshot_name};
use crate::disk::Disk;
use crate::error::DamageKind;
use crate::{OpenError, Recovery, StoreConfig, TailCut};

/// Everything that was in a directory.
pub(crate) struct Recovered {
    pub(crate) table: Table,
    pub(crate) journal: Journal,
    /// The snapshot that it began with.
    pub(crate) snapshot: Snapshot,
    /// The journal that was read on top of that.
    pub(crate) journal_bytes: u64,
    pub(crate) report: Recovery,
}

/// Reads the newest snapshot that is whole and the journal after it, and opens the journal's end.
pub(crate) fn recover(disk: Arc<dyn Disk>, config: &StoreConfig) -> Result<Recovered, OpenError> {
    let files = Files::find(&*disk)?;
    let base = Base::read(&*disk, &files, config.events)?;
    let snapshot = base.snapshot;
    let replayed = Replay::new(&*disk, base).run(&files)?;

    // From here on it is certain what the store holds, and files may change.
    let mut journal = Journal::new(Arc::clone(&disk), config);
    let changed = |source| OpenError::Io { action: "tidy up", path: disk.dir().to_owned(), source };
    // From the back, and before the cut: a crash in between leaves the same thing to do.
    for first in replayed.emptied.iter().rev() {
        disk.remove(&segment_name(*first)).map_err(changed)?;
        disk.sync_dir().map_err(changed)?;
    }
    if let Some((first, bytes)) = replayed.end {
        journal.resume(first, bytes).map_err(changed)?;
    }
    if replayed.position < replayed.table.head() {
        // The snapshot is ahead of what is left of the journal. A new file, as the next frame does
        // not follow the last one there.
        journal = Journal::new(Arc::clone(&disk), config);
    }
    remove_covered(&*disk, snapshot.rev).map_err(changed)?;
    let report = Recovery {
        revision: replayed.table.head(),
        snapshot: snapshot.rev,
        replayed: replayed.table.head().0.saturating_sub(snapshot.rev.0),
        tail_cut: replayed.tail_cut,
    };
    Ok(Recovered {
        table: replayed.table,
        journal,
        snapshot,
        journal_bytes: replayed.journal_bytes,
        report,
    })
}

/// What is in the directory.
#[derive(Debug, Default)]
struct Files {
    /// By falling revision.
    snapshots: Vec<Rev>,
    /// By rising first revision.
    segments: Vec<Rev>,
}

impl Files {
    fn find(disk: &dyn Disk) -> Result<Self, OpenError> {
        let names = disk.names().map_err(|source| OpenError::Io {
            action: "read",
            path: disk.dir().to_owned(),
            source,
        })?;
        let mut files = Self::default();
        for kind in names.iter().filter_map(|name| file_kind(name)) {
            match kind {
                FileKind::Snapshot(rev) => files.snapshots.push(rev),
                FileKind::Segment(first) => files.segments.push(first),
                FileKind::Unfinished => {}
            }
        }
        files.snapshots.sort_unstable_by(|a, b| b.cmp(a));
        files.segments.sort_unstable();
        Ok(files)
    }
}

/// Where replaying begins.
struct Base {
    snapshot: Snapshot,
    table: Table,
    /// The newest snapshot, if it is damaged: its revision, and where.
    damaged: Option<(Rev, u64)>,
}

impl Base {
    fn read(disk: &dyn Disk, files: &Files, limits: Limits) -> Result<Self, OpenError> {
        let mut damaged = None;
        for rev in &files.snapshots {
            match Snapshot::read(disk, *rev, limits) {
                Ok((snapshot, table)) => return Ok(Self { snapshot, table, damaged }),
                Err(ReadError::Damaged { offset }) => {
                    damaged.get_or_insert((*rev, offset));
                }
                Err(ReadError::Io(source)) => {
                    let path = disk.dir().join(snapshot_name(*rev));
                    return Err(OpenError::Io { action: "read", path, source });
                }
            }
        }
        Ok(Self { snapshot: Snapshot::default(), table: Table::new(limits), damaged })
    }
}

/// What replaying came to.
struct Replayed {
    table: Table,
    /// The newest revision in the journal's files.
    position: Rev,
    /// The first revision of the last file, and how many of its bytes count.
    end: Option<(Rev, u64)>,
    /// Files after the end, without a whole frame.
    emptied: Vec<Rev>,
    tail_cut: Option<TailCut>,
    journal_bytes: u64,
}

/// Goes through the journal from its first file that matters.
struct Replay<'a> {
    disk: &'a dyn Disk,
    table: Table,
    damaged: Option<(Rev, u64)>,
    /// The newest revision in the files so far.
    position: Rev,
    end: Option<(Rev, u64)>,
    journal_bytes: u64,
}

impl<'a> Replay<'a> {
    fn new(disk: &'a dyn Disk, base: Base) -> Self {
        Self {
            disk,
            table: base.table,
            damaged: base.damaged,
            position: Rev::ZERO,
            end: None,
            journal_bytes: 0,
        }
    }

    fn run(mut self, files: &Files) -> Result<Replayed, OpenError> {
        // Files that end at or before the snapshot are left over from before it.
        let base = self.table.head();
        let covered =
            files.segments.iter().skip(1).take_while(|next| **next <= base.next()).count();
        let mut segments = files.segments.get(covered..).unwrap_or_default();
        if let Some(first) = segments.first() {
            if *first > base.next() {
                return Err(self.gap(base, *first, self.path(*first), 0));
            }
            self.position = Rev(first.0.saturating_sub(1));
        }
        let mut tail_cut = None;
        let mut emptied = Vec::new();
        while let Some((first, later)) = segments.split_first() {
            segments = later;
            if *first != self.position.next() {
                return Err(self.gap(self.position, *first, self.path(*first), 0));
            }
            let bytes = self.segment(*first)?;
            let whole = self.frames(*first, &bytes)?;
            self.end = Some((*first, whole as u64));
            self.journal_bytes = self.journal_bytes.saturating_add(whole as u64);
            // Zeros are room for frames to come.
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if whole < written {
                self.refuse_if_intact_after(*first, &bytes, whole, later)?;
                tail_cut = Some(TailCut {
                    file: self.path(*first),
                    offset: whole as u64,
                    bytes: (written - whole) as u64,
                });
                emptied = later.to_vec();
                break;
            }
        }
        // The journal must come as far as the newest snapshot did, also if that cannot be read.
        if let Some((rev, offset)) = self.damaged
            && self.table.head() < rev
        {
            return Err(self.damaged_snapshot(rev, offset));
        }
        Ok(Replayed {
            table: self.table,
            position: self.position,
            end: self.end,
            emptied,
            tail_cut,
            journal_bytes: self.journal_bytes,
        })
    }

    /// Applies the whole frames at the beginning of a file, and says where they end.
    fn frames(&mut self, first: Rev, bytes: &[u8]) -> Result<usize, OpenError> {
        let mut offset = 0;
        while let Some(frame) =
            Frame::parse(FrameKind::Journal, bytes.get(offset..).unwrap_or_default())
        {
            let header = frame.header;
            if header.first != self.position.next() || header.last < header.first {
                let file = self.path(first);
                return Err(self.gap(self.position, header.first, file, offset as u64));
            }
            self.position = header.last;
            if header.last > self.table.head() {
                self.apply(&frame).map_err(|what| OpenError::Damaged {
                    file: self.path(first),
                    offset: offset as u64,
                    kind: DamageKind::Contradiction(what),
                })?;
            }
            offset = offset.saturating_add(frame.len());
        }
        Ok(offset)
    }

    /// Applies a frame's commits; those that the snapshot has are left out.
    fn apply(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        let mut payload = frame.payload;
        let mut rev = frame.header.first;
        let mut changes = Vec::new();
        while !payload.is_empty() {
            let Record { kind, entry } =
                take_record(&mut payload).ok_or("a record that cannot be read")?;
            if entry.modified != rev {
                self.replay(rev, std::mem::take(&mut changes))?;
                rev = entry.modified;
            }
            changes.push(Change { kind, key: entry.key, value: entry.value, owner: entry.owner });
        }
        self.replay(rev, changes)?;
        if self.table.head() == frame.header.last {
            Ok(())
        } else {
            Err(format!("a record that ends before its revision {}", frame.header.last))
        }
    }

    fn replay(&mut self, rev: Rev, changes: Vec<Change>) -> Result<(), String> {
        if rev <= self.table.head() {
            return Ok(());
        }
        self.table.replay(rev, changes).map_err(|error: RestoreError| error.to_string())
    }

    /// Bytes that are no frame are the journal's end only if no frame comes after them.
    fn refuse_if_intact_after(
        &self,
        first: Rev,
        bytes: &[u8],
        offset: usize,
        later: &[Rev],
    ) -> Result<(), OpenError> {
        let mut intact = Frame::find(FrameKind::Journal, bytes, offset.saturating_add(1))
            .map(|found| (self.path(first), found));
        for segment in later {
            if intact.is_some() {
                break;
            }
            let bytes = self.segment(*segment)?;
            intact = Frame::find(FrameKind::Journal, &bytes, 0)
                .map(|found| (self.path(*segment), found));
        }
        match intact {
            None => Ok(()),
            Some((intact_file, found)) => Err(OpenError::Damaged {
                file: self.path(first),
                offset: offset as u64,
                kind: DamageKind::Garbage { intact_file, intact_offset: found as u64 },
            }),
        }
    }

    fn segment(&self, first: Rev) -> Result<Vec<u8>, OpenError> {
        let name = segment_name(first);
        read_all(self.disk, &name).map_err(|source| OpenError::Io {
            action: "read",
            path: self.path(first),
            source,
        })
    }

    fn path(&self, first: Rev) -> PathBuf {
        self.disk.dir().join(segment_name(first))
    }

    /// Revisions are missing. If the newest snapshot would have had them, that is the cause.
    fn gap(&self, after: Rev, found: Rev, file: PathBuf, offset: u64) -> OpenError {
        match self.damaged {
            Some((rev, at)) if rev > after => self.damaged_snapshot(rev, at),
            _ => OpenError::Damaged {
                file,
                offset,
                kind: DamageKind::Gap { after: after.0, found: found.0 },
            },
        }
    }

    fn damaged_snapshot(&self, rev: Rev, offset: u64) -> OpenError {
        let file = self.disk.dir().join(snapshot_name(rev));
        OpenError::Damaged { file, offset, kind: DamageKind::Snapshot }
    }
}

fn read_all(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    disk.read(name)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
