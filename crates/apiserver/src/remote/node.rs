//! One request to a node: its head, its streaming bodies, and what its refusals mean.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use toono_api::ApiError;
use toono_http::Body;
use toono_wire::remote::{Frame, FrameReader};

use super::link::{LinkError, NodeLink};

/// How long a node may take to answer with a response's head, the dial-back included. Kubernetes
/// gives a kubelet as long to open a stream.
pub const NODE_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a node's refusal is read.
pub const MAX_NODE_ERROR: usize = 16 * 1024;
/// How many chunks (of at most about 64 KiB) may wait for a node to take them, per stream. Enough
/// to keep a link busy; beyond it, the client waits.
pub const UPLINK_QUEUE: usize = 4;

/// Something for the request's body.
#[derive(Debug)]
pub(super) enum Up {
    /// Whole frames.
    Frames(Bytes),
    /// The body's regular end.
    End,
}

/// The sending half of a request's body. Dropped without [`Up::End`], it resets the stream.
pub(super) type Uplink = mpsc::Sender<Up>;

#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
struct ClientGone;

/// A request body that is sent piece by piece.
pub(super) fn uplink() -> (Uplink, Body) {
    let (sender, receiver) = mpsc::channel(UPLINK_QUEUE);
    let pieces = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Up::Frames(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Up::End) => None,
            None => Some((Err(ClientGone), None)),
        }
    });
    (sender, toono_http::stream(pieces))
}

/// A request for a node. Its authority is the node's name, which the link may ignore.
pub(crate) fn request(
    method: Method,
    node: &str,
    path_and_query: &str,
    body: Body,
) -> Result<Request<Body>, ApiError> {
    let uri = Uri::builder().scheme("https").authority(node).path_and_query(path_and_query).build();
    let uri =
        uri.map_err(|error| ApiError::BadRequest(format!("the request is too odd: {error}")))?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    Ok(request)
}

/// Sends a request and returns the response if it is a success.
pub(super) async fn send(
    link: &dyn NodeLink,
    node: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let answer = tokio::time::timeout(NODE_ANSWER_TIMEOUT, link.send(node, request)).await;
    let no_answer = || LinkError::NoAnswer { node: node.to_owned(), waited: NODE_ANSWER_TIMEOUT };
    let response = answer.unwrap_or_else(|_| Err(no_answer())).map_err(|error| {
        if let LinkError::Broken { source, .. } = &error {
            tracing::info!(node, source, "the connection to a node broke");
        }
        ApiError::from(&error)
    })?;
    if response.status().is_success() { Ok(response) } else { Err(refusal(node, response).await) }
}

/// What a node's refusal is to the client: the same kind of error, with the node's own words.
async fn refusal(node: &str, response: Response<Body>) -> ApiError {
    let status = response.status();
    let read = tokio::time::timeout(NODE_ANSWER_TIMEOUT, read_some(response.into_body())).await;
    let bytes = read.unwrap_or_default();
    let words = failure_text(&bytes).unwrap_or_else(|| format!("node {node} answered {status}"));
    match status {
        StatusCode::SERVICE_UNAVAILABLE => ApiError::Unavailable(words),
        StatusCode::GATEWAY_TIMEOUT => ApiError::Timeout(words),
        StatusCode::TOO_MANY_REQUESTS => {
            ApiError::TooManyRequests { message: words, retry_after_seconds: 1 }
        }
        other if other.is_client_error() => ApiError::BadRequest(words),
        _ => ApiError::Internal(words),
    }
}

/// A body's first [`MAX_NODE_ERROR`] bytes, or those before it breaks.
async fn read_some(mut body: Body) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(Ok(part)) = body.frame().await {
        let Ok(data) = part.into_data() else { continue };
        let room = MAX_NODE_ERROR - read.len();
        read.extend_from_slice(data.get(..room).unwrap_or(&data));
        if read.len() == MAX_NODE_ERROR {
            break;
        }
    }
    read
}

/// The message of a failure that is either a `v1.Status` or plain text; none for a success or for
/// no text at all.
pub(super) fn failure_text(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Status {
        status: String,
        #[serde(default)]
        message: String,
    }
    if let Ok(status) = serde_json::from_slice::<Status>(bytes) {
        return (status.status != "Success").then_some(status.message);
    }
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// What comes down from a node, marked with the stream that it is on.
#[derive(Debug)]
pub(super) struct Down {
    /// Which of the session's node streams.
    pub(super) key: u64,
    /// What.
    pub(super) what: DownKind,
}

#[derive(Debug)]
pub(super) enum DownKind {
    Frame(Frame),
    /// Nothing more comes; with an error, not as it should be.
    Ended(Result<(), String>),
}

/// Reads a response's frames until its end and tells it. Waits wherever `to` is full.
pub(super) async fn read_frames(key: u64, body: Body, to: mpsc::Sender<Down>) {
    let ended = forward_frames(key, body, &to).await;
    // A session that is over needs no telling.
    let _ = to.send(Down { key, what: DownKind::Ended(ended) }).await;
}

async fn forward_frames(key: u64, mut body: Body, to: &mpsc::Sender<Down>) -> Result<(), String> {
    let mut reader = FrameReader::default();
    while let Some(part) = body.frame().await {
        let part = part.map_err(|error| error.to_string())?;
        let Ok(data) = part.into_data() else { continue };
        reader.push(&data);
        while let Some(frame) = reader.next_frame().map_err(|error| error.to_string())? {
            if to.send(Down { key, what: DownKind::Frame(frame) }).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_uplink_ends_regularly_or_with_an_error() {
        let (sender, body) = uplink();
        sender.send(Up::Frames(Bytes::from_static(b"x"))).await.unwrap();
        sender.send(Up::End).await.unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "x");

        let (sender, body) = uplink();
        drop(sender);
        assert_eq!(body.collect().await.unwrap_err().to_string(), "the client is gone");
    }

    #[test]
    fn failures_are_told_in_the_nodes_words() {
        let status = br#"{"kind":"Status","status":"Failure","message":"no such container"}"#;
        assert_eq!(failure_text(status).as_deref(), Some("no such container"));
        assert_eq!(failure_text(br#"{"status":"Success"}"#), None);
        assert_eq!(failure_text(b" refused\n").as_deref(), Some("refused"));
        assert_eq!(failure_text(b""), None);
    }
}
