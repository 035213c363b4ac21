//! gRPC over one HTTP/2 connection to one of etcd's members: calls with one answer, and the stream of a
//! watch. It must not repeat a call that may have had an effect.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use toono_http::Body;
use toono_http::client::Endpoint;
use toono_http::http2::{Connection, SendError};

/// A member that does not even take a connection within this time is passed over for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two attempts to reach any member.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The longest message that is believed. A page of a snapshot is the largest there is.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024 * 1024;

/// gRPC's frame: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;

/// The codes of gRPC that the engine tells apart.
const INVALID_ARGUMENT: u32 = 3;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const OUT_OF_RANGE: u32 = 11;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// etcd has no answer, or one that is an error.
#[derive(Clone, Debug, Error)]
pub(crate) enum CallError {
    /// Nothing was changed.
    #[error("{0}")]
    NotDone(String),
    /// etcd does not take a request of this size, or with so many operations. Nothing was changed.
    #[error("{0}")]
    TooLarge(String),
    /// The revision asked for was compacted.
    #[error("{0}")]
    Compacted(String),
    /// Whether etcd has done it, or will, is not known.
    #[error("{0}")]
    Unknown(String),
}

/// A status that gRPC ends an answer with.
#[derive(Debug)]
struct Status {
    code: u32,
    message: String,
}

impl From<Status> for CallError {
    fn from(Status { code, message }: Status) -> Self {
        match code {
            INVALID_ARGUMENT if message.contains("too large") || message.contains("too many") => {
                Self::TooLarge(message)
            }
            RESOURCE_EXHAUSTED if message.contains("larger than max") => Self::TooLarge(message),
            // What etcd answers before it proposes anything to its log. Its other errors, such as a
            // timeout, a change of leader or a full database, may come after.
            RESOURCE_EXHAUSTED if message.contains("too many requests") => Self::NotDone(message),
            UNAVAILABLE if message.contains("no leader") => Self::NotDone(message),
            INVALID_ARGUMENT | PERMISSION_DENIED | UNIMPLEMENTED | UNAUTHENTICATED => {
                Self::NotDone(message)
            }
            OUT_OF_RANGE if message.contains("compacted") => Self::Compacted(message),
            _ => Self::Unknown(message),
        }
    }
}

/// The way to etcd. Clones share one connection.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    endpoints: Arc<[Endpoint]>,
    tls: Option<Arc<rustls::ClientConfig>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Numbered>,
    /// How many connections there were.
    count: u64,
    /// The endpoint to try next.
    next: usize,
}

/// A connection that can be told from the one before it.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    connection: Connection,
}

impl Rpc {
    pub(crate) fn new(endpoints: Vec<Endpoint>, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { endpoints: endpoints.into(), tls, state: Arc::default() }
    }

