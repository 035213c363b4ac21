//! Dial-back tunnels: the cloud asks by a poke, the node connects, requests run in as HTTP/2 streams.
//!
//! A node is never dialled. A tunnel that no request uses is closed after a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http2, upgrade::OnUpgrade};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::{sync::watch, time::timeout};
use toono_api::ApiError;
use toono_http::{Body, BoxError};
use toono_session::NodeIndex;

use crate::fleet::{Inner, random_u64};

/// How long a request waits for the node to dial back: ten pokes over a bad link.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A poke may be lost; it is repeated this often while someone waits.
const POKE_AGAIN: Duration = Duration::from_secs(1);
/// From the answer 101 to the end of the HTTP/2 handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A tunnel in use whose node does not answer a ping is dead. Idle ones close anyway.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Times that a request is tried on another tunnel, when one broke before it was sent.
const ATTEMPTS: usize = 3;

/// A request did not reach its node.
#[derive(Debug, thiserror::Error)]
pub enum FleetLinkError {
    /// No Node of this name has a session.
    #[error("node {node:?} has no session with this server")]
    Unknown {
        /// The name asked for.
        node: String,
    },
    /// The node did not open a tunnel.
    #[error("node {node:?} did not dial back within {} s; it was {heard}", DIAL_TIMEOUT.as_secs())]
    NoDialBack {
        /// Which node.
        node: String,
        /// `last heard 12 s ago` or `never heard since the server started`.
        heard: String,
    },
    /// The tunnel broke.
    #[error("the tunnel to node {node:?} broke")]
    Broken {
        /// Which node.
        node: String,
        /// What HTTP says.
        source: hyper::Error,
    },
    /// The system gave no random ticket.
    #[error("the system's random number generator failed")]
    Random,
}

/// Tunnels and dials of all nodes.
#[derive(Default)]
pub(crate) struct Tunnels {
    nodes: Mutex<HashMap<String, Link>>,
}

#[derive(Default)]
struct Link {
    open: Vec<Arc<Tunnel>>,
    dial: Option<Dial>,
}

/// Someone waits for a tunnel. Dropping it tells them that none comes.
struct Dial {
    ticket: u64,
    arrived: watch::Sender<Option<Arc<Tunnel>>>,
}

struct Tunnel {
    sender: http2::SendRequest<Body>,
    in_flight: watch::Sender<usize>,
}

/// One request in a tunnel, until its response's body has ended.
struct InFlight(Arc<Tunnel>);

impl InFlight {
    fn new(tunnel: &Arc<Tunnel>) -> Self {
        tunnel.in_flight.send_modify(|count| *count += 1);
        Self(tunnel.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count -= 1);
    }
}

impl Tunnels {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Link>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tunnels of a node are open.
    pub(crate) fn open(&self, node: &str) -> u32 {
        self.lock().get(node).map_or(0, |link| u32::try_from(link.open.len()).unwrap_or(u32::MAX))
    }

    fn usable(&self, node: &str) -> Option<Arc<Tunnel>> {
        self.lock().get(node)?.open.iter().find(|tunnel| tunnel.sender.is_ready()).cloned()
    }

    fn add(&self, node: &str, tunnel: Arc<Tunnel>) {
        self.lock().entry(node.to_owned()).or_default().open.push(tunnel);
    }

    fn remove(&self, node: &str, tunnel: &Arc<Tunnel>) {
        self.edit(node, |link| link.open.retain(|other| !Arc::ptr_eq(other, tunnel)));
    }

    /// Ends a dial: when it is this one, its waiters are the caller's.
    fn take_dial(&self, node: &str, ticket: u64) -> Option<Dial> {
        self.edit(node, |link| link.dial.take_if(|dial| dial.ticket == ticket)).flatten()
    }

    fn dialing(&self, node: &str, ticket: u64) -> bool {
        let nodes = self.lock();
        nodes
            .get(node)
            .and_then(|link| link.dial.as_ref())
            .is_some_and(|dial| dial.ticket == ticket)
    }

    fn edit<T>(&self, node: &str, change: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let mut nodes = self.lock();
        let link = nodes.get_mut(node)?;
        let result = change(link);
        if link.open.is_empty() && link.dial.is_none() {
            nodes.remove(node);
        }
        Some(result)
    }
}

/// Sends one request to a node.
pub(crate) async fn send(
    inner: &Arc<Inner>,
    node: &str,
    request: Request<Body>,
) -> Result<Response<Body>, FleetLinkError> {
    let index = inner
        .state()
        .table
        .index(node)
        .ok_or_else(|| FleetLinkError::Unknown { node: node.to_owned() })?;
    let mut request = inward(request);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let tunnel = match inner.tunnels.usable(node) {
            Some(tunnel) => tunnel,
            None => dial(inner, node, index).await?,
        };
        let in_flight = InFlight::new(&tunnel);
        match tunnel.sender.clone().try_send_request(request).await {
            Ok(response) => return Ok(response.map(|body| guarded(body, in_flight))),
            Err(mut error) => match error.take_message() {
                Some(unsent) if attempt < ATTEMPTS => {
                    inner.tunnels.remove(node, &tunnel);
                    request = unsent;
                }
                _ => {
                    let source = error.into_error();
                    return Err(FleetLinkError::Broken { node: node.to_owned(), source });
                }
            },
        }
    }
}

/// The response's body, with the request counted as in flight until it is dropped.
fn guarded(body: Incoming, in_flight: InFlight) -> Body {
    body.map_frame(move |frame| {
        let _held = &in_flight;
        frame
    })
    .map_err(BoxError::from)
    .boxed_unsync()
}

