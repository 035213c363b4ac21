//! The table that readers and the writer share, and who is told when it moves. It must not know how,
//! or whether, a revision became durable: it is told which one to show.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;
use toono_mvcc::{Compacted, Entry, Key, Owner, Page, Prefix, Rev, Table};

/// Objects that a list collects before it lets the writer in: some 100 µs.
const LIST_AT_ONCE: usize = 1024;
/// Objects that are counted under one lock: a millisecond.
const COUNT_AT_ONCE: usize = 10_000;

/// The table, the newest revision that readers may see, and one feed per watched resource.
#[derive(Debug)]
pub(crate) struct Memory {
    table: RwLock<Table>,
    visible: AtomicU64,
    /// By `group/plural`, so that a write wakes only those who watch its resource. There are as many
    /// as the API has resources.
    feeds: RwLock<HashMap<Box<str>, watch::Sender<Rev>>>,
    /// The same as `visible`, for those few who wait for it.
    moves: watch::Sender<Rev>,
}

impl Memory {
    /// All of `table` is durable.
    pub(crate) fn new(table: Table) -> Self {
        let head = table.head();
        Self {
            table: RwLock::new(table),
            visible: AtomicU64::new(head.0),
            feeds: RwLock::default(),
            moves: watch::Sender::new(head),
        }
    }

    /// The newest revision that readers may see.
    pub(crate) fn visible(&self) -> Rev {
        Rev(self.visible.load(Ordering::Acquire))
    }

    // A lock is poisoned by a panic of its holder. The writer's panic ends the writer, so that
    // nothing is acknowledged any more; what is visible was complete before.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows everything up to `rev`, which changed these resources.
    pub(crate) fn publish<'a>(&self, rev: Rev, resources: impl IntoIterator<Item = &'a str>) {
        self.visible.store(rev.0, Ordering::Release);
        let resources: BTreeSet<&str> = resources.into_iter().collect();
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        for feed in resources.iter().filter_map(|name| feeds.get(*name)) {
            feed.send_replace(rev);
        }
        drop(feeds);
        self.moves.send_replace(rev);
    }

    /// Puts another table, all of which is durable, in the place of this one. It knows no events of
    /// before, so that every watcher that has not seen all of it has lagged.
    pub(crate) fn replace(&self, table: Table) {
        let head = table.head();
        let mut present = self.write();
        *present = table;
        // While nobody can read: the old revision is not in the new table.
        self.visible.store(head.0, Ordering::Release);
        drop(present);
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        for feed in feeds.values() {
            feed.send_replace(head);
        }
        drop(feeds);
        self.moves.send_replace(head);
    }

    /// Waits until readers see `rev`.
    pub(crate) async fn reached(&self, rev: Rev) {
        let mut moves = self.moves.subscribe();
        // The sender lives in this memory, so this never fails.
        let _ = moves.wait_for(|visible| *visible >= rev).await;
    }

    /// Tells of each published revision that changed the resource.
    pub(crate) fn subscribe(&self, resource: &str) -> watch::Receiver<Rev> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(resource) {
            return feed.subscribe();
        }
        drop(feeds);
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        feeds.entry(resource.into()).or_default().subscribe()
    }

    /// The object at `key` as of `at`; a revision that is not visible yet is read as the newest one.
    pub(crate) fn get(&self, key: &Key, at: Option<Rev>) -> Result<Option<Entry>, Compacted> {
        let table = self.read();
        let visible = self.visible();
        table.get(key, at.map_or(visible, |at| at.min(visible)))
    }

    /// How many objects come after a key. None of them is read.
    pub(crate) fn count(
        &self,
        prefix: &Prefix,
        at: Rev,
        after: Option<&Key>,
    ) -> Result<usize, Compacted> {
        let at = at.min(self.visible());
        let (mut count, mut after) = (0, after.cloned());
        loop {
            let counted = self.read().count(prefix, at, after.as_ref(), COUNT_AT_ONCE)?;
            count += counted.objects;
            match counted.last {
                Some(last) => after = Some(last),
                None => return Ok(count),
            }
        }
    }

    /// As [`Table::list`], or [`Table::list_owned`] if an owner is given, letting the writer in between.
    pub(crate) fn list(
        &self,
        prefix: &Prefix,
        owner: Option<&Owner>,
        at: Rev,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, Compacted> {
        let at = at.min(self.visible());
        let mut page: Page = Page::default();
        loop {
            let room = limit.saturating_sub(page.entries.len());
            let after = page.entries.last().map(|entry| &entry.key).or(after);
            let most = room.min(LIST_AT_ONCE);
            let part = match owner {
                None => self.read().list(prefix, at, after, most),
                Some(owner) => self.read().list_owned(prefix, owner, at, after, most),
            }?;
            // Unpacked while nobody waits for the lock.
            let part = Page::from(part);
            let done = !part.more || part.entries.len() >= room;
            page.more = part.more;
            page.entries.extend(part.entries);
            if done {
                return Ok(page);
            }
        }
    }
}
