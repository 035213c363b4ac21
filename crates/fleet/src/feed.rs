//! Bulk reads of what the fleet follows: all there is, page by page, then every change, for as long as anyone listens.
//!
//! [`WatchFeed`] does it with list and watch requests of a client. A server with its own cache may
//! bring another [`Feed`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use k8s_openapi::Resource as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use toono_openyurt::NodePool;

/// Objects per page of a list: some MB, so that no answer needs much memory at once.
const PAGE: usize = 2_000;
/// Pages and changes that wait for the reader; beyond it nothing more is read.
const QUEUE: usize = 256;
/// After a failed list or watch: the first pause, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One event's line is refused beyond this; the API's own limit of an object is 3 MiB.
const LONGEST_LINE: usize = 8 * 1024 * 1024;

/// One step of a feed.
#[derive(Debug, Clone)]
pub enum Change {
    /// All there is at one revision is told from here on, as [`Change::Page`]s. What an earlier list that
    /// broke off has told is told again.
    List,
    /// Some of it: each object's JSON, as received.
    Page(Vec<Bytes>),
    /// That was all. What was in no page does not exist.
    Listed {
        /// The list's `resourceVersion`.
        revision: u64,
    },
    /// An object was added or changed.
    Put(Bytes),
    /// An object is gone; this is its last state, with the deletion's `resourceVersion`.
    Delete(Bytes),
}

/// Where the fleet reads what it follows. Each stream begins with a [`Change::List`], is ordered and gapless, and
/// begins anew with one after a gap.
pub trait Feed: Send + Sync + 'static {
    /// All Nodes.
    fn nodes(&self) -> BoxStream<'static, Change>;
    /// All Pods.
    fn pods(&self) -> BoxStream<'static, Change>;
    /// All Services.
    fn services(&self) -> BoxStream<'static, Change>;
    /// All EndpointSlices.
    fn endpoint_slices(&self) -> BoxStream<'static, Change>;
    /// All ConfigMaps.
    fn config_maps(&self) -> BoxStream<'static, Change>;
    /// All Secrets.
    fn secrets(&self) -> BoxStream<'static, Change>;
    /// All NodePools. Where the API does not know them there are none.
    fn node_pools(&self) -> BoxStream<'static, Change>;
    /// All of one of the four kinds of `rbac.authorization.k8s.io`, by its plural.
    fn grants(&self, plural: &'static str) -> BoxStream<'static, Change>;
}

/// A feed by list and watch.
#[derive(Clone)]
pub struct WatchFeed {
    client: kube::Client,
}

impl WatchFeed {
    /// Reads through `client`.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    fn follow(&self, path: impl Into<String>) -> BoxStream<'static, Change> {
        let path = path.into();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let client = self.client.clone();
        tokio::spawn(async move {
            let sent = sender.clone();
            tokio::select! {
                () = pump(&client, &path, &sent) => {}
                () = sender.closed() => {}
            }
        });
        stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|change| (change, receiver))
        })
        .boxed()
    }
}

