//! `watch`: every change of a collection, in order, as a stream of JSON documents.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};
use toono_api::{ApiError, Resource};
use toono_http::Body;
use toono_mvcc::{Entry, Event, EventKind, Rev};
use toono_store::{WatchItem, Watcher};

use super::{
    Call,
    cursor::{Cursor, Shows},
    list::too_large,
    list_options,
};
use crate::{
    custom::Tenure,
    encode, limits,
    liveness::{Joined, SessionLeases},
    query::Filter,
    represent::{Form, bookmark},
    server::expired,
};

impl Call<'_> {
    pub(crate) fn watch(&self) -> Result<Response<Body>, ApiError> {
        let form = self.form()?;
        let filter = self.query.filter(self.resource())?;
        let slot = self.server.inner.watches.clone().try_acquire_owned().map_err(|_| {
            ApiError::TooManyRequests {
                message: "too many watches are open".to_owned(),
                retry_after_seconds: 1,
            }
        })?;
        let start = self.start()?;
        let mut stream = Stream {
            resource: Arc::clone(&self.target.resource),
            form,
            filter,
            bookmarks: self.query.flag("allowWatchBookmarks"),
            initial: None,
            sessions: None,
            watcher: None,
            ready: VecDeque::new(),
            ends: Instant::now() + self.watch_timeout()?,
            next_bookmark: Instant::now() + limits::BOOKMARK_INTERVAL,
            columns_sent: false,
            tenure: Tenure::of(self.server, &self.target.resource),
            sent: self.server.inner.metrics.watch_events(self.resource()),
            server_ends: self.server.inner.ends.subscribe(),
            _slot: slot,
        };
        let since = match start {
            Start::After(rev) => rev,
            Start::WithState { announce_end } => {
                let rev = self.server.revision();
                let selection = self.selection(rev)?;
                let cursor = Cursor::new(self.server, selection, None, limits::LIST_CHUNK);
                let cursor = cursor.map_err(expired)?;
                stream.initial = Some(Initial { cursor, rev, announce_end });
                rev
            }
        };
        let store = &self.server.inner.store;
        let watcher = match (&self.owner, self.shows()) {
            (Some(owner), _) => store.watch_owned(&self.prefix(), owner, since),
            (None, Shows::SessionLeases) => {
                let Joined { prefix, view } = Joined::new(self.server);
                stream.sessions = Some(view);
                store.watch_with(&self.prefix(), &prefix, since)
            }
            (None, _) => store.watch(&self.prefix(), since),
        };
        match watcher {
            Ok(watcher) => stream.watcher = Some(watcher),
            // Clients expect the end of history inside the stream.
            Err(compacted) => stream.ready.push_back(error_event(&expired(compacted))),
        }
        Ok(respond(stream))
    }

    fn start(&self) -> Result<Start, ApiError> {
        let newest = self.server.revision();
        list_options::validate_watch(self.query)?;
        let initial = self.query.text("sendInitialEvents").is_some();
        let asked = self.query.revision()?.unwrap_or(Rev::ZERO);
        if asked > newest {
            return Err(too_large(asked, newest));
        }
        Ok(match (initial, self.query.flag("sendInitialEvents"), asked) {
            (true, true, _) => Start::WithState { announce_end: true },
            (true, false, Rev::ZERO) => Start::After(newest),
            (false, _, Rev::ZERO) => Start::WithState { announce_end: false },
            (_, _, asked) => Start::After(asked),
        })
    }

    fn watch_timeout(&self) -> Result<Duration, ApiError> {
        let asked = self.query.timeout()?.filter(|asked| !asked.is_zero());
        Ok(asked.unwrap_or(limits::WATCH_TIMEOUT).min(limits::WATCH_TIMEOUT_MAX))
    }
}

enum Start {
    /// Changes after a revision.
    After(Rev),
    /// What there is, then changes.
    WithState { announce_end: bool },
}

/// The state at the beginning of the watch, told bit by bit as the client takes it.
struct Initial {
    cursor: Cursor,
    rev: Rev,
    announce_end: bool,
}

struct Stream {
    resource: Arc<Resource>,
    form: Form,
    filter: Filter,
    bookmarks: bool,
    /// What there is, as long as not all of it was told.
    initial: Option<Initial>,
    /// Makes of changes of Nodes what becomes of their Leases, if the watch is of Leases.
    sessions: Option<SessionLeases>,
    /// Gone once the stream is to end.
    watcher: Option<Watcher>,
    /// Encoded documents that were not sent yet: the initial state, or one event.
    ready: VecDeque<Bytes>,
    ends: Instant,
    next_bookmark: Instant,
    columns_sent: bool,
    /// Ends with the kind.
    tenure: Tenure,
    /// Counts the events.
    sent: Counter,
    /// Becomes true when the server is about to end.
    server_ends: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
}

