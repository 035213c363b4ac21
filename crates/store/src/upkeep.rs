//! The thread that keeps the store from growing: it forgets history and writes snapshots. It must not
//! change an object, nor hold the table's lock for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::StoreConfig;
use crate::aging::Aging;
use crate::disk::Disk;
use crate::journal::{Snapshot, SnapshotError, remove_covered};
use crate::memory::Memory;

/// After a snapshot failed, how long until the next attempt: a full disk does not become less full by
/// being written to without a pause.
const RETRY: Duration = Duration::from_mins(1);

/// The writer asks for upkeep before its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wake;

/// How much there is to keep up with; the writer adds to it, the upkeep takes away.
#[derive(Debug)]
pub(crate) struct Load {
    stop: AtomicBool,
    /// Bytes of the journal since the last snapshot began.
    journal_bytes: AtomicU64,
    /// A snapshot is due at this many of them.
    snapshot_at: AtomicU64,
    snapshot_after_bytes: u64,
    history_bytes: usize,
}

impl Load {
    pub(crate) fn new(config: &StoreConfig, snapshot_bytes: u64, journal_bytes: u64) -> Self {
        let load = Self {
            stop: AtomicBool::new(false),
            journal_bytes: AtomicU64::new(journal_bytes),
            snapshot_at: AtomicU64::new(0),
            snapshot_after_bytes: config.snapshot_after_bytes,
            history_bytes: config.history_bytes,
        };
        load.plan_snapshot(snapshot_bytes);
        load
    }

    /// The threads are to end soon.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn journal_grew(&self, bytes: u64) {
        self.journal_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether upkeep should not wait for its time.
    pub(crate) fn wants_upkeep(&self, history_bytes: usize) -> bool {
        self.snapshot_due() || history_bytes > self.history_bytes
    }

    fn snapshot_due(&self) -> bool {
        self.journal_bytes.load(Ordering::Relaxed) >= self.snapshot_at.load(Ordering::Relaxed)
    }

    /// As said at [`SNAPSHOT_AFTER_BYTES`](crate::SNAPSHOT_AFTER_BYTES).
    fn plan_snapshot(&self, last_bytes: u64) {
        let at = self.snapshot_after_bytes.max(last_bytes / 2);
        self.snapshot_at.store(at, Ordering::Relaxed);
    }
}

/// The upkeep's state, moved into its thread.
pub(crate) struct Upkeep {
    disk: Arc<dyn Disk>,
    memory: Arc<Memory>,
    load: Arc<Load>,
    woken: Receiver<Wake>,
    aging: Aging,
    no_snapshot_before: Option<Instant>,
}

impl Upkeep {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        memory: Arc<Memory>,
        load: Arc<Load>,
        woken: Receiver<Wake>,
        aging: Aging,
    ) -> Self {
        Self { disk, memory, load, woken, aging, no_snapshot_before: None }
    }

    /// Works until the writer has ended.
    pub(crate) fn run(mut self) {
        loop {
            match self.woken.recv_timeout(self.aging.step()) {
                Ok(Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.turn(Instant::now());
        }
    }

    /// Does what is due.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.aging.turn(&self.memory, now);
        self.snapshot(now);
    }

    fn snapshot(&mut self, now: Instant) {
        if !self.load.snapshot_due() || self.no_snapshot_before.is_some_and(|at| now < at) {
            return;
        }
        let covered = self.load.journal_bytes.load(Ordering::Relaxed);
        match Snapshot::write(&*self.disk, &self.memory, &self.load.stop) {
            Ok(snapshot) => {
                self.load.journal_bytes.fetch_sub(covered, Ordering::Relaxed);
                self.load.plan_snapshot(snapshot.bytes);
                self.no_snapshot_before = None;
                tracing::info!(
                    revision = snapshot.rev.0,
                    bytes = snapshot.bytes,
                    "wrote a snapshot"
                );
                if let Err(error) = remove_covered(&*self.disk, snapshot.rev) {
                    tracing::warn!(%error, "cannot remove journal files that a snapshot replaced");
                }
            }
            Err(SnapshotError::Interrupted) => {}
            Err(error) => {
                self.no_snapshot_before = Some(now + RETRY);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write a snapshot; the journal goes on growing"
                );
            }
        }
    }
}
