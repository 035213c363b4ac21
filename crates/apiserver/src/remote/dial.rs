//! A connection to a port of a pod, through the node's link, as a byte stream of this process: what
//! proxies and webhooks speak HTTP over. It dials no address.

use http::Method;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    task::JoinSet,
};
use toono_api::ApiError;
use toono_http::Body;
use toono_wire::remote::{self, Frame, FrameReader};

use super::{
    Context, READ_CHUNK,
    node::{self, Up, Uplink},
    pod::Pod,
};

/// Bytes that one side may be ahead of the other, each way.
const AHEAD_BYTES: usize = 64 * 1024;

/// Connects to a port of a pod.
///
/// # Errors
/// When the pod is on no node, or its node does not let us in.
pub(crate) async fn dial(
    context: &Context,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<DuplexStream, ApiError> {
    let found = (context.pods)(namespace, pod).ok_or_else(|| ApiError::NotFound {
        resource: toono_api::GroupResource { group: String::new(), resource: "pods".to_owned() },
        name: pod.to_owned(),
    })?;
    let node = Pod::parse(&found)?.require_node()?.to_owned();
    let (uplink, body) = node::uplink();
    let path = format!("/portForward/{namespace}/{pod}?port={port}");
    let request = node::request(Method::POST, &node, &path, body)?;
    let response = node::send(context.link.as_ref(), &node, request).await?;
    let (ours, theirs) = tokio::io::duplex(AHEAD_BYTES);
    tokio::spawn(copy(theirs, uplink, response.into_body()));
    Ok(ours)
}

/// Copies both ways until both have ended, or one has failed.
async fn copy(stream: DuplexStream, uplink: Uplink, body: Body) {
    let (read, write) = tokio::io::split(stream);
    let mut ways = JoinSet::new();
    ways.spawn(up(read, uplink));
    ways.spawn(down(write, body));
    while let Some(way) = ways.join_next().await {
        if !way.unwrap_or(false) {
            // Dropping the other half is what its peer notices.
            ways.abort_all();
        }
    }
}

/// Whether it came to a regular end.
async fn up(mut stream: ReadHalf<DuplexStream>, uplink: Uplink) -> bool {
    let mut chunk = vec![0; READ_CHUNK];
    loop {
        let Ok(read) = stream.read(&mut chunk).await else { return false };
        let Some(bytes) = chunk.get(..read) else { return false };
        let frame = if bytes.is_empty() {
            Frame::encode(remote::CLOSE, &[remote::STDIN])
        } else {
            Frame::encode(remote::STDIN, bytes)
        };
        if uplink.send(Up::Frames(frame)).await.is_err() {
            return false;
        }
        if read == 0 {
            return uplink.send(Up::End).await.is_ok();
        }
    }
}

async fn down(mut stream: WriteHalf<DuplexStream>, mut body: Body) -> bool {
    let mut reader = FrameReader::default();
    while let Some(Ok(part)) = body.frame().await {
        let Ok(data) = part.into_data() else { continue };
        reader.push(&data);
        loop {
            match reader.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) if frame.channel == remote::STDOUT => {
                    if stream.write_all(&frame.payload).await.is_err() {
                        return false;
                    }
                }
                Ok(Some(frame)) if frame.channel == remote::ERROR => {
                    let why = node::failure_text(&frame.payload);
                    tracing::debug!(?why, "a node ended a connection to a pod");
                    return false;
                }
                Ok(Some(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "a node sent what is no frame");
                    return false;
                }
            }
        }
    }
    stream.shutdown().await.is_ok()
}
