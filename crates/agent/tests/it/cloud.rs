//! The cloud's end of one node, on the real parts below it: TLS, certificates, sessions, datagrams.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::FutureExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::PodStatus;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Notify, oneshot},
    task::JoinHandle,
};
use toono_http::{Body, Handler, server};
use toono_pki::{BootstrapToken, CLIENT_LIFETIME, CaPin, ClusterCa};
use toono_session::{
    Address, Answer, BundleDigest, ClusterSecret, NodeIndex, NodeUid, PodDigest, Poke,
    ReferentDigest, ReplyFlags, ServerSessions,
};
use toono_wire::{
    bundle::Bundle,
    join::{JoinRequest, JoinResponse, SessionGrant},
    path,
    pool::{
        PoolNews, Records, Version,
        frame::{Changes, Frame},
    },
    referent::Referent,
    report::{PodReport, Report, ReportReply},
};

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);
const NODE_UID: &str = "3f0c1d52-7a65-4d0c-9c0e-0c8f4f6a0b11";
pub const POD_CIDR: &str = "10.244.7.0/24";

pub struct Cloud {
    pub address: SocketAddr,
    pub pin: CaPin,
    pub token: BootstrapToken,
    state: Arc<State>,
    serving: Vec<JoinHandle<()>>,
}

struct State {
    ca: ClusterCa,
    token: String,
    port: u16,
    sessions: Mutex<ServerSessions>,
    bundle: Mutex<(u64, Vec<Value>)>,
    /// ConfigMaps and Secrets as they travel.
    referents: Mutex<Vec<Value>>,
    /// The pool's part, and its revision.
    records: Mutex<(u64, Records)>,
    /// What the next tokens last, in seconds; none are given while it is 0.
    token_seconds: Mutex<u32>,
    /// Requests for tokens: the path, and the body.
    asked: Mutex<Vec<(String, Value)>>,
    reports: Mutex<Vec<Report>>,
    reported: Notify,
    /// Where pokes to the node go.
    node: Mutex<Option<SocketAddr>>,
    udp: UdpSocket,
    origin: Instant,
    tunnel: Mutex<Option<oneshot::Sender<Tunnel>>>,
}

/// Requests to the node's own API.
type Tunnel = hyper::client::conn::http2::SendRequest<Body>;

impl Cloud {
    pub async fn start() -> Self {
        let ca = ClusterCa::generate().unwrap();
        let own = ca.issue_server(&["127.0.0.1".to_owned()]).unwrap();
        let tls = toono_pki::server_config(&ca, &own).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let mut sessions = ServerSessions::new(77, vec![ClusterSecret::new(1, &[9; 32])]);
        sessions.admit(NodeIndex(0), NodeUid::new(NODE_UID), 1);
        let token = BootstrapToken::generate().unwrap();
        let state = Arc::new(State {
            token: token.to_string(),
            port: address.port(),
            sessions: Mutex::new(sessions),
            bundle: Mutex::default(),
            referents: Mutex::default(),
            records: Mutex::default(),
            token_seconds: Mutex::default(),
            asked: Mutex::default(),
            reports: Mutex::default(),
            reported: Notify::new(),
            node: Mutex::default(),
            udp,
            origin: Instant::now(),
            tunnel: Mutex::default(),
            ca,
        });
        let shared = state.clone();
        let handler: Handler = Arc::new(move |request| {
            let state = shared.clone();
            async move { state.answer(request).await }.boxed()
        });
        let http = server::serve(
            listener,
            Some(tls),
            handler,
            server::Limits::default(),
            std::future::pending(),
        );
        let beats = state.clone();
        let serving = vec![tokio::spawn(http), tokio::spawn(async move { beats.beat().await })];
        Self { address, pin: state.ca.pin(), token, state, serving }
    }

    /// As [`want`](Self::want), with what the pods reference.
    pub async fn want_with(&self, pods: Vec<Value>, referents: Vec<Value>) {
        *self.state.referents.lock().unwrap() = referents;
        self.want(pods).await;
    }

    /// Sets records of the pool's part, or takes those without a text out; the node hears of it with what it is
    /// to run.
    pub fn know(&self, changes: &[(&str, Option<&str>)]) {
        let mut known = self.state.records.lock().unwrap();
        known.0 += 1;
        for (key, text) in changes {
            match text {
                Some(text) => known.1.put(key, text),
                None => known.1.remove(key),
            };
        }
    }

    /// Tokens are given from now on, and last so long.
    pub fn give_tokens(&self, seconds: u32) {
        *self.state.token_seconds.lock().unwrap() = seconds;
    }

    /// The tokens that were asked for: paths and bodies.
    pub fn asked(&self) -> Vec<(String, Value)> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Sets what the node is to run, and pokes it.
    pub async fn want(&self, pods: Vec<Value>) {
        let revision = {
            let mut bundle = self.state.bundle.lock().unwrap();
            *bundle = (bundle.0 + 1, pods);
            bundle.0
        };
        let poke = {
            let mut sessions = self.state.sessions.lock().unwrap();
            sessions.poke(NodeIndex(0), Poke::BundleMoved { revision })
        };
        if let Some((datagram, Address::Udp(to))) = poke {
            self.state.udp.send_to(datagram.as_bytes(), to).await.unwrap();
        }
    }