impl Feed for WatchFeed {
    fn nodes(&self) -> BoxStream<'static, Change> {
        self.follow("/api/v1/nodes")
    }

    fn pods(&self) -> BoxStream<'static, Change> {
        self.follow("/api/v1/pods")
    }

    fn services(&self) -> BoxStream<'static, Change> {
        self.follow("/api/v1/services")
    }

    fn endpoint_slices(&self) -> BoxStream<'static, Change> {
        self.follow("/apis/discovery.k8s.io/v1/endpointslices")
    }

    fn config_maps(&self) -> BoxStream<'static, Change> {
        self.follow("/api/v1/configmaps")
    }

    fn secrets(&self) -> BoxStream<'static, Change> {
        self.follow("/api/v1/secrets")
    }

    fn node_pools(&self) -> BoxStream<'static, Change> {
        self.follow(format!("/apis/{}/{}", NodePool::API_VERSION, NodePool::URL_PATH_SEGMENT))
    }

    fn grants(&self, plural: &'static str) -> BoxStream<'static, Change> {
        self.follow(format!("/apis/rbac.authorization.k8s.io/v1/{plural}"))
    }
}

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("the API refuses")]
    Client(#[from] kube::Error),
    #[error("not what a list or watch answers")]
    Decode(#[from] serde_json::Error),
    #[error("a line of over {LONGEST_LINE} bytes")]
    Line,
    #[error("the watch reports code {0}")]
    Watch(u16),
    #[error("no one listens")]
    Closed,
}

/// Lists, watches until it breaks, goes on where it broke, lists again when that is too long ago.
async fn pump(client: &kube::Client, path: &str, changes: &mpsc::Sender<Change>) {
    let mut revision = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let watching = revision.is_some();
        let result = match revision {
            None => list(client, path, changes).await.map(|at| revision = Some(at)),
            Some(ref mut at) => watch(client, path, at, changes).await,
        };
        match result {
            Ok(()) => {
                pause = FIRST_PAUSE;
                // A server that ends every watch at once must not be asked in a tight loop.
                tokio::time::sleep(if watching { FIRST_PAUSE } else { Duration::ZERO }).await;
            }
            Err(FeedError::Closed) => return,
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(path, %error, source, "feed interrupted");
                // Whatever the watch stumbled over, a new list heals it.
                revision = None;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    metadata: PageMeta,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    more: Option<String>,
}

async fn list(
    client: &kube::Client,
    path: &str,
    changes: &mpsc::Sender<Change>,
) -> Result<u64, FeedError> {
    let tell = async |change| changes.send(change).await.map_err(|_| FeedError::Closed);
    tell(Change::List).await?;
    let mut more = String::new();
    loop {
        let mut query = format!("{path}?limit={PAGE}");
        if !more.is_empty() {
            query.push_str("&continue=");
            query.push_str(&percent_encoded(&more));
        }
        let text = client.request_text(request(&query)?).await?;
        let page: Page<'_> = serde_json::from_str(&text)?;
        let object = |item: &&RawValue| Bytes::copy_from_slice(item.get().as_bytes());
        tell(Change::Page(page.items.iter().map(object).collect())).await?;
        match page.metadata.more.filter(|more| !more.is_empty()) {
            Some(next) => more = next,
            None => {
                let revision = page.metadata.resource_version.parse().unwrap_or(0);
                tell(Change::Listed { revision }).await?;
                return Ok(revision);
            }
        }
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Head {
    metadata: HeadMeta,
    code: u16,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta {
    resource_version: String,
}

/// Until the server ends the watch, with `revision` kept at the newest event.
async fn watch(
    client: &kube::Client,
    path: &str,
    revision: &mut u64,
    changes: &mpsc::Sender<Change>,
) -> Result<(), FeedError> {
    let query = format!("{path}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
    let mut request = request(&query)?;
    let identity = http::HeaderValue::from_static("identity");
    request.headers_mut().insert(http::header::ACCEPT_ENCODING, identity);
    let response = client.send(request.map(kube::client::Body::from)).await?;
    let failed = response.status();
    if !failed.is_success() {
        return Err(FeedError::Watch(failed.as_u16()));
    }
    let mut body = response.into_body();
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // Only the new bytes are searched: an event that arrives in many frames stays linear.
        let mut searched = buffer.len();
        buffer.extend_from_slice(&data);
        while let Some(length) =
            buffer.get(searched..).and_then(|new| new.iter().position(|byte| *byte == b'\n'))
        {
            let line = buffer.split_to(searched + length + 1).freeze();
            searched = 0;
            if let Some(change) = event(&line, revision)? {
                changes.send(change).await.map_err(|_| FeedError::Closed)?;
            }
        }
        if buffer.len() > LONGEST_LINE {
            return Err(FeedError::Line);
        }
    }
    Ok(())
}

fn event(line: &[u8], revision: &mut u64) -> Result<Option<Change>, FeedError> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let line: Line<'_> = serde_json::from_slice(line)?;
    let head: Head = serde_json::from_str(line.object.get())?;
    let object = || Bytes::copy_from_slice(line.object.get().as_bytes());
    let change = match line.r#type {
        "ADDED" | "MODIFIED" => Some(Change::Put(object())),
        "DELETED" => Some(Change::Delete(object())),
        "BOOKMARK" => None,
        _ => return Err(FeedError::Watch(head.code)),
    };
    *revision = head.metadata.resource_version.parse().unwrap_or(0).max(*revision);
    Ok(change)
}

fn request(uri: &str) -> Result<http::Request<Vec<u8>>, kube::Error> {
    http::Request::get(uri).body(Vec::new()).map_err(kube::Error::HttpError)
}

/// RFC 3986, everything but the unreserved characters.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
