//! One simulated node that keeps its pool's part: a session of its own by UDP, TLS connections of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, sleep_until},
};
use toono_http::client::{Connection, Endpoint};
use toono_pki::{CaKeys, Issued};
use toono_session::{NodeEvent, NodeSession, Observed, Poke, ReplyFlags};
use toono_wire::{
    bundle::Bundle,
    datagram::MAX_DATAGRAM,
    join::JoinResponse,
    path,
    pool::{Hub, Part, Version, frame::Frame},
};

use super::counted::{Counted, Traffic};
use crate::Failure;

/// How long a connection waits for the next request, as an agent's does.
const LINGER: Duration = Duration::from_secs(3);
/// A fetch that failed is tried again within this.
const AGAIN: Duration = Duration::from_secs(2);
/// The digest of a report that the server is taken to have acknowledged.
const REPORTED: u32 = 1;
/// The first address of endpoints that updates make; the one of update N is N further.
pub(super) const UPDATED: u32 = 0x0a80_0000;

/// What all nodes share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) fetches: Arc<Traffic>,
    pub(super) heartbeats: Traffic,
    pub(super) pokes: Traffic,
    /// When each update was asked for.
    pub(super) asked: Mutex<Vec<Instant>>,
    /// How long after that a node had it: the update, and the time.
    pub(super) delays: Mutex<Vec<(u32, Duration)>>,
    /// Digests of what each node has.
    pub(super) digests: Vec<AtomicU64>,
    /// Frames that were taken from the cloud, and from neighbours.
    pub(super) from_cloud: AtomicU64,
    pub(super) from_hub: AtomicU64,
    /// Times that a node was asked to compare.
    pub(super) compared: AtomicU64,
}

pub(super) struct Node {
    number: usize,
    name: String,
    session: NodeSession,
    socket: UdpSocket,
    observed: u64,
    part: Part,
    keys: Arc<CaKeys>,
    endpoint: Endpoint,
    tls: Arc<rustls::ClientConfig>,
    open: Option<Connection>,
    close_at: Instant,
    /// What the pool's hub tells its neighbours.
    told: broadcast::Sender<Bytes>,
    hub: Option<String>,
    /// The bundle is to be fetched first, as the cloud asked.
    compares: bool,
    began: Instant,
    interval: Duration,
    shared: Arc<Shared>,
}

async fn get(connection: &mut Connection, uri: &str) -> Result<(HeaderMap, Bytes), Failure> {
    let response = connection.send(Request::get(uri).body(toono_http::empty())?).await?;
    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::OK {
        return Err(format!("{uri} answered {}", parts.status).into());
    }
    Ok((parts.headers, body.collect().await?.to_bytes()))
}

