//! Long lists: how fast they come, whole or in pages.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use memchr::memmem::Finder;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    Failure,
    access::{Access, ask},
    percentiles::Percentiles,
};

/// A collection of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Collection {
    path: &'static str,
    /// How each of its objects begins.
    mark: &'static str,
}

/// All pods.
pub(crate) const PODS: Collection = Collection { path: "/api/v1/pods", mark: "{\"kind\":\"Pod\"," };
/// All nodes.
pub(crate) const NODES: Collection =
    Collection { path: "/api/v1/nodes", mark: "{\"kind\":\"Node\"," };

/// What came of it.
pub(crate) struct Figures {
    what: String,
    pub(crate) bytes: usize,
    /// Unknown where they came compressed.
    pub(crate) objects: Option<usize>,
    pub(crate) elapsed: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let megabytes = self.bytes as f64 / 1e6;
        let (what, seconds) = (&self.what, self.elapsed.as_secs_f64());
        write!(f, "{what}: {megabytes:.1} MB in {seconds:.2} s, {:.0} MB/s", megabytes / seconds)?;
        self.objects.map_or(Ok(()), |objects| write!(f, ", {objects} objects"))
    }
}

/// One request for all. It is read and counted as it comes: the client must not be what holds it all in memory.
pub(crate) async fn whole(
    access: &Access,
    collection: Collection,
    compressed: bool,
) -> Result<Figures, Failure> {
    let mut connection = access.connect().await?;
    let mut request = Request::get(collection.path);
    if compressed {
        request = request.header("accept-encoding", "gzip");
    }
    let began = Instant::now();
    let response = connection.send(request.body(toono_http::empty())?).await?;
    let mut body = response.into_body();
    let (mut bytes, mut objects) = (0, 0);
    let finder = Finder::new(collection.mark);
    // The end of what came before, in which a mark may have begun.
    let mut window = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes += data.len();
            if !compressed {
                window.extend_from_slice(&data);
                objects += finder.find_iter(&window).count();
                window.drain(..window.len().saturating_sub(collection.mark.len() - 1));
            }
        }
    }
    Ok(Figures {
        what: if compressed { "list, gzip" } else { "list" }.to_owned(),
        bytes,
        objects: (!compressed).then_some(objects),
        elapsed: began.elapsed(),
    })
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMeta,
    items: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct PageMeta {
    #[serde(default)]
    r#continue: String,
}

/// Page by page, one after the other, each taken apart as a client does.
pub(crate) async fn paged(
    access: &Access,
    collection: Collection,
    limit: usize,
) -> Result<(Figures, Percentiles), Failure> {
    let mut connection = access.connect().await?;
    let (began, mut pages) = (Instant::now(), Vec::new());
    let (mut bytes, mut objects, mut more) = (0, 0, String::new());
    loop {
        // The token's letters need no escapes in a query.
        let path = format!("{}?limit={limit}&continue={more}", collection.path);
        let asked = Instant::now();
        let (status, body) = ask(&mut connection, Method::GET, &path, Bytes::new()).await?;
        if !status.is_success() {
            return Err(format!("{path} answered {status}").into());
        }
        let page: Page = serde_json::from_slice(&body)?;
        pages.push(asked.elapsed());
        bytes += body.len();
        objects += page.items.len();
        more = page.metadata.r#continue;
        if more.is_empty() {
            break;
        }
    }
    let (what, elapsed) = (format!("list in pages of {limit}"), began.elapsed());
    let figures = Figures { what, bytes, objects: Some(objects), elapsed };
    Ok((figures, Percentiles::of(pages)))
}
