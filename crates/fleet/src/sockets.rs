//! Session datagrams in WebSockets, for nodes whose network lets no UDP through: one socket a node, one datagram
//! a message. What the datagrams mean is judged as if they had come by UDP.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, timeout},
};
use toono_api::ApiError;
use toono_http::Body;
use toono_session::{Address, Datagram, NodeIndex};
use toono_streams::{negotiate, websocket::Datagrams};

use crate::{fleet::Inner, udp};

/// Sockets at once. Each holds a TLS connection, some 50 KB: a fleet of which more is behind such networks needs
/// more servers.
const MOST_SOCKETS: usize = 32_768;
/// Pokes that wait for a socket; the next heartbeat, and the repeated dial, make up for one that is dropped.
const QUEUE: usize = 16;
/// The kernel takes a datagram at once unless the connection has stood still for long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for some messages.
const READ: usize = 512;

/// The open sockets.
#[derive(Default)]
pub(crate) struct Sockets(Mutex<Open>);

#[derive(Default)]
struct Open {
    /// Numbers are not used twice: a poke for a socket that is gone finds none.
    newest: u64,
    queues: HashMap<u64, mpsc::Sender<Datagram>>,
    of_node: HashMap<NodeIndex, u64>,
}

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket of this node, in place of the one that it had; none when there are too many.
    fn open(&self, node: NodeIndex) -> Option<(u64, mpsc::Receiver<Datagram>)> {
        let mut open = self.lock();
        if let Some(before) = open.of_node.remove(&node) {
            open.queues.remove(&before);
        }
        if open.queues.len() >= MOST_SOCKETS {
            return None;
        }
        open.newest += 1;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let number = open.newest;
        open.queues.insert(number, queue);
        open.of_node.insert(node, number);
        Some((number, waiting))
    }

    fn close(&self, node: NodeIndex, number: u64) {
        let mut open = self.lock();
        open.queues.remove(&number);
        if open.of_node.get(&node) == Some(&number) {
            open.of_node.remove(&node);
        }
    }

    /// Hands a datagram to a socket, if that is open and not choked.
    pub(crate) fn send(&self, number: u64, datagram: Datagram) {
        if let Some(queue) = self.lock().queues.get(&number) {
            // A full queue drops it, as a full socket buffer does with UDP.
            let _ = queue.try_send(datagram);
        }
    }
}

/// `GET /fleet/v1/session/socket`: answers 101, and the datagrams flow.
pub(crate) fn accept(
    inner: &Arc<Inner>,
    node: &str,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accept = upgrade_accepted(&request)?;
    let index = inner.state().table.index(node);
    let index = index.ok_or_else(|| {
        ApiError::Unavailable(format!("node {node:?} has no session with this server (yet)"))
    })?;
    let (number, waiting) = inner.sockets.open(index).ok_or_else(|| {
        ApiError::Unavailable(format!("{MOST_SOCKETS} nodes have a socket here already"))
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    let (shared, node) = (inner.clone(), node.to_owned());
    tokio::spawn(async move {
        let ended = carry(&shared, upgrade, Address::Stream(number), index, waiting).await;
        shared.sockets.close(index, number);
        tracing::debug!(node, number, reason = ended.err(), "session socket closed");
    });

    let mut response = Response::new(toono_http::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// The answer's `Sec-WebSocket-Accept` (RFC 6455, 4.2).
fn upgrade_accepted(request: &Request<Body>) -> Result<HeaderValue, ApiError> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let wants = text(header::UPGRADE).is_some_and(|it| it.eq_ignore_ascii_case("websocket"));
    let version = text(header::SEC_WEBSOCKET_VERSION) == Some("13");
    let key = text(header::SEC_WEBSOCKET_KEY).filter(|key| negotiate::is_valid_key(key));
    match key {
        Some(key) if wants && version && request.version() == http::Version::HTTP_11 => {
            HeaderValue::from_str(&negotiate::accept_key(key))
                .map_err(|error| ApiError::Internal(error.to_string()))
        }
        _ => Err(ApiError::BadRequest("a session socket needs a WebSocket upgrade".into())),
    }
}

/// One socket's life. It ends when the node closes it or opens another, breaks the protocol, or sends nothing
/// that counts for the time in which a node is given up.
async fn carry(
    inner: &Inner,
    upgrade: OnUpgrade,
    from: Address,
    node: NodeIndex,
    mut pokes: mpsc::Receiver<Datagram>,
) -> Result<(), String> {
    let pool = inner.state().table.member(node).map(|member| member.pool.clone());
    let patience = inner.config.grace.of(pool.as_deref().unwrap_or_default());
    let upgraded = timeout(patience, upgrade).await.map_err(|_| "no upgrade".to_owned())?;
    let mut stream = TokioIo::new(upgraded.map_err(|error| error.to_string())?);
    let (mut ends, mut buffer) = (Datagrams::server(), BytesMut::with_capacity(READ));
    let mut heard = Instant::now();
    while !ends.is_ended() {
        buffer.clear();
        tokio::select! {
            read = stream.read_buf(&mut buffer) => match read {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    ends.push(&buffer).map_err(|error| error.to_string())?;
                    while let Some(datagram) =
                        ends.next_datagram().map_err(|error| error.to_string())?
                    {
                        if let Some(reply) = judge(inner, &datagram, from, node) {
                            heard = Instant::now();
                            ends.send(reply.as_bytes());
                        }
                    }
                }
                Err(error) => return Err(error.to_string()),
            },
            poke = pokes.recv() => match poke {
                Some(poke) => ends.send(poke.as_bytes()),
                None => ends.close(),
            },
            () = tokio::time::sleep_until(heard + patience) => ends.close(),
        }
        let out = ends.output().split();
        if !out.is_empty() {
            let written = timeout(WRITE_TIMEOUT, async {
                stream.write_all(&out).await?;
                stream.flush().await
            });
            written
                .await
                .map_err(|_| "the node takes nothing".to_owned())?
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn judge(inner: &Inner, datagram: &[u8], from: Address, node: NodeIndex) -> Option<Datagram> {
    let now = inner.now();
    let mut state = inner.state();
    let before = state.returned.len();
    let reply = udp::judge_one(inner, &mut state, datagram, from, Some(node), now);
    if state.returned.len() > before {
        inner.readiness.notify_one();
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_socket_and_an_older_one_takes_nothing_away() {
        let sockets = Sockets::default();
        let (first, mut old) = sockets.open(NodeIndex(3)).unwrap();
        let (second, _new) = sockets.open(NodeIndex(3)).unwrap();
        assert!(first != second);
        assert_eq!(old.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        sockets.close(NodeIndex(3), first);
        assert!(sockets.lock().queues.contains_key(&second));
        sockets.close(NodeIndex(3), second);
        assert!(sockets.lock().queues.is_empty() && sockets.lock().of_node.is_empty());
    }
}
