//! Following the changes of one prefix. It must not hold the table's lock while it waits, nor make
//! anybody wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use toono_mvcc::{Event, Owner, Prefix, Rev};

use crate::memory::Memory;

/// Events that a watcher looks at before it lets the writer in.
const READ_AT_ONCE: usize = 1024;

/// How often a watcher without events is told how far the store has come. The API server sends its
/// clients a bookmark about once a minute; this keeps what those carry fresh.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// An object changed.
    Event(Arc<Event>),
    /// Every event up to this revision was told. Comes once a watcher has caught up, and then from
    /// time to time while other resources move on.
    Progress(Rev),
}

/// The watcher was too slow, and events that it has not seen were dropped. Its client has to list
/// again: HTTP 410, reason `Expired`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the watch fell behind: events after revision {seen} were dropped up to {dropped}")]
pub struct Lagged {
    /// The watcher was told everything up to here.
    pub seen: Rev,
    /// Events up to here are gone.
    pub dropped: Rev,
}

/// Every event of a prefix after a revision, in order and without gaps.
#[derive(Debug)]
pub struct Watcher {
    memory: Arc<Memory>,
    prefix: Prefix,
    owner: Option<Owner>,
    feed: watch::Receiver<Rev>,
    /// Read from the log and not told yet.
    pending: VecDeque<Arc<Event>>,
    /// Every event up to here was read.
    read: Rev,
    /// The last revision that was told, by an event or as progress.
    told: Rev,
    progress_due: Instant,
}

impl Watcher {
    pub(crate) fn new(
        memory: Arc<Memory>,
        prefix: Prefix,
        owner: Option<Owner>,
        since: Rev,
    ) -> Self {
        let feed = memory.subscribe(prefix.resource_name());
        Self {
            memory,
            prefix,
            owner,
            feed,
            pending: VecDeque::new(),
            read: since,
            told: since,
            progress_due: Instant::now(),
        }
    }

    /// Waits for the next item. Dropping the future loses nothing. After [`Lagged`] the watcher is of
    /// no more use.
    ///
    /// Needs a tokio runtime with time.
    pub async fn next(&mut self) -> Result<WatchItem, Lagged> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.told = event.rev;
                return Ok(WatchItem::Event(event));
            }
            // Marked as seen before the log is read: what is published in between wakes us again.
            self.feed.borrow_and_update();
            let visible = self.memory.visible();
            self.read_events(visible)?;
            if !self.pending.is_empty() {
                continue;
            }
            if self.read < visible {
                // Many events of other namespaces; let others run between two looks at them.
                tokio::task::yield_now().await;
                continue;
            }
            if self.told < self.read && self.progress_due <= Instant::now() {
                self.told = self.read;
                self.progress_due = Instant::now() + PROGRESS_INTERVAL;
                return Ok(WatchItem::Progress(self.read));
            }
            self.wait().await;
        }
    }

    fn read_events(&mut self, visible: Rev) -> Result<(), Lagged> {
        let Self { prefix, owner, .. } = self;
        let read =
            self.memory.read().events(prefix, owner.as_ref(), self.read, visible, READ_AT_ONCE);
        let events =
            read.map_err(|compacted| Lagged { seen: self.read, dropped: compacted.oldest })?;
        self.read = events.through;
        self.pending.extend(events.events);
        Ok(())
    }

    /// Until the resource changed, or it is time to look how far the store has come.
    async fn wait(&mut self) {
        let now = Instant::now();
        if self.progress_due <= now {
            self.progress_due = now + PROGRESS_INTERVAL;
        }
        tokio::select! {
            // The feeds live in the memory that this watcher holds, so this never fails.
            _ = self.feed.changed() => {}
            () = tokio::time::sleep_until(self.progress_due) => {}
        }
    }
}
