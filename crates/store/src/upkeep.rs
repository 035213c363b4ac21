//! The thread that keeps the store from growing: it forgets history and writes snapshots. It must not
//! change an object, nor hold the table's lock for long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use toono_mvcc::Rev;

use crate::StoreConfig;
use crate::disk::Disk;
use crate::journal::{Snapshot, SnapshotError, remove_covered};
use crate::memory::Memory;

/// How often the newest revision is noted down, and so how exactly history's age is kept.
const STEP: Duration = Duration::from_secs(10);

/// Old versions that are forgotten before readers and the writer are let in: well below a millisecond.
const FORGET_AT_ONCE: usize = 512;

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
    history: Duration,
}

impl Load {
    pub(crate) fn new(config: &StoreConfig, snapshot_bytes: u64, journal_bytes: u64) -> Self {
        let load = Self {
            stop: AtomicBool::new(false),
            journal_bytes: AtomicU64::new(journal_bytes),
            snapshot_at: AtomicU64::new(0),
            snapshot_after_bytes: config.snapshot_after_bytes,
            history_bytes: config.history_bytes,
            history: config.history,
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
    /// What was the newest revision at a time, oldest first.
    marks: VecDeque<(Instant, Rev)>,
    no_snapshot_before: Option<Instant>,
}

impl Upkeep {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        memory: Arc<Memory>,
        load: Arc<Load>,
        woken: Receiver<Wake>,
    ) -> Self {
        Self { disk, memory, load, woken, marks: VecDeque::new(), no_snapshot_before: None }
    }

    /// Works until the writer has ended.
    pub(crate) fn run(mut self) {
        loop {
            match self.woken.recv_timeout(STEP) {
                Ok(Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.turn(Instant::now());
        }
    }

    /// Does what is due.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.compact(now);
        self.snapshot(now);
    }

    fn compact(&mut self, now: Instant) {
        let visible = self.memory.visible();
        if self.marks.back().is_none_or(|(at, _)| now.duration_since(*at) >= STEP) {
            self.marks.push_back((now, visible));
        }
        let mut floor = Rev::ZERO;
        let old = |(at, _): &mut (Instant, Rev)| now.duration_since(*at) >= self.load.history;
        while let Some((_, rev)) = self.marks.pop_front_if(old) {
            floor = rev;
        }
        self.forget(floor);
        // Too much of it for its age: halve what is readable until it fits.
        while self.memory.read().history_bytes() > self.load.history_bytes {
            let oldest = self.memory.read().floor();
            if oldest >= visible {
                break;
            }
            self.forget(Rev(oldest.0 + (visible.0 - oldest.0).div_ceil(2)));
        }
    }

    fn forget(&self, floor: Rev) {
        // The table's head is above what is visible, the floor must not be.
        let floor = floor.min(self.memory.visible());
        while self.memory.write().compact(floor, FORGET_AT_ONCE) {}
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