/// HTTP/2 wants a whole URI and none of the headers of the connection that the request came by.
fn inward(request: Request<Body>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme("http").authority("node").path_and_query(path).build();
    parts.uri = uri.unwrap_or_default();
    parts.version = http::Version::HTTP_2;
    let hop_by_hop =
        [header::HOST, header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING, header::TE];
    for name in hop_by_hop {
        parts.headers.remove(name);
    }
    parts.extensions.clear();
    Request::from_parts(parts, body)
}

/// Joins the dial that is under way, or starts one.
async fn dial(
    inner: &Arc<Inner>,
    node: &str,
    index: NodeIndex,
) -> Result<Arc<Tunnel>, FleetLinkError> {
    let random = random_u64().ok_or(FleetLinkError::Random)?;
    let ticket = inner.state().table.servers.ticket(random);
    let (mut arrived, first) = {
        let mut nodes = inner.tunnels.lock();
        let link = nodes.entry(node.to_owned()).or_default();
        match &link.dial {
            Some(dial) => (dial.arrived.subscribe(), false),
            None => {
                let (sender, arrived) = watch::channel(None);
                link.dial = Some(Dial { ticket, arrived: sender });
                (arrived, true)
            }
        }
    };
    if first {
        tokio::spawn(call(inner.clone(), node.to_owned(), index, ticket));
    }
    let tunnel = arrived.wait_for(Option::is_some).await.ok().and_then(|tunnel| tunnel.clone());
    tunnel.ok_or_else(|| FleetLinkError::NoDialBack {
        node: node.to_owned(),
        heard: heard(inner, index),
    })
}

/// Pokes the node until it has come or the time is up.
async fn call(inner: Arc<Inner>, node: String, index: NodeIndex, ticket: u64) {
    let calls = async {
        while inner.tunnels.dialing(&node, ticket) {
            poke(&inner, index, ticket);
            tokio::time::sleep(POKE_AGAIN).await;
        }
    };
    if timeout(DIAL_TIMEOUT, calls).await.is_err() {
        inner.tunnels.take_dial(&node, ticket);
    }
}

/// Pokes the node, or has the server poke it that it speaks to. The ticket says where to come, so that its request
/// needs no way through that server.
fn poke(inner: &Inner, index: NodeIndex, ticket: u64) {
    let mut state = inner.state();
    let speaks_to = state.table.speaks_to(index);
    if speaks_to.is_some() || state.table.fresh(index).is_none() {
        state.table.servers.dial_back(speaks_to, index, ticket);
    } else {
        state.pokes.dial_back(index, ticket);
        inner.poked.notify_one();
    }
}

fn heard(inner: &Inner, index: NodeIndex) -> String {
    let now = inner.now();
    match inner.state().table.heard(index) {
        Some(at) => format!("last heard {} s ago", now.saturating_sub(at).as_secs()),
        None => "never heard since the server started".to_owned(),
    }
}

/// `POST /fleet/v1/tunnel`: the node has come. Answers 101; the roles turn round after it.
pub(crate) fn accept(
    inner: &Arc<Inner>,
    node: &str,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let headers = request.headers();
    let wants = headers.get(header::UPGRADE).is_some_and(|protocol| {
        protocol.as_bytes().eq_ignore_ascii_case(toono_wire::path::TUNNEL_PROTOCOL.as_bytes())
    });
    if !wants || request.version() != http::Version::HTTP_11 {
        let why = "a tunnel needs HTTP/1.1 and the header Upgrade: toono-tunnel";
        return Err(ApiError::BadRequest(why.into()));
    }
    let ticket = headers
        .get(toono_wire::path::TICKET_HEADER)
        .and_then(|ticket| ticket.to_str().ok()?.parse().ok())
        .ok_or_else(|| ApiError::BadRequest("a tunnel needs the header Toono-Ticket".into()))?;
    let dial = inner.tunnels.take_dial(node, ticket).ok_or_else(|| {
        ApiError::ForbiddenPath("no one waits for this ticket of this node (any more)".into())
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(carry(inner.clone(), node.to_owned(), upgrade, dial));

    let mut response = Response::new(toono_http::empty());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let protocol = HeaderValue::from_static(toono_wire::path::TUNNEL_PROTOCOL);
    response.headers_mut().insert(header::UPGRADE, protocol);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    Ok(response)
}

/// One tunnel's life.
async fn carry(inner: Arc<Inner>, node: String, upgrade: OnUpgrade, dial: Dial) {
    let handshake = async {
        let upgraded = upgrade.await?;
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .handshake::<_, Body>(upgraded)
            .await
    };
    let (sender, connection) = match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => return tracing::debug!(node, %error, "a tunnel failed to start"),
        Err(_) => return tracing::debug!(node, "a tunnel took too long to start"),
    };
    let mut driver = tokio::spawn(connection);
    let (in_flight, mut used) = watch::channel(0);
    let tunnel = Arc::new(Tunnel { sender, in_flight });
    inner.tunnels.add(&node, tunnel.clone());
    dial.arrived.send_replace(Some(tunnel.clone()));
    tracing::debug!(node, "tunnel open");
    tokio::select! {
        _ = &mut driver => {}
        () = idle(&mut used, inner.config.tunnel_linger) => {}
    }
    // With the last sender the connection closes, once what still runs in it has ended.
    inner.tunnels.remove(&node, &tunnel);
    tracing::debug!(node, "tunnel closing");
}

/// Completes when no request has been in flight for `linger`.
async fn idle(in_flight: &mut watch::Receiver<usize>, linger: Duration) {
    loop {
        if in_flight.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        let used = timeout(linger, in_flight.wait_for(|count| *count > 0)).await.is_ok();
        if !used {
            return;
        }
    }
}