fn respond(stream: Stream) -> Response<Body> {
    let documents = futures::stream::unfold(stream, |mut stream| async move {
        let document = stream.next().await?;
        Some((Ok::<_, Infallible>(document), stream))
    });
    let mut response = Response::new(toono_http::stream(documents));
    *response.status_mut() = StatusCode::OK;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

impl Stream {
    /// The next document; none when the stream ends.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(documents) = self.take_ready() {
                return Some(documents);
            }
            if self.initial.is_some() {
                if let Err(error) = self.tell_initial() {
                    self.fail(&error);
                }
                continue;
            }
            let watcher = self.watcher.as_mut()?;
            let item = tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.ends) => return None,
                () = ended(&mut self.server_ends) => return None,
                item = watcher.next() => item,
                () = self.tenure.ended() => return None,
            };
            let done = match item {
                Ok(WatchItem::Event(event)) => self.take_event(&event),
                Ok(WatchItem::Progress(rev)) => {
                    self.take_progress(rev);
                    Ok(())
                }
                Err(lagged) => Err(ApiError::too_old(lagged.seen.0, lagged.dropped.0)),
            };
            if let Err(error) = done {
                self.fail(&error);
            }
        }
    }

    /// What is ready, in one piece.
    fn take_ready(&mut self) -> Option<Bytes> {
        let first = self.ready.pop_front()?;
        if self.ready.is_empty() {
            return Some(first);
        }
        let mut joined = first.to_vec();
        self.ready.drain(..).for_each(|document| joined.extend_from_slice(&document));
        Some(joined.into())
    }

    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(error_event(error));
        self.initial = None;
        self.watcher = None;
    }

    fn tell_initial(&mut self) -> Result<(), ApiError> {
        let mut bytes = 0;
        while bytes < limits::LIST_CHUNK_BYTES {
            let Some(initial) = &mut self.initial else { return Ok(()) };
            let Some(entry) = initial.cursor.next().map_err(expired)? else { break };
            bytes += entry.value.len();
            self.push("ADDED", &entry.value)?;
        }
        if bytes > 0 {
            return Ok(());
        }
        let Some(initial) = &mut self.initial else { return Ok(()) };
        if initial.announce_end {
            let end = bookmark(self.form, &self.resource, initial.rev, true);
            self.ready.push_back(end.into());
        }
        self.initial = None;
        Ok(())
    }

    fn take_progress(&mut self, rev: Rev) {
        if self.bookmarks && self.next_bookmark <= Instant::now() {
            self.next_bookmark = Instant::now() + limits::BOOKMARK_INTERVAL;
            self.ready.push_back(bookmark(self.form, &self.resource, rev, false).into());
        }
    }

    fn take_event(&mut self, event: &Event) -> Result<(), ApiError> {
        let Some(sessions) = &self.sessions else { return self.take(event) };
        match sessions.seen(event)? {
            Some(seen) => self.take(&seen),
            None => Ok(()),
        }
    }

    /// An object that begins or ceases to match is added or deleted, for this client.
    fn take(&mut self, event: &Event) -> Result<(), ApiError> {
        let now = event.kind == EventKind::Put && self.filter.matches(&self.resource, &event.entry);
        let before = event.prev.as_ref().filter(|prev| self.filter.matches(&self.resource, prev));
        match (before, now) {
            (None, true) => self.push("ADDED", &event.entry.value),
            (Some(_), true) => self.push("MODIFIED", &event.entry.value),
            (Some(_), false) if event.kind == EventKind::Delete => {
                self.push("DELETED", &event.entry.value)
            }
            (Some(prev), false) => {
                let last = resealed(&self.resource, prev, event.rev)?;
                self.push("DELETED", &last)
            }
            (None, false) => Ok(()),
        }
    }

    fn push(&mut self, kind: &str, encoded: &Bytes) -> Result<(), ApiError> {
        let object = self.form.event(&self.resource, encoded, !self.columns_sent)?;
        self.columns_sent = true;
        self.sent.inc();
        let mut document = Vec::with_capacity(object.len() + 40);
        document.extend_from_slice(b"{\"type\":\"");
        document.extend_from_slice(kind.as_bytes());
        document.extend_from_slice(b"\",\"object\":");
        document.extend_from_slice(&object);
        document.extend_from_slice(b"}\n");
        self.ready.push_back(document.into());
        Ok(())
    }
}

/// Completes when the server is about to end.
async fn ended(ends: &mut watch::Receiver<bool>) {
    // The sender lives as long as the server; without it this is an end as well.
    let _ = ends.wait_for(|ends| *ends).await;
}

/// The last state that matched, with the revision at which it ceased to.
fn resealed(resource: &Resource, prev: &Entry, rev: Rev) -> Result<Bytes, ApiError> {
    Ok(encode::draft(resource, &encode::decode(resource, prev)?).seal(rev))
}

fn error_event(error: &ApiError) -> Bytes {
    format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", error.to_status()).into()
}
