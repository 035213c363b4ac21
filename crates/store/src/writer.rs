//! The one thread that changes the table: it takes transactions in the order of their arrival,
//! decides on them, and acknowledges what the journal made durable. It must not do anything else that
//! takes time.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};
use toono_mvcc::{Applied, Event, Rev, Txn};

use crate::journal::{FrameBuilder, Journal};
use crate::memory::Memory;
use crate::upkeep::{Load, Wake};
use crate::{CommitError, Committed, Poisoned};

/// Transactions that wait for the writer; more wait in their callers. At 20,000 commits a second
/// this is a fifth of a second.
pub(crate) const QUEUE: usize = 4096;

/// A batch is closed when its frame has this many bytes, so that a burst of large objects does not
/// make the first of them wait for the write of all.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A batch is closed at this many transactions, for the same reason.
const BATCH_TXNS: usize = 4096;

/// The frame's buffer does not shrink below this between batches.
const KEEP_BUFFER_BYTES: usize = 1024 * 1024;

/// A transaction on its way.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) txn: Txn,
    pub(crate) answer: oneshot::Sender<Result<Committed, CommitError>>,
}

/// The writer's state, moved into its thread.
pub(crate) struct Writer {
    memory: Arc<Memory>,
    journal: Journal,
    queue: mpsc::Receiver<Request>,
    load: Arc<Load>,
    wake: SyncSender<Wake>,
    frame: FrameBuilder,
    /// Why there are no more writes; shared with the store's handles.
    poisoned: Arc<OnceLock<Poisoned>>,
}

/// Transactions that become durable together.
struct Batch {
    decided: Vec<Decided>,
    /// The first revision that is not durable yet.
    first: Rev,
}

/// A transaction that was decided on and not answered yet.
struct Decided {
    answer: oneshot::Sender<Result<Committed, CommitError>>,
    outcome: Result<Applied, CommitError>,
}

impl Writer {
    pub(crate) fn new(
        memory: Arc<Memory>,
        journal: Journal,
        queue: mpsc::Receiver<Request>,
        load: Arc<Load>,
        wake: SyncSender<Wake>,
        poisoned: Arc<OnceLock<Poisoned>>,
    ) -> Self {
        Self { memory, journal, queue, load, wake, frame: FrameBuilder::new(), poisoned }
    }

    /// Works until every [`Store`](crate::Store) is gone.
    pub(crate) fn run(mut self) {
        while let Some(request) = self.queue.blocking_recv() {
            self.turn(request);
        }
    }

    /// One batch: this transaction and those that wait behind it.
    pub(crate) fn turn(&mut self, request: Request) {
        let batch = self.collect(request);
        self.settle(batch);
    }

    /// Decides on what waits already. Nothing is waited for: while this batch is being written, the
    /// next one gathers in the queue.
    fn collect(&mut self, request: Request) -> Batch {
        let mut batch = Batch { decided: Vec::new(), first: self.memory.visible().next() };
        let mut next = Some(request);
        while let Some(Request { txn, answer }) = next {
            let outcome = self.decide(txn);
            batch.decided.push(Decided { answer, outcome });
            if self.frame.len() >= BATCH_BYTES || batch.decided.len() >= BATCH_TXNS {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        batch
    }

    fn decide(&mut self, txn: Txn) -> Result<Applied, CommitError> {
        if let Some(poisoned) = self.poisoned.get() {
            return Err(poisoned.clone().into());
        }
        // One transaction at a time under the lock: readers need not wait for a whole batch.
        let applied = self.memory.write().apply(txn)?;
        for event in &applied.events {
            self.frame.push_event(event);
        }
        Ok(applied)
    }

    /// Writes the batch, shows it, and answers. Refusals too are answered only now: they may be due
    /// to a transaction of this very batch.
    fn settle(&mut self, batch: Batch) {
        let written = self.write(batch.first);
        if let Err(failure) = &written
            && failure.is_full()
            && self.take_back(&batch)
        {
            tracing::warn!(path = %failure.path.display(), "the disk is full; writes are refused");
            for Decided { answer, .. } in batch.decided {
                let full = CommitError::Full { path: failure.path.clone() };
                // Who no longer waits does not need it.
                let _ = answer.send(Err(full));
            }
            return;
        }
        if let Err(poisoned) = &written {
            tracing::error!(
                error = poisoned as &dyn std::error::Error,
                "the store takes no more writes"
            );
            // The first failure is the cause; after it there are no writes that could fail.
            let _ = self.poisoned.set(poisoned.clone());
        } else {
            self.publish(&batch);
        }
        for Decided { answer, outcome } in batch.decided {
            let answered = match (&written, outcome) {
                (Err(poisoned), _) => Err(poisoned.clone().into()),
                (Ok(_), Ok(applied)) => Ok(committed(&applied)),
                (Ok(_), Err(error)) => Err(error),
            };
            // Who no longer waits has given up on the answer, not on the commit.
            let _ = answer.send(answered);
        }
    }

    /// Makes journal and table what they were before a batch that had no room. This is safe as long as the
    /// journal lets itself be cut, durably, to where every sync had succeeded; after any other failure
    /// than a lack of room nobody can say what the disk has, and the store stays closed to writes.
    fn take_back(&mut self, batch: &Batch) -> bool {
        if let Err(error) = self.journal.heal() {
            tracing::error!(%error, "cannot cut off what a full disk took of a write");
            return false;
        }
        let applied = batch.decided.iter().filter_map(|decided| decided.outcome.as_ref().ok());
        let events: Vec<Arc<Event>> =
            applied.flat_map(|applied| applied.events.iter()).cloned().collect();
        self.memory.write().take_back(self.memory.visible(), &events);
        true
    }

    fn write(&mut self, first: Rev) -> Result<(), Poisoned> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let last = self.memory.read().head();
        let frame = self.frame.finish_commits(first, last);
        let bytes = frame.len() as u64;
        let written = self.journal.append(frame, first);
        self.frame.clear(KEEP_BUFFER_BYTES);
        if written.is_ok() {
            self.load.journal_grew(bytes);
        }
        written
    }

    fn publish(&self, batch: &Batch) {
        let applied = batch.decided.iter().filter_map(|decided| decided.outcome.as_ref().ok());
        let Some(last) = applied.clone().next_back() else { return };
        let events = applied.flat_map(|applied| applied.events.iter());
        self.memory.publish(last.rev, events.map(|event: &Arc<Event>| event.entry.key.resource()));
        if self.load.wants_upkeep(self.memory.read().history_bytes()) {
            // Full means that a wake-up is on its way already.
            let _ = self.wake.try_send(Wake);
        }
    }
}

fn committed(applied: &Applied) -> Committed {
    Committed {
        rev: applied.rev,
        entries: applied.events.iter().map(|event| event.entry.clone()).collect(),
    }
}
