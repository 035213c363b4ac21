//! Watches: what there is, then what changes, as it becomes known here.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use toono_api::{ApiError, meta::text_at};
use toono_http::Body;

use super::{
    asked::Resource,
    fields::set,
    held::{Held, Kind, Seen},
    selected::Selected,
};
use crate::kubelet::query::Query;

/// How long a watch lasts when the client does not say: Kubernetes' own servers end them after 30 to 60 minutes.
const LASTS: Duration = Duration::from_secs(30 * 60);
/// A change waits for others: a pod that starts changes several times at once.
const COALESCE: Duration = Duration::from_millis(100);
/// Says that what there is has been told.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// One watch.
struct Watching {
    held: Arc<Held>,
    kind: &'static Kind,
    namespace: String,
    selected: Selected,
    seen: Seen,
    /// What the client knows, by namespace and name.
    known: BTreeMap<(String, String), Value>,
    queue: VecDeque<Bytes>,
    until: Instant,
    /// The client takes bookmarks.
    bookmarks: bool,
    is_over: bool,
}

/// Begins a watch.
///
/// # Errors
/// 410 for a revision that is not of this node's answers since the agent started.
pub(super) fn answer(
    held: Arc<Held>,
    kind: &'static Kind,
    resource: &Resource,
    query: &Query,
    selected: Selected,
) -> Result<Response<Body>, ApiError> {
    let since = query.first("resourceVersion").filter(|it| *it != "0");
    if let Some(since) = since.filter(|since| !held.is_own(since)) {
        let number = since
            .parse()
            .map_err(|_| ApiError::BadRequest(format!("invalid resource version {since:?}")))?;
        return Err(ApiError::too_old(number, held.revision().parse().unwrap_or(u64::MAX)));
    }
    let lasts = query.number::<u32>("timeoutSeconds").map_err(ApiError::BadRequest)?;
    let lasts = lasts.map_or(LASTS, |seconds| Duration::from_secs(seconds.into()));
    let mut watching = Watching {
        seen: held.seen(),
        kind,
        namespace: resource.namespace.clone(),
        selected,
        known: BTreeMap::new(),
        queue: VecDeque::new(),
        until: Instant::now() + lasts,
        bookmarks: query.flag(&["allowWatchBookmarks"]),
        is_over: false,
        held,
    };
    // What a client that lists first has seen since is not known any more, so it is told all again.
    let is_resumed = since.is_some() && !query.flag(&["sendInitialEvents"]);
    watching.look(if is_resumed { "MODIFIED" } else { "ADDED" })?;
    if query.flag(&["sendInitialEvents"]) {
        let bookmark = watching.bookmark(Some(INITIAL_END));
        watching.queue.push_back(bookmark);
    }
    let body = stream::unfold(watching, |mut watching| async move {
        let chunk = watching.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watching))
    });
    let mut response = Response::new(toono_http::stream(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

impl Watching {
    /// The next event; none when it is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            let changed = timeout_at(self.until, self.held.changed(&mut self.seen)).await;
            if changed.is_err() {
                self.is_over = true;
                if self.bookmarks {
                    let bookmark = self.bookmark(None);
                    self.queue.push_back(bookmark);
                }
                continue;
            }
            sleep(COALESCE).await;
            if let Err(error) = self.look("ADDED") {
                self.is_over = true;
                self.queue.push_back(event("ERROR", &error.to_status()));
            }
        }
    }

    /// Compares what there is with what the client knows, and queues what differs.
    fn look(&mut self, new: &str) -> Result<(), ApiError> {
        let mut there = BTreeMap::new();
        for object in self.held.list(self.kind, &self.namespace)? {
            if self.selected.matches(&object) {
                let text = |field: &str| {
                    text_at(&object, &["metadata", field]).unwrap_or_default().to_owned()
                };
                there.insert((text("namespace"), text("name")), object);
            }
        }
        for (key, old) in self.known.iter().filter(|(key, _)| !there.contains_key(*key)) {
            tracing::trace!(?key, "gone");
            self.queue.push_back(event("DELETED", old));
        }
        for (key, object) in &there {
            match self.known.get(key) {
                None => self.queue.push_back(event(new, object)),
                Some(old) if old != object => self.queue.push_back(event("MODIFIED", object)),
                Some(_) => {}
            }
        }
        self.known = there;
        Ok(())
    }

    fn bookmark(&self, annotation: Option<&str>) -> Bytes {
        let mut metadata = json!({"resourceVersion": self.held.revision()});
        if let Some(annotation) = annotation {
            set(&mut metadata, &["annotations"], json!({annotation: "true"}));
        }
        let (kind, version) = (self.kind.kind, self.kind.api_version());
        event("BOOKMARK", &json!({"kind": kind, "apiVersion": version, "metadata": metadata}))
    }
}

fn event(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into()
}