    /// Waits until a report says this of a pod.
    pub async fn until(
        &self,
        uid: &str,
        what: impl Fn(&PodReport, &PodStatus) -> bool,
    ) -> PodStatus {
        let wait = async {
            loop {
                let news = self.state.reported.notified();
                if let Some(status) = self.find(uid, &what) {
                    return status;
                }
                news.await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(status) => status,
            Err(_) => panic!(
                "not reported in time; last: {:#?}",
                self.state.reports.lock().unwrap().last()
            ),
        }
    }

    fn find(&self, uid: &str, what: impl Fn(&PodReport, &PodStatus) -> bool) -> Option<PodStatus> {
        let reports = self.state.reports.lock().unwrap();
        let last = reports.iter().rev().find_map(|it| it.pods.iter().find(|pod| pod.uid == uid))?;
        let status: PodStatus = serde_json::from_value(last.status.clone()).unwrap();
        what(last, &status).then_some(status)
    }

    /// Asks the node to dial back, and sends requests through the tunnel.
    pub async fn dial_back(&self) -> Tunnel {
        let (opened, tunnel) = oneshot::channel();
        *self.state.tunnel.lock().unwrap() = Some(opened);
        let poke = {
            let mut sessions = self.state.sessions.lock().unwrap();
            sessions.poke(NodeIndex(0), Poke::DialBack { ticket: 42 })
        };
        let (datagram, to) = poke.expect("the node is known by a heartbeat");
        let Address::Udp(to) = to else { panic!("there is no socket here") };
        self.state.udp.send_to(datagram.as_bytes(), to).await.unwrap();
        tokio::time::timeout(PATIENCE, tunnel).await.unwrap().unwrap()
    }

    /// Asks the node's own API through a tunnel; a success is read whole.
    pub async fn ask_node(&self, target: &str) -> String {
        let mut tunnel = self.dial_back().await;
        let request = Request::get(format!("http://node{target}")).body(toono_http::empty());
        let response = tunnel.send_request(request.unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(status, StatusCode::OK, "{target}: {text}");
        text
    }

    /// The reasons of all events so far.
    pub fn events(&self) -> Vec<String> {
        let reports = self.state.reports.lock().unwrap();
        reports.iter().flat_map(|it| it.events.iter().map(|event| event.reason.clone())).collect()
    }

    /// Waits for a report; those that came before are there already.
    pub async fn news(&self) {
        // One may have come since its events were looked at.
        let soon = Duration::from_millis(100);
        let _ = tokio::time::timeout(soon, self.state.reported.notified()).await;
    }

    /// The messages of all events so far.
    pub fn messages(&self) -> Vec<String> {
        let reports = self.state.reports.lock().unwrap();
        reports.iter().flat_map(|it| it.events.iter().map(|event| event.message.clone())).collect()
    }

    /// The messages of all events of a reason so far.
    pub fn messages_of(&self, reason: &str) -> Vec<String> {
        let reports = self.state.reports.lock().unwrap();
        let events = reports.iter().flat_map(|it| &it.events);
        events.filter(|it| it.reason == reason).map(|it| it.message.clone()).collect()
    }

    /// Waits until the node says this of itself.
    pub async fn until_node(&self, what: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let news = self.state.reported.notified();
                if let Some(status) = self.node_status().filter(|status| what(status)) {
                    return status;
                }
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the node does not say so in time")
    }

    /// The last node status.
    pub fn node_status(&self) -> Option<Value> {
        self.state.reports.lock().unwrap().iter().rev().find_map(|it| it.node.clone())
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        for task in &self.serving {
            task.abort();
        }
    }
}

impl State {
    /// Takes the tunnel: this end becomes the client on it.
    fn open_tunnel(&self, mut request: Request<Body>) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut request);
        let opened = self.tunnel.lock().unwrap().take().expect("a tunnel that nobody asked for");
        tokio::spawn(async move {
            let stream = upgrade.await.unwrap();
            let executor = hyper_util::rt::TokioExecutor::new();
            let (sender, driver) =
                hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
            tokio::spawn(driver);
            drop(opened.send(sender));
        });
        let builder = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let builder = builder.header(header::CONNECTION, "upgrade");
        builder.header(header::UPGRADE, path::TUNNEL_PROTOCOL).body(toono_http::empty()).unwrap()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if request.uri().path() == path::TUNNEL {
            assert_eq!(request.headers()[path::TICKET_HEADER], "42");
            return self.open_tunnel(request);
        }
        let target = request.uri().path().to_owned();
        let bearer = request.headers().get(header::AUTHORIZATION).cloned();
        let known = request.extensions().get::<toono_http::PeerCertificates>().is_some();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        match target.as_str() {
            path::JOIN
                if bearer.is_some_and(|it| {
                    it.as_bytes() == format!("Bearer {}", self.token).as_bytes()
                }) =>
            {
                let request: JoinRequest = serde_json::from_slice(&body).unwrap();
                if request.node_name == "taken" {
                    return refuse(StatusCode::CONFLICT, "the node taken is alive");
                }
                ok(&self.join(&request))
            }
            path::BUNDLE if known => {
                let (revision, pods) = self.bundle.lock().unwrap().clone();
                let present =
                    pods.iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned());
                let raw = |pod: &Value| RawValue::from_string(pod.to_string()).unwrap();
                let digests = pods.iter().map(|pod| PodDigest::of_json(&pod.to_string()).unwrap());
                let referents = self.referents.lock().unwrap().clone();
                let texts = referents.iter().map(ToString::to_string).collect::<Vec<_>>();
                let read: Vec<Referent<'_>> =
                    texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
                let own = digests.collect::<BundleDigest>();
                let all = read.iter().map(|it| ReferentDigest::of(it).unwrap());
                ok(&Bundle {
                    revision,
                    present: present.collect(),
                    pods: pods.iter().map(raw).collect(),
                    referents: referents.iter().map(raw).collect(),
                    referenced: read.iter().map(|it| it.named().unwrap()).collect(),
                    digest: all.fold(own, BundleDigest::with).0,
                    pool: self.news(),
                })
            }
            path::POOL if known => Response::new(toono_http::full(self.part())),
            path::REPORT if known => {
                self.reports.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                self.reported.notify_waiters();
                ok(&ReportReply::default())
            }
            path if known && path.ends_with("/token") => self.give_token(path, &body),
            _ => refuse(StatusCode::UNAUTHORIZED, "Unauthorized"),
        }
    }

    fn version(&self) -> Version {
        let known = self.records.lock().unwrap();
        Version { revision: known.0, digest: known.1.digest() }
    }

    fn news(&self) -> Option<PoolNews> {
        let version = self.version();
        let news = PoolNews { name: String::new(), version, hub: None, pass: None, key: None };
        (version.revision > 0).then_some(news)
    }

    /// The whole part, signed.
    fn part(&self) -> Vec<u8> {
        let version = self.version();
        let records = self.records.lock().unwrap().1.clone();
        let changed = records.iter().map(|(key, text)| (key.clone(), text.clone())).collect();
        let changes = Changes { changed, gone: Vec::new() };
        let mut frame = Frame::of("", Version::NONE, version, &changes).unwrap();
        frame.signature = self.ca.sign_statement(&frame.statement()).unwrap().into();
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    fn give_token(&self, path: &str, body: &[u8]) -> Response<Body> {
        let seconds = *self.token_seconds.lock().unwrap();
        let mut asked = self.asked.lock().unwrap();
        asked.push((path.to_owned(), serde_json::from_slice(body).unwrap()));
        if seconds == 0 {
            return refuse(StatusCode::NOT_FOUND, "serviceaccounts \"bot\" not found");
        }
        ok(&json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"audiences": ["x"], "expirationSeconds": seconds},
            "status": {"token": format!("token-{}", asked.len()), "expirationTimestamp": "2030-01-01T00:00:00Z"}}))
    }

    fn join(&self, request: &JoinRequest) -> JoinResponse {
        let sessions = self.sessions.lock().unwrap();
        let (epoch, key) = sessions.grant(&NodeUid::new(NODE_UID), 1).unwrap();
        JoinResponse {
            node_uid: NODE_UID.to_owned(),
            certificate_pem: self
                .ca
                .sign_node_csr(&request.csr_pem, &request.node_name, CLIENT_LIFETIME.unsigned_abs())
                .unwrap(),
            ca_pem: self.ca.cert_pem().to_owned(),
            pod_cidr: POD_CIDR.to_owned(),
            bundle_revision: 0,
            pool: self.news(),
            dns: None,
            session: SessionGrant {
                index: 0,
                generation: 1,
                epoch,
                key_hex: key.to_hex(),
                udp_port: self.port,
                interval_ms: 1000,
                boot_floor: 0,
                servers: Vec::new(),
            },
        }
    }

    async fn beat(&self) {
        let mut buffer = [0; 256];
        loop {
            let Ok((length, from)) = self.udp.recv_from(&mut buffer).await else { continue };
            let desired_revision = self.bundle.lock().unwrap().0;
            let reply = {
                let mut sessions = self.sessions.lock().unwrap();
                let opened = sessions.receive(&buffer[..length], from, self.origin.elapsed());
                opened.map(|opened| {
                    // Who has something to tell is asked for it.
                    let asks = opened.fresh && opened.heartbeat.status_digest == 0;
                    let flags =
                        if asks { ReplyFlags::RESEND_STATUS } else { ReplyFlags::default() };
                    let interval = Duration::from_secs(1);
                    sessions.reply(&opened, &Answer { desired_revision, flags, interval })
                })
            };
            *self.node.lock().unwrap() = Some(from);
            if let Ok(reply) = reply {
                let _ = self.udp.send_to(reply.as_bytes(), from).await;
            }
        }
    }
}

fn ok<T: Serialize>(value: &T) -> Response<Body> {
    Response::new(toono_http::full(serde_json::to_vec(value).unwrap()))
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "status": "Failure", "message": message}).to_string();
    Response::builder().status(status).body(toono_http::full(body)).unwrap()
}
