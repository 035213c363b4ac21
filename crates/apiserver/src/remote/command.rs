//! `exec` and `attach`: one remote command, its standard streams, its terminal and its exit.

use std::time::Duration;

use http::{Method, Request, Response};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use toono_api::ApiError;
use toono_http::Body;
use toono_streams::negotiate::{
    CommandProtocol, CommandVersion, SPDY_COMMAND, WEBSOCKET_COMMAND, choose_command,
};
use toono_streams::{Codec, Event, Kind, ResizeReader, StreamId, spdy, websocket};
use toono_wire::remote;

use super::node::{self, Down, DownKind, Up, Uplink};
use super::pod::Pod;
use super::pump::{self, DOWNLINK_QUEUE, Hands, Inbound, Session};
use super::query::{Query, QueryWriter};
use super::upgrade::{self, Offer};
use super::{Context, Subresource, Target};

/// A WebSocket's streams are there from the start, but kubectl before 1.34 reads before it has made its own, and throws
/// away what arrives meanwhile (<https://github.com/kubernetes/kubernetes/issues/131189>). So long nothing is sent.
const CLIENT_MAKES_STREAMS: Duration = Duration::from_millis(30);
/// The one node stream of a command.
const NODE_STREAM: u64 = 0;

pub(super) async fn respond(
    context: &Context,
    request: &mut Request<Body>,
    target: Target<'_>,
    pod: &Pod,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let container = pod.container(query.text("container"))?;
    let node = pod.require_node()?;
    let options = Options::parse(target.subresource, query)?;
    let headers = request.headers().clone();
    let offer = Offer::parse(&headers)?;
    let (offered, known) = match &offer {
        Offer::Spdy { protocols } => (protocols, SPDY_COMMAND.as_slice()),
        Offer::WebSocket { protocols, .. } => (protocols, WEBSOCKET_COMMAND.as_slice()),
    };
    let Some(protocol) = choose_command(offered, known) else {
        let known: Vec<&'static str> = known.iter().map(|protocol| protocol.name).collect();
        return Ok(offer.refuse(&known));
    };
    let upgrade = upgrade::take(request)?;

    // The node answers first, so that its refusal is still a plain HTTP response.
    let verb = if target.subresource == Subresource::Exec { "exec" } else { "attach" };
    let path =
        format!("/{verb}/{}/{}/{container}{}", target.namespace, target.pod, options.node_query());
    let (uplink, body) = node::uplink();
    let asked = node::request(Method::POST, node, &path, body)?;
    let answer = node::send(context.link.as_ref(), node, asked).await?;
    let response = offer.accept(protocol.name)?;

    let expected = options.streams(protocol.version);
    let codec: Box<dyn Codec> = match &offer {
        Offer::Spdy { .. } => Box::new(spdy::Connection::new()),
        Offer::WebSocket { .. } => {
            Box::new(websocket::Channels::new(protocol, expected.iter().copied()))
        }
    };
    let (down, downlink) = mpsc::channel(DOWNLINK_QUEUE);
    let mut readers = JoinSet::new();
    readers.spawn(node::read_frames(NODE_STREAM, answer.into_body(), down.clone()));
    let hands = Hands { codec, inbound: Inbound::default(), down, readers };
    let command = Command::new(protocol, expected, uplink, node);
    let patience = match &offer {
        Offer::Spdy { .. } => Duration::ZERO,
        Offer::WebSocket { .. } => CLIENT_MAKES_STREAMS,
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(client) => {
                tokio::time::sleep(patience).await;
                pump::run(client, hands, downlink, command).await;
            }
            Err(error) => tracing::debug!(%error, "a client left before the upgrade"),
        }
    });
    Ok(response)
}

/// `v1.PodExecOptions` or `v1.PodAttachOptions`, without the container.
#[derive(Debug)]
struct Options<'a> {
    command: Vec<&'a str>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl<'a> Options<'a> {
    fn parse(subresource: Subresource, query: &'a Query) -> Result<Self, ApiError> {
        let tty = query.flag("tty");
        let command: Vec<&str> = match subresource {
            Subresource::Exec => query.all("command").collect(),
            _ => Vec::new(),
        };
        if subresource == Subresource::Exec && command.is_empty() {
            return Err(ApiError::BadRequest("you must specify a command".to_owned()));
        }
        let options = Self {
            command,
            stdin: query.flag("stdin"),
            stdout: query.flag("stdout"),
            // A terminal has one output.
            stderr: query.flag("stderr") && !tty,
            tty,
        };
        if !(options.stdin || options.stdout || options.stderr) {
            let why = "you must specify at least 1 of stdin, stdout, stderr";
            return Err(ApiError::BadRequest(why.to_owned()));
        }
        Ok(options)
    }

    fn node_query(&self) -> String {
        let mut out = QueryWriter::default();
        for argument in &self.command {
            out.push("command", argument);
        }
        out.push_flag("stdin", self.stdin);
        out.push_flag("stdout", self.stdout);
        out.push_flag("stderr", self.stderr);
        out.push_flag("tty", self.tty);
        out.finish()
    }

    /// The streams that a client opens for these options.
    fn streams(&self, version: CommandVersion) -> Vec<Kind> {
        let resize = self.tty && version >= CommandVersion::V3;
        [
            (Kind::Error, true),
            (Kind::Stdin, self.stdin),
            (Kind::Stdout, self.stdout),
            (Kind::Stderr, self.stderr),
            (Kind::Resize, resize),
        ]
        .into_iter()
        .filter_map(|(kind, wanted)| wanted.then_some(kind))
        .collect()
    }
}

