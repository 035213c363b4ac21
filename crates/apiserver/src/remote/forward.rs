//! `portforward`: each connection of the client's port becomes one node stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, Request, Response};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use toono_api::ApiError;
use toono_http::Body;
use toono_streams::negotiate::{FORWARD, FORWARD_TUNNELS, choose_name};
use toono_streams::{Codec, Event, Forward, Kind, StreamId, Tunnel, spdy};
use toono_wire::remote;

use super::link::NodeLink;
use super::node::{self, Down, DownKind, Up, Uplink};
use super::pod::Pod;
use super::pump::{self, DOWNLINK_QUEUE, Hands, Inbound, Session};
use super::upgrade::{self, Offer};
use super::{Context, Target};

pub(super) fn respond(
    context: &Context,
    request: &mut Request<Body>,
    target: Target<'_>,
    pod: &Pod,
) -> Result<Response<Body>, ApiError> {
    let node = pod.require_node()?.to_owned();
    let headers = request.headers().clone();
    let offer = Offer::parse(&headers)?;
    let (chosen, known, codec): (_, &[&'static str], Box<dyn Codec>) = match &offer {
        Offer::Spdy { protocols } if protocols.is_empty() => {
            (Some(FORWARD), &[FORWARD], Box::new(spdy::Connection::new()))
        }
        Offer::Spdy { protocols } => {
            (choose_name(protocols, &[FORWARD]), &[FORWARD], Box::new(spdy::Connection::new()))
        }
        Offer::WebSocket { protocols, .. } => {
            (choose_name(protocols, &FORWARD_TUNNELS), &FORWARD_TUNNELS, Box::new(Tunnel::new()))
        }
    };
    let Some(protocol) = chosen else { return Ok(offer.refuse(known)) };
    let upgrade = upgrade::take(request)?;
    let response = offer.accept(protocol)?;

    let (down, downlink) = mpsc::channel(DOWNLINK_QUEUE);
    let hands = Hands { codec, inbound: Inbound::default(), down, readers: JoinSet::new() };
    let session = Forwarding {
        link: Arc::clone(&context.link),
        path: format!("/portForward/{}/{}", target.namespace, target.pod),
        node,
        connections: BTreeMap::new(),
        next_key: 0,
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(client) => pump::run(client, hands, downlink, session).await,
            Err(error) => tracing::debug!(%error, "a client left before the upgrade"),
        }
    });
    Ok(response)
}

/// All forwarded connections of one client.
struct Forwarding {
    link: Arc<dyn NodeLink>,
    node: String,
    path: String,
    connections: BTreeMap<u64, Connection>,
    next_key: u64,
}

/// One forwarded connection. It exists from its first stream to the reset or end of its last.
struct Connection {
    forward: Forward,
    data: Option<StreamId>,
    error: Option<StreamId>,
    /// Present from when both streams are there.
    node: Option<NodeStream>,
}

/// The node's end of a connection. Dropped, it is given up.
struct NodeStream {
    uplink: Uplink,
    reader: AbortHandle,
}

impl Drop for NodeStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Forwarding {
    fn find(&mut self, stream: StreamId) -> Option<(u64, &mut Connection)> {
        let of =
            |connection: &Connection| [connection.data, connection.error].contains(&Some(stream));
        self.connections.iter_mut().find(|(_, one)| of(one)).map(|(key, one)| (*key, one))
    }

    fn open(&mut self, stream: StreamId, kind: Kind, forward: Forward, hands: &mut Hands) {
        if !matches!(kind, Kind::Data | Kind::Error) {
            return hands.codec.reset(stream);
        }
        let known = self.connections.iter().find(|(_, one)| one.forward == forward);
        let key = known.map_or(self.next_key, |(key, _)| *key);
        if key == self.next_key {
            self.next_key += 1;
        }
        let connection = self.connections.entry(key).or_insert_with(|| Connection {
            forward,
            data: None,
            error: None,
            node: None,
        });
        let place = if kind == Kind::Data { &mut connection.data } else { &mut connection.error };
        if place.is_some() {
            return hands.codec.reset(stream);
        }
        *place = Some(stream);
        if connection.data.is_some() && connection.error.is_some() {
            self.start(key, hands);
        }
    }

