//! Writing all objects as of one revision to a file, and reading them back. It must not stop the writer
//! for longer than one page of a list takes.

use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use toono_mvcc::{Compacted, Limits, Page, Restore, Rev, Table};

use super::frame::{FrameBuilder, FrameKind, HEADER_BYTES, Header, take_record, unpack};
use super::{snapshot_name, unfinished_name};
use crate::disk::{Append, Disk};
use crate::memory::Memory;

/// Objects that are taken from the table at a time.
const PAGE: usize = 256;

/// A frame is packed and written when it has this many bytes.
const FRAME_BYTES: usize = 1024 * 1024;

/// What is written is made durable in steps of this many bytes: the journal's own syncs would wait
/// behind gigabytes that the kernel had been left to write at once.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// The buffer for reading.
const READ_BYTES: usize = 1024 * 1024;

/// A snapshot was not written. What was there before is still good.
#[derive(Debug, Error)]
pub(crate) enum SnapshotError {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// The store is being closed.
    #[error("interrupted")]
    Interrupted,
    /// History was compacted beyond the snapshot's revision while it was written.
    #[error(transparent)]
    Compacted(#[from] Compacted),
}

/// A durable snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) rev: Rev,
    /// As they were before they were packed: what writing one costs.
    pub(crate) bytes: u64,
}

impl Snapshot {
    /// Writes all that is visible now.
    pub(crate) fn write(
        disk: &dyn Disk,
        memory: &Memory,
        stop: &AtomicBool,
    ) -> Result<Self, SnapshotError> {
        let rev = memory.visible();
        let name = unfinished_name(rev);
        let path = disk.dir().join(&name);
        let failed = |action| {
            let path = path.clone();
            move |source| SnapshotError::Io { action, path, source }
        };
        let file = disk.create(&name).map_err(failed("create"))?;
        let mut output = Output::new(file, rev);
        // Bound to a name: in the loop's head, the lock would be held until the loop ends.
        let resources = memory.read().resources();
        for prefix in resources {
            let mut after = None;
            loop {
                if stop.load(Ordering::Relaxed) {
                    // The next snapshot, or the next opening, removes the unfinished file.
                    return Err(SnapshotError::Interrupted);
                }
                let page = memory.read().list(&prefix, rev, after.as_ref(), PAGE)?;
                let page = Page::from(page);
                for entry in &page.entries {
                    output.push(entry).map_err(failed("write"))?;
                }
                after = page.entries.into_iter().last().map(|entry| entry.key);
                if !page.more {
                    break;
                }
            }
        }
        let bytes = output.finish().map_err(failed("write"))?;
        disk.rename(&name, &snapshot_name(rev)).map_err(failed("rename"))?;
        disk.sync_dir().map_err(failed("sync the directory of"))?;
        Ok(Self { rev, bytes })
    }

    /// Reads the snapshot as of `rev`.
    pub(crate) fn read(
        disk: &dyn Disk,
        rev: Rev,
        limits: Limits,
    ) -> Result<(Self, Table), ReadError> {
        let file = disk.read(&snapshot_name(rev)).map_err(ReadError::Io)?;
        let mut input = Input { file: BufReader::with_capacity(READ_BYTES, file), offset: 0 };
        let mut restore = Restore::new(limits);
        let (mut number, mut bytes) = (Rev::ZERO, 0_u64);
        loop {
            let offset = input.offset;
            let damaged = || ReadError::Damaged { offset };
            let (header, payload) = input.frame()?;
            if header.first != rev || header.last != number {
                return Err(damaged());
            }
            let records = match header.kind {
                FrameKind::Journal => return Err(damaged()),
                FrameKind::End => {
                    input.end()?;
                    return Ok((Self { rev, bytes }, restore.finish(rev)));
                }
                FrameKind::Objects => payload,
                FrameKind::Packed => unpack(&payload).ok_or_else(damaged)?,
            };
            bytes = bytes.saturating_add(records.len() as u64);
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                let record = take_record(&mut rest).ok_or_else(damaged)?;
                restore.push(record.entry).map_err(|_| damaged())?;
            }
            number = number.next();
        }
    }
}

/// A snapshot could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    /// It is not what was written, at this frame.
    Damaged {
        offset: u64,
    },
}

struct Output {
    file: Box<dyn Append>,
    rev: Rev,
    frame: FrameBuilder,
    number: Rev,
    bytes: u64,
    unsynced: u64,
}

impl Output {
    fn new(file: Box<dyn Append>, rev: Rev) -> Self {
        Self { file, rev, frame: FrameBuilder::new(), number: Rev::ZERO, bytes: 0, unsynced: 0 }
    }

    fn push(&mut self, entry: &toono_mvcc::Entry) -> io::Result<()> {
        self.frame.push_object(entry);
        if self.frame.len() >= FRAME_BYTES { self.flush_objects() } else { Ok(()) }
    }

    fn flush_objects(&mut self) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(self.frame.len() as u64);
        self.frame.pack();
        self.flush(FrameKind::Packed)
    }

    fn flush(&mut self, kind: FrameKind) -> io::Result<()> {
        let frame = self.frame.finish(kind, self.rev, self.number);
        let bytes = frame.len() as u64;
        self.file.append(frame)?;
        self.frame.clear(2 * FRAME_BYTES);
        self.number = self.number.next();
        self.unsynced = self.unsynced.saturating_add(bytes);
        if self.unsynced >= SYNC_BYTES {
            self.file.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        if !self.frame.is_empty() {
            self.flush_objects()?;
        }
        self.flush(FrameKind::End)?;
        self.file.sync()?;
        Ok(self.bytes)
    }
}

struct Input<R> {
    file: R,
    offset: u64,
}

impl<R: Read> Input<R> {
    fn frame(&mut self) -> Result<(Header, Vec<u8>), ReadError> {
        let damaged = ReadError::Damaged { offset: self.offset };
        let header_bytes = self.take(HEADER_BYTES)?;
        let Some(header) = Header::parse(&header_bytes) else { return Err(damaged) };
        let payload = self.take(header.payload_bytes)?;
        if header.covers(&payload) { Ok((header, payload)) } else { Err(damaged) }
    }

    /// Nothing may follow.
    fn end(&mut self) -> Result<(), ReadError> {
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(ReadError::Damaged { offset: self.offset }),
            Err(error) => Err(ReadError::Io(error)),
        }
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; count];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => {
                self.offset = self.offset.saturating_add(count as u64);
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ReadError::Damaged { offset: self.offset })
            }
            Err(error) => Err(ReadError::Io(error)),
        }
    }
}
