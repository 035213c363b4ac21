//! Following the changes of one prefix, or of two as one. It must not hold the table's lock while it waits, nor make
//! anybody wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use toono_mvcc::{Compacted, Event, Logged, Owner, Prefix, Rev};

use crate::memory::Memory;

/// Events that a watcher looks at before it lets the writer in, and holds then.
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

/// What is followed, and what tells that it moved.
#[derive(Debug)]
struct Source {
    prefix: Prefix,
    feed: watch::Receiver<Rev>,
}

impl Source {
    fn new(memory: &Memory, prefix: Prefix) -> Self {
        let feed = memory.subscribe(prefix.resource_name());
        Self { prefix, feed }
    }
}

/// Every event of a prefix after a revision, in order and without gaps.
#[derive(Debug)]
pub struct Watcher {
    memory: Arc<Memory>,
    source: Source,
    /// Another prefix, whose events come in between, in the one order of revisions.
    also: Option<Source>,
    owner: Option<Owner>,
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
        let source = Source::new(&memory, prefix);
        Self {
            memory,
            source,
            also: None,
            owner,
            pending: VecDeque::new(),
            read: since,
            told: since,
            progress_due: Instant::now(),
        }
    }

    /// The same, with the events of another resource in between.
    pub(crate) fn with(self, prefix: Prefix) -> Self {
        let also = Some(Source::new(&self.memory, prefix));
        Self { also, ..self }
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
            self.source.feed.borrow_and_update();
            self.also.iter_mut().for_each(|also| drop(also.feed.borrow_and_update()));
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
        let lagged = |compacted: Compacted| Lagged { seen: self.read, dropped: compacted.oldest };
        let owner = self.owner.as_ref();
        let table = self.memory.read();
        let read = |source: &Source, through| {
            table.events(&source.prefix, owner, self.read, through, READ_AT_ONCE)
        };
        let found = read(&self.source, visible).map_err(lagged)?;
        // Both are read as far as both got; what one has beyond that is read again.
        let others = self.also.as_ref().map(|also| read(also, found.through)).transpose();
        let others = others.map_err(lagged)?;
        drop(table);
        self.read = others.as_ref().map_or(found.through, |others| others.through);
        // Unpacked when the writer is let in again.
        let whole = |events: Vec<Logged>| events.into_iter().map(Arc::<Event>::from);
        match others {
            None => self.pending.extend(whole(found.events)),
            Some(others) => {
                let mut both: Vec<_> = whole(found.events).chain(whole(others.events)).collect();
                both.retain(|event| event.rev <= self.read);
                both.sort_by_key(|event| event.rev);
                self.pending.extend(both);
            }
        }
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
            _ = self.source.feed.changed() => {}
            () = moved(self.also.as_mut()) => {}
            () = tokio::time::sleep_until(self.progress_due) => {}
        }
    }
}

/// Until the other resource changed, if there is one.
async fn moved(source: Option<&mut Source>) {
    match source {
        // As above, this never fails.
        Some(source) => drop(source.feed.changed().await),
        None => std::future::pending().await,
    }
}
