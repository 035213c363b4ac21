//! Both directions of a stream request: frames from its body, frames into its response.

use bytes::Bytes;
use futures::stream;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use toono_http::Body;
use toono_wire::remote::{self, Frame, FrameReader};

/// Frames that wait for the peer to take them. Beyond, the process that writes them waits.
const QUEUE: usize = 8;
/// How much is read from a process at once.
pub(super) const CHUNK: usize = 16 * 1024;

/// Sends frames to the client; every send fails once it has gone.
#[derive(Debug, Clone)]
pub(super) struct FrameSender(mpsc::Sender<Bytes>);

impl FrameSender {
    /// A response whose body are the frames sent.
    pub(super) fn response() -> (Self, Response<Body>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let chunks = stream::unfold(receiver, |mut receiver| async move {
            let frame = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(frame), receiver))
        });
        (Self(sender), Response::new(toono_http::stream(chunks)))
    }

    /// Sends bytes on a channel; false once the client has gone.
    pub(super) async fn send(&self, channel: u8, bytes: &[u8]) -> bool {
        self.0.send(Frame::encode(channel, bytes)).await.is_ok()
    }

    /// Sends the last frame: how it went.
    pub(super) async fn finish(&self, status: Value) {
        let _ = self.send(remote::ERROR, status.to_string().as_bytes()).await;
    }

    /// Completes when the client has gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

/// Reads frames from the client.
#[derive(Debug)]
pub(super) struct FrameSource {
    body: Incoming,
    reader: FrameReader,
}

impl FrameSource {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, reader: FrameReader::default() }
    }

    /// The next frame; none when the client has ended its side or does not speak the protocol.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.reader.next_frame() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "a stream is not in frames");
                    return None;
                }
            }
            if let Ok(data) = self.body.frame().await?.ok()?.into_data() {
                self.reader.push(&data);
            }
        }
    }
}

/// The `v1.Status` of a command that ended with this code.
pub(super) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    let message = format!("command terminated with non-zero exit code: exit status {code}");
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": message,
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The `v1.Status` of a stream that failed.
pub(super) fn failure(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500,
    })
}