    /// Asks, and awaits the one answer. For as long as nothing can have been done, members are tried one
    /// after another; after that the request is not sent again.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        question: &Q,
        deadline: Instant,
    ) -> Result<A, CallError> {
        let frame = frame(question);
        loop {
            let open = self.connection(deadline).await?;
            let body = toono_http::full(frame.clone());
            let answered = timeout_at(deadline, answer(&open.connection, method, body)).await;
            let failed = match answered {
                Ok(Ok(bytes)) => {
                    return A::decode(bytes).map_err(|error| CallError::Unknown(error.to_string()));
                }
                Ok(Err(Failed::NotSent)) => {
                    self.abandon(&open).await;
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                Ok(Err(Failed::Lost(why))) => CallError::Unknown(why),
                Ok(Err(Failed::Refused(status))) => {
                    let elsewhere = status.code == UNAVAILABLE;
                    let error = CallError::from(status);
                    if !elsewhere {
                        return Err(error);
                    }
                    // An election is soon over.
                    if matches!(error, CallError::NotDone(_)) && Instant::now() < deadline {
                        self.abandon(&open).await;
                        tokio::time::sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    error
                }
                Err(_) => CallError::Unknown("etcdserver: request timed out".to_owned()),
            };
            // This member has lost touch with the others, or with us.
            self.abandon(&open).await;
            return Err(failed);
        }
    }

    /// Opens a stream of answers to one question.
    pub(crate) async fn stream<Q: Message>(
        &self,
        method: &str,
        question: &Q,
        deadline: Instant,
    ) -> Result<Stream, CallError> {
        let open = self.connection(deadline).await?;
        let connection = open.connection.clone();
        // The half of the stream that asks stays open for as long as answers are wanted.
        let asking = futures::stream::iter([Ok::<_, std::convert::Infallible>(frame(question))])
            .chain(futures::stream::pending());
        let request = request(&connection, method, toono_http::stream(asking))
            .map_err(|error| CallError::NotDone(error.to_string()))?;
        let failed = match timeout_at(deadline, connection.send(request)).await {
            Ok(Ok(response)) => {
                if let Some(status) = status(response.headers()) {
                    self.abandon(&open).await;
                    return Err(status.into());
                }
                let body = response.into_body();
                return Ok(Stream { connection, body, received: BytesMut::new() });
            }
            Ok(Err(error)) => describe(&error),
            Err(_) => "etcdserver: request timed out".to_owned(),
        };
        self.abandon(&open).await;
        Err(CallError::NotDone(failed))
    }

    /// The open connection, or a new one to whichever member takes it first.
    async fn connection(&self, deadline: Instant) -> Result<Numbered, CallError> {
        let mut state = timeout_at(deadline, self.state.lock())
            .await
            .map_err(|_| CallError::NotDone("cannot connect to etcd".to_owned()))?;
        if let Some(open) = state.connection.as_ref()
            && !open.connection.is_closed()
        {
            return Ok(open.clone());
        }
        let mut why = "cannot connect to etcd".to_owned();
        loop {
            if Instant::now() >= deadline {
                return Err(CallError::NotDone(why));
            }
            for _ in 0..self.endpoints.len() {
                let next = state.next % self.endpoints.len().max(1);
                let Some(endpoint) = self.endpoints.get(next) else { break };
                let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
                match timeout_at(until, Connection::open(endpoint, self.tls.as_ref())).await {
                    Ok(Ok(connection)) => {
                        state.count = state.count.wrapping_add(1);
                        let open = Numbered { number: state.count, connection };
                        state.connection = Some(open.clone());
                        return Ok(open);
                    }
                    Ok(Err(error)) => why = describe(&error),
                    Err(_) => why = format!("{endpoint} does not answer"),
                }
                state.next = state.next.wrapping_add(1);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The next call is to go to another member, unless somebody has seen to that already.
    async fn abandon(&self, failed: &Numbered) {
        let mut state = self.state.lock().await;
        if state.connection.as_ref().is_some_and(|open| open.number == failed.number) {
            state.connection = None;
            state.next = state.next.wrapping_add(1);
        }
    }
}

/// Answers that come one after another, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: Connection,
    body: Incoming,
    received: BytesMut,
}

impl Stream {
    /// Waits for the next answer.
    pub(crate) async fn next<A: Message + Default>(&mut self) -> Result<A, CallError> {
        loop {
            if let Some(message) = take_frame(&mut self.received)? {
                return A::decode(message).map_err(|error| CallError::Unknown(error.to_string()));
            }
            let peer = self.connection.endpoint();
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.received.extend_from_slice(&data),
                    Err(frame) => {
                        let status = frame.trailers_ref().and_then(status);
                        return Err(status.map_or_else(|| ended(peer), CallError::from));
                    }
                },
                Some(Err(error)) => return Err(CallError::Unknown(describe(&error))),
                None => return Err(ended(peer)),
            }
        }
    }
}

fn ended(peer: &Endpoint) -> CallError {
    CallError::Unknown(format!("{peer} ended the stream"))
}

/// Why a call has no answer.
enum Failed {
    NotSent,
    Lost(String),
    Refused(Status),
}

async fn answer(connection: &Connection, method: &str, body: Body) -> Result<Bytes, Failed> {
    let request = request(connection, method, body).map_err(|error| {
        Failed::Refused(Status { code: UNIMPLEMENTED, message: error.to_string() })
    })?;
    let response = connection.send(request).await.map_err(|error| match error {
        SendError::NotSent(_) => Failed::NotSent,
        SendError::Lost { .. } => Failed::Lost(describe(&error)),
    })?;
    if let Some(status) = status(response.headers()) {
        return Err(Failed::Refused(status));
    }
    let mut body = response.into_body();
    let mut received = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failed::Lost(describe(&error)))?;
        if let Some(status) = frame.trailers_ref().and_then(status) {
            return Err(Failed::Refused(status));
        }
        if let Ok(data) = frame.into_data() {
            received.extend_from_slice(&data);
        }
    }
    let lost = || Failed::Lost(format!("{} ended its answer early", connection.endpoint()));
    take_frame(&mut received).map_err(|error| Failed::Lost(error.to_string()))?.ok_or_else(lost)
}

fn request(
    connection: &Connection,
    method: &str,
    body: Body,
) -> Result<http::Request<Body>, http::Error> {
    http::Request::post(connection.endpoint().url(method)?)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        // A member that sees no leader is to say so, and end its watches, instead of keeping quiet.
        .header("hasleader", "true")
        .body(body)
}

/// The error that headers or trailers tell of.
fn status(headers: &http::HeaderMap) -> Option<Status> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status")?.parse().unwrap_or(u32::MAX);
    let message = || text("grpc-message").unwrap_or("etcd gave no reason").to_owned();
    (code != 0).then(|| Status { code, message: message() })
}

fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_BYTES.saturating_add(len));
    frame.put_u8(0);
    frame.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    // The buffer grows: there is always room.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

/// Takes a whole message off what was received, if there is one.
fn take_frame(received: &mut BytesMut) -> Result<Option<Bytes>, CallError> {
    let mut head = &received[..];
    let (Ok(compressed), Ok(len)) = (head.try_get_u8(), head.try_get_u32()) else {
        return Ok(None);
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if compressed != 0 || len > MAX_MESSAGE_BYTES {
        return Err(CallError::Unknown("etcd answered with something that is no gRPC".to_owned()));
    }
    if received.len() < FRAME_BYTES.saturating_add(len) {
        return Ok(None);
    }
    received.advance(FRAME_BYTES);
    Ok(Some(received.split_to(len).freeze()))
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