/// A command that runs.
struct Command {
    protocol: CommandProtocol,
    node: String,
    uplink: Uplink,
    expected: Vec<Kind>,
    opened: Vec<(Kind, StreamId)>,
    resize: ResizeReader,
    over: bool,
}

impl Command {
    fn new(protocol: CommandProtocol, expected: Vec<Kind>, uplink: Uplink, node: &str) -> Self {
        Self {
            protocol,
            node: node.to_owned(),
            uplink,
            expected,
            opened: Vec::new(),
            resize: ResizeReader::default(),
            over: false,
        }
    }

    fn stream(&self, kind: Kind) -> Option<StreamId> {
        self.opened.iter().find(|(opened, _)| *opened == kind).map(|(_, stream)| *stream)
    }

    fn kind(&self, stream: StreamId) -> Option<Kind> {
        self.opened.iter().find(|(_, opened)| *opened == stream).map(|(kind, _)| *kind)
    }

    fn open(&mut self, stream: StreamId, kind: Kind, codec: &mut dyn Codec) {
        if !self.expected.contains(&kind) || self.stream(kind).is_some() {
            return codec.reset(stream);
        }
        self.opened.push((kind, stream));
        if self.ready() {
            // Some WebSocket clients wait for a first message before they believe in the stream.
            let first = [Kind::Stdout, Kind::Stderr, Kind::Error];
            if let Some(stream) = first.into_iter().find_map(|kind| self.stream(kind)) {
                codec.send(stream, &[]);
            }
        }
    }

    fn output(&self, kind: Kind, payload: &[u8], codec: &mut dyn Codec) {
        if let Some(stream) = self.stream(kind).filter(|_| !payload.is_empty()) {
            codec.send(stream, payload);
        }
    }

    /// Tells the client how the command ended, in the form of its protocol, and ends everything.
    fn end(&mut self, status: &[u8], codec: &mut dyn Codec) {
        if self.protocol.version >= CommandVersion::V4 {
            self.output(Kind::Error, status, codec);
        } else if let Some(message) = node::failure_text(status) {
            self.output(Kind::Error, message.as_bytes(), codec);
        }
        for (_, stream) in &self.opened {
            codec.finish(*stream);
        }
        // A full queue means that nobody reads stdin any more; dropping the uplink does as well.
        let _ = self.uplink.try_send(Up::End);
        self.over = true;
    }

    fn ended_without_status(&mut self, ended: Result<(), String>, codec: &mut dyn Codec) {
        let how = ended.err().unwrap_or_else(|| "its answer ended too soon".to_owned());
        let message =
            format!("the connection to node {} broke while the command ran: {how}", self.node);
        let status = ApiError::Internal(message).to_status().to_string();
        self.end(status.as_bytes(), codec);
    }
}

impl Session for Command {
    fn client(&mut self, event: Event, hands: &mut Hands) {
        match event {
            Event::Opened { stream, kind, .. } => self.open(stream, kind, hands.codec.as_mut()),
            Event::Data { stream, data } => match self.kind(stream) {
                Some(Kind::Stdin) => {
                    hands.inbound.push(NODE_STREAM, &self.uplink, remote::STDIN, &data);
                }
                Some(Kind::Resize) => {
                    for size in self.resize.push(&data) {
                        hands.inbound.push(NODE_STREAM, &self.uplink, remote::RESIZE, &size);
                    }
                }
                _ => {}
            },
            Event::HalfClosed { stream } | Event::Reset { stream } => {
                if self.kind(stream) == Some(Kind::Stdin) {
                    let ended = [remote::STDIN];
                    hands.inbound.push(NODE_STREAM, &self.uplink, remote::CLOSE, &ended);
                }
            }
            Event::Closed => {}
        }
    }

    fn node(&mut self, down: Down, hands: &mut Hands) {
        let codec = hands.codec.as_mut();
        let frame = match down.what {
            DownKind::Frame(frame) => frame,
            DownKind::Ended(ended) => return self.ended_without_status(ended, codec),
        };
        match frame.channel {
            remote::STDOUT => self.output(Kind::Stdout, &frame.payload, codec),
            remote::STDERR => self.output(Kind::Stderr, &frame.payload, codec),
            remote::ERROR => self.end(&frame.payload, codec),
            remote::CLOSE => {
                let ended = match frame.payload.first() {
                    Some(&remote::STDOUT) => self.stream(Kind::Stdout),
                    Some(&remote::STDERR) => self.stream(Kind::Stderr),
                    _ => None,
                };
                if let Some(stream) = ended {
                    codec.finish(stream);
                }
            }
            other => tracing::debug!(channel = other, "a node used a channel that is not its own"),
        }
    }

    fn ready(&self) -> bool {
        self.opened.len() == self.expected.len()
    }

    fn over(&self) -> bool {
        self.over
    }
}
