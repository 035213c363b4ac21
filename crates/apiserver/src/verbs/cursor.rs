//! The objects of a collection at one revision, read as they are needed. It keeps a page in memory,
//! not the collection: what it has not reached yet stays in the store, which remembers old revisions
//! for some minutes.

use std::{sync::Arc, vec};

use toono_api::Resource;
use toono_mvcc::{Compacted, Entry, Key, Owner, Prefix, Rev};

use crate::{limits, liveness, query::Filter, server::ApiServer};

/// Which objects are asked for, at which revision.
pub(super) struct Selection {
    pub(super) resource: Arc<Resource>,
    pub(super) prefix: Prefix,
    pub(super) filter: Filter,
    pub(super) rev: Rev,
    /// Whose objects alone; everyone's when there is none.
    pub(super) owner: Option<Owner>,
    pub(super) shows: Shows,
}

/// What is shown that is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    Nothing,
    /// When nodes were last heard.
    Heartbeats,
    /// When Leases were renewed.
    Renewals,
    /// That, and Leases that nodes' sessions keep.
    SessionLeases,
}

/// A position among them.
pub(super) struct Cursor {
    server: ApiServer,
    selection: Selection,
    page: vec::IntoIter<Entry>,
    /// The last object of the page.
    last: Option<Key>,
    more: bool,
}

impl Cursor {
    /// Before the first object after the key `after`, or before the first of all. Reads a page of at
    /// most `first` objects.
    pub(super) fn new(
        server: &ApiServer,
        selection: Selection,
        after: Option<Key>,
        first: usize,
    ) -> Result<Self, Compacted> {
        let page = Vec::new().into_iter();
        let server = server.clone();
        let mut cursor = Self { server, selection, page, last: after, more: true };
        cursor.turn_page(first.clamp(1, limits::LIST_CHUNK))?;
        Ok(cursor)
    }

    /// The next matching object.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Compacted> {
        loop {
            let Selection { resource, filter, .. } = &self.selection;
            let matching =
                |entry: &Entry| filter.is_everything() || filter.matches(resource, entry);
            if let Some(entry) = self.page.by_ref().find(matching) {
                return Ok(Some(entry));
            }
            if !self.more {
                return Ok(None);
            }
            self.turn_page(limits::LIST_CHUNK)?;
        }
    }

    /// Whether the whole rest is in memory.
    pub(super) fn is_at_last_page(&self) -> bool {
        !self.more
    }

    fn turn_page(&mut self, most: usize) -> Result<(), Compacted> {
        let Selection { prefix, rev, owner, shows, .. } = &self.selection;
        let (after, store) = (self.last.as_ref(), &self.server.inner.store);
        let mut page = match owner {
            None => store.list(prefix, *rev, after, most)?,
            Some(owner) => store.list_owned(prefix, owner, *rev, after, most)?,
        };
        match shows {
            Shows::Nothing => {}
            Shows::Heartbeats => liveness::freshen(&self.server, &mut page.entries),
            Shows::Renewals => self.server.inner.lives.show_renewed(&mut page.entries),
            Shows::SessionLeases => {
                self.server.inner.lives.show_renewed(&mut page.entries);
                liveness::add_to(&mut page, &self.server, *rev, after, most)?;
            }
        }
        self.more = page.more;
        if let Some(last) = page.entries.last() {
            self.last = Some(last.key.clone());
        }
        self.page = page.entries.into_iter();
        Ok(())
    }
}