impl Node {
    pub(super) async fn new(
        (number, name): (usize, String),
        joined: &JoinResponse,
        key_pem: &str,
        endpoint: Endpoint,
        told: broadcast::Sender<Bytes>,
        shared: Arc<Shared>,
    ) -> Result<Self, Failure> {
        let own = Issued { cert_pem: joined.certificate_pem.clone(), key_pem: key_pem.to_owned() };
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, joined.session.udp_port))).await?;
        Ok(Self {
            number,
            name,
            session: NodeSession::new(&joined.session, 1, u32::try_from(number)?)?,
            socket,
            observed: joined.bundle_revision,
            part: Part::default(),
            keys: Arc::new(CaKeys::of_pem(&joined.ca_pem)?),
            endpoint,
            tls: toono_pki::client_config(&joined.ca_pem, Some(&own))?,
            open: None,
            close_at: Instant::now(),
            told,
            hub: None,
            compares: false,
            began: Instant::now(),
            interval: Duration::from_millis(joined.session.interval_ms.into()),
            shared,
        })
    }

    /// Lives until its task is dropped.
    pub(super) async fn live(mut self) {
        let mut heard = self.told.subscribe();
        self.fetch().await;
        let mut beat = Instant::now() + self.interval.mul_f64(fastrand::f64());
        loop {
            let mut datagram = [0; MAX_DATAGRAM];
            tokio::select! {
                () = sleep_until(beat) => {
                    beat += self.interval;
                    self.beat().await;
                }
                received = self.socket.recv(&mut datagram) => {
                    if let Some(bytes) = received.ok().and_then(|length| datagram.get(..length)) {
                        self.take(bytes).await;
                    }
                }
                frames = heard.recv() => match frames {
                    Ok(frames) if self.hub.as_ref() != Some(&self.name) => self.hear(&frames).await,
                    Err(RecvError::Lagged(_)) => self.fetch().await,
                    _ => {}
                },
                () = sleep_until(self.close_at), if self.open.is_some() => self.open = None,
            }
        }
    }

    async fn beat(&mut self) {
        let bundle = self.part.version().share();
        let observed = Observed { revision: self.observed, bundle, status: REPORTED };
        let Ok(datagram) = self.session.heartbeat(self.began.elapsed(), observed) else { return };
        if self.socket.send(datagram.as_bytes()).await.is_ok() {
            self.shared.heartbeats.up.add(datagram.as_bytes().len());
        }
    }

    async fn take(&mut self, bytes: &[u8]) {
        match self.session.receive(bytes, self.began.elapsed()) {
            Ok(NodeEvent::Reply { desired_revision, flags, send_again, .. }) => {
                self.shared.heartbeats.down.add(bytes.len());
                self.observed = desired_revision;
                if send_again {
                    self.beat().await;
                }
                if flags.contains(ReplyFlags::COMPARE) {
                    self.shared.compared.fetch_add(1, Ordering::Relaxed);
                    self.compares = true;
                    self.fetch().await;
                }
            }
            Ok(NodeEvent::Poke(poke)) => {
                self.shared.pokes.down.add(bytes.len());
                if let Poke::PoolMoved { revision } = poke
                    && revision != self.part.version().revision
                {
                    self.fetch().await;
                }
            }
            Err(_) => {}
        }
    }

    /// Asks the cloud for what is new, until it answers.
    async fn fetch(&mut self) {
        while self.fetch_once().await.is_err() {
            self.open = None;
            sleep(AGAIN.mul_f64(fastrand::f64())).await;
        }
        self.close_at = Instant::now() + LINGER;
    }

    async fn fetch_once(&mut self) -> Result<(), Failure> {
        let mut connection = match self.open.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        if self.compares {
            let uri = format!("{}?since={}", path::BUNDLE, self.observed);
            let (_, bundle) = get(&mut connection, &uri).await?;
            self.observed = serde_json::from_slice::<Bundle>(&bundle)?.revision;
            self.compares = false;
        }
        let Version { revision, digest } = self.part.version();
        let uri = format!("{}?since={revision}&digest={digest:x}", path::POOL);
        let (headers, frames) = get(&mut connection, &uri).await?;
        let hub = headers.get(path::HUB_HEADER);
        let hub = hub.and_then(|hub| serde_json::from_slice::<Hub>(hub.as_bytes()).ok());
        self.hub = hub.map(|hub| hub.node);
        self.open = Some(connection);
        if let Err(error) = self.apply(&frames) {
            self.part = Part::default();
            return Err(error);
        }
        if self.hub.as_ref() == Some(&self.name) {
            // Nobody listens in a pool of one.
            let _ = self.told.send(frames);
        }
        self.shared.from_cloud.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port)).await?;
        stream.set_nodelay(true)?;
        let stream = Counted::new(stream, self.shared.fetches.clone());
        Ok(Connection::over(stream, &self.endpoint, Some(&self.tls)).await?)
    }

    /// What the hub says; what does not fit is asked of the cloud.
    async fn hear(&mut self, frames: &Bytes) {
        match self.apply(frames) {
            Ok(()) => drop(self.shared.from_hub.fetch_add(1, Ordering::Relaxed)),
            Err(_) => self.fetch().await,
        }
    }

    fn apply(&mut self, frames: &Bytes) -> Result<(), Failure> {
        for frame in Frame::decode_all(frames.clone())? {
            if frame.now == self.part.version() {
                continue;
            }
            if !self.keys.vouch_for(&frame.statement(), &frame.signature) {
                return Err("a frame that is not the cloud's".into());
            }
            self.part.apply(&frame)?;
            self.note(&frame)?;
        }
        let digest = self.part.version().digest;
        if let Some(place) = self.shared.digests.get(self.number) {
            place.store(digest, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Notes which updates a frame brought, and how long they took.
    fn note(&self, frame: &Frame) -> Result<(), Failure> {
        let now = Instant::now();
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut brought = Vec::new();
        for (key, _) in frame.changes()?.changed {
            let address = key.rsplit('/').next().and_then(|text| text.parse::<Ipv4Addr>().ok());
            let update = address.and_then(|address| u32::from(address).checked_sub(UPDATED));
            let at = update.and_then(|update| asked.get(usize::try_from(update).ok()?));
            if let (Some(update), Some(at)) = (update, at) {
                brought.push((update, now.saturating_duration_since(*at)));
            }
        }
        drop(asked);
        let mut delays = self.shared.delays.lock().unwrap_or_else(PoisonError::into_inner);
        delays.extend(brought);
        Ok(())
    }
}
