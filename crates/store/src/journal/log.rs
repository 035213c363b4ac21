//! Appending to the journal, file after file, and removing files that a snapshot made superfluous. It
//! must not read them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use toono_mvcc::Rev;

use super::{FileKind, file_kind, segment_name};
use crate::disk::{Append, Disk};
use crate::{Poisoned, StoreConfig};

/// The end of the journal.
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    reserve_bytes: usize,
    current: Option<Segment>,
}

struct Segment {
    path: PathBuf,
    file: Box<dyn Append>,
    /// How long it is, without the zeros after its last frame.
    bytes: u64,
    /// How many zeros there are.
    reserved: usize,
}

impl Journal {
    /// A journal whose next frame begins a new file.
    pub(crate) fn new(disk: Arc<dyn Disk>, config: &StoreConfig) -> Self {
        let StoreConfig { segment_bytes, reserve_bytes, .. } = *config;
        Self { disk, segment_bytes, reserve_bytes, current: None }
    }

    /// Goes on in the file that begins with `first`, after its first `bytes`; the rest is cut off.
    /// What is before is durable then.
    pub(crate) fn resume(&mut self, first: Rev, bytes: u64) -> io::Result<()> {
        let name = segment_name(first);
        let file = self.disk.resume(&name, bytes)?;
        self.current = Some(Segment { path: self.disk.dir().join(name), file, bytes, reserved: 0 });
        Ok(())
    }

    /// Appends a frame that begins with revision `first`; it is durable when this returns. After an
    /// error the end of the journal is unknown, and the journal must not be used again.
    pub(crate) fn append(&mut self, frame: &[u8], first: Rev) -> Result<(), Poisoned> {
        let full = |segment: &Segment| segment.bytes >= self.segment_bytes;
        if self.current.as_ref().is_none_or(full) {
            self.current = Some(self.next_segment(first)?);
        }
        // The line above made it so.
        let Some(segment) = &mut self.current else { return Ok(()) };
        let failed = |action, segment: &Segment| {
            let path = segment.path.clone();
            move |source| Poisoned { action, path, source: Arc::new(source) }
        };
        if segment.reserved < frame.len() && frame.len() < self.reserve_bytes {
            segment.file.reserve(self.reserve_bytes).map_err(failed("write", segment))?;
            segment.reserved = self.reserve_bytes;
        }
        segment.file.append(frame).map_err(failed("write", segment))?;
        segment.file.sync().map_err(failed("sync", segment))?;
        segment.bytes = segment.bytes.saturating_add(frame.len() as u64);
        segment.reserved = segment.reserved.saturating_sub(frame.len());
        Ok(())
    }

    /// Cuts off what a failed append may have left, so that the journal can be used again: its end is what
    /// it was before.
    pub(crate) fn heal(&mut self) -> io::Result<()> {
        let Some(segment) = &mut self.current else { return Ok(()) };
        let name = segment.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        segment.file = self.disk.resume(name, segment.bytes)?;
        segment.reserved = 0;
        Ok(())
    }

    /// Made only when there is a frame for it: a journal without an empty last file is one case less
    /// for recovery.
    fn next_segment(&self, first: Rev) -> Result<Segment, Poisoned> {
        let name = segment_name(first);
        let path = self.disk.dir().join(&name);
        let failed = |action| {
            let path = path.clone();
            move |source| Poisoned { action, path, source: Arc::new(source) }
        };
        let file = self.disk.create(&name).map_err(failed("create"))?;
        // The name first: a durable frame in a file that is not found again is lost.
        self.disk.sync_dir().map_err(failed("sync the directory of"))?;
        Ok(Segment { path, file, bytes: 0, reserved: 0 })
    }
}

/// Removes what a durable snapshot as of `rev` replaces: older snapshots, snapshots never finished,
/// and journal files with no later revision in them. The newest journal file stays in any case.
pub(crate) fn remove_covered(disk: &dyn Disk, rev: Rev) -> io::Result<()> {
    let names = disk.names()?;
    let mut segments = Vec::new();
    // Oldest snapshots first, then journal files from the oldest on: what is left after a crash
    // in between is still without a gap.
    for name in &names {
        match file_kind(name) {
            Some(FileKind::Snapshot(older)) if older < rev => disk.remove(name)?,
            Some(FileKind::Unfinished) => disk.remove(name)?,
            Some(FileKind::Segment(first)) => segments.push(first),
            Some(FileKind::Snapshot(_)) | None => {}
        }
    }
    segments.sort_unstable();
    for (first, next) in segments.iter().zip(segments.iter().skip(1)) {
        if *next > rev.next() {
            break;
        }
        disk.remove(&segment_name(*first))?;
    }
    disk.sync_dir()
}