    /// Asks the node for the connection, in a task of its own.
    fn start(&mut self, key: u64, hands: &mut Hands) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let (uplink, body) = node::uplink();
        let path = format!("{}?port={}", self.path, connection.forward.port);
        let asked = node::request(Method::POST, &self.node, &path, body);
        let (link, node, down) = (Arc::clone(&self.link), self.node.clone(), hands.down.clone());
        let reader = hands.readers.spawn(async move {
            let answer = match asked {
                Ok(request) => node::send(link.as_ref(), &node, request).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => node::read_frames(key, response.into_body(), down).await,
                Err(error) => {
                    let what = DownKind::Ended(Err(error.to_string()));
                    // A session that is over needs no telling.
                    let _ = down.send(Down { key, what }).await;
                }
            }
        });
        connection.node = Some(NodeStream { uplink, reader });
    }

    /// Passes something on that concerns a data stream.
    fn up(&mut self, stream: StreamId, channel: u8, payload: &[u8], hands: &mut Hands) {
        if let Some((key, connection)) = self.find(stream)
            && connection.data == Some(stream)
            && let Some(node) = &connection.node
        {
            hands.inbound.push(key, &node.uplink, channel, payload);
        }
    }

    /// The client reset a stream: it is done with the connection, though it still waits for the
    /// end of the error stream if that is not what it reset.
    fn given_up(&mut self, stream: StreamId, hands: &mut Hands) {
        let Some((key, connection)) = self.find(stream) else { return };
        connection.node = None;
        self.end(key, None, hands);
    }

    /// Ends a connection for the client, with an error or without.
    fn end(&mut self, key: u64, failure: Option<String>, hands: &mut Hands) {
        let Some(connection) = self.connections.remove(&key) else { return };
        hands.inbound.forget(key);
        if let Some(node) = &connection.node {
            // A full queue means that the node reads no more; dropping the uplink does as well.
            let _ = node.uplink.try_send(Up::End);
        }
        if let Some(error) = connection.error {
            if let Some(failure) = failure {
                let port = connection.forward.port;
                let text = format!("error forwarding port {port} to the pod: {failure}");
                hands.codec.send(error, text.as_bytes());
            }
            hands.codec.finish(error);
        }
        if let Some(data) = connection.data {
            hands.codec.finish(data);
        }
    }
}

impl Session for Forwarding {
    fn client(&mut self, event: Event, hands: &mut Hands) {
        match event {
            Event::Opened { stream, kind, forward: Some(forward) } => {
                self.open(stream, kind, forward, hands);
            }
            Event::Opened { stream, .. } => hands.codec.reset(stream),
            Event::Data { stream, data } => self.up(stream, remote::STDIN, &data, hands),
            Event::HalfClosed { stream } => {
                self.up(stream, remote::CLOSE, &[remote::STDIN], hands);
            }
            Event::Reset { stream } => self.given_up(stream, hands),
            Event::Closed => {}
        }
    }

    fn node(&mut self, down: Down, hands: &mut Hands) {
        let Some(connection) = self.connections.get(&down.key) else { return };
        match down.what {
            DownKind::Ended(ended) => self.end(down.key, ended.err(), hands),
            DownKind::Frame(frame) => match (frame.channel, connection.data) {
                (remote::STDOUT, Some(stream)) if !frame.payload.is_empty() => {
                    hands.codec.send(stream, &frame.payload);
                }
                (remote::CLOSE, Some(stream)) if frame.payload.first() == Some(&remote::STDOUT) => {
                    hands.codec.finish(stream);
                }
                (remote::ERROR, _) => {
                    self.end(down.key, node::failure_text(&frame.payload), hands);
                }
                _ => {}
            },
        }
    }

    fn ready(&self) -> bool {
        true
    }

    fn over(&self) -> bool {
        false
    }
}
