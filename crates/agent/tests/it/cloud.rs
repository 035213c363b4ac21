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
use toono_pki::{BootstrapToken, CaPin, ClusterCa};
use toono_session::{
    Address, Answer, ClusterSecret, NodeIndex, NodeUid, Poke, ReplyFlags, ServerSessions,
};
use toono_wire::{
    bundle::Bundle,
    join::{JoinRequest, JoinResponse, SessionGrant},
    path,
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

    /// The reasons of all events so far.
    pub fn events(&self) -> Vec<String> {
        let reports = self.state.reports.lock().unwrap();
        reports.iter().flat_map(|it| it.events.iter().map(|event| event.reason.clone())).collect()
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
                ok(&Bundle {
                    revision,
                    present: present.collect(),
                    pods: pods.iter().map(raw).collect(),
                })
            }
            path::REPORT if known => {
                self.reports.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                self.reported.notify_waiters();
                ok(&ReportReply::default())
            }
            _ => refuse(StatusCode::UNAUTHORIZED, "Unauthorized"),
        }
    }

    fn join(&self, request: &JoinRequest) -> JoinResponse {
        let sessions = self.sessions.lock().unwrap();
        let (epoch, key) = sessions.grant(&NodeUid::new(NODE_UID), 1).unwrap();
        JoinResponse {
            node_uid: NODE_UID.to_owned(),
            certificate_pem: self.ca.sign_node_csr(&request.csr_pem, &request.node_name).unwrap(),
            ca_pem: self.ca.cert_pem().to_owned(),
            pod_cidr: POD_CIDR.to_owned(),
            bundle_revision: 0,
            session: SessionGrant {
                index: 0,
                generation: 1,
                epoch,
                key_hex: key.to_hex(),
                udp_port: self.port,
                interval_ms: 1000,
                boot_floor: 0,
            },
        }
    }

    async fn beat(&self) {
        let mut buffer = [0; 256];
        loop {
            let Ok((length, from)) = self.udp.recv_from(&mut buffer).await else { continue };
            let answer = Answer {
                desired_revision: self.bundle.lock().unwrap().0,
                flags: ReplyFlags::default(),
                interval: Duration::from_secs(1),
            };
            let reply = {
                let mut sessions = self.sessions.lock().unwrap();
                let opened = sessions.receive(&buffer[..length], from, self.origin.elapsed());
                opened.map(|opened| sessions.reply(&opened, &answer))
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
