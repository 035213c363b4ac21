//! A fleet over an API in memory, and nodes that speak to it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::UdpSocket, sync::oneshot, task::JoinHandle, time::timeout};
use toono_api::UserInfo;
use toono_fleet::{ClusterSecret, Fleet, FleetConfig, Grace};
use toono_http::Body;
use toono_http::PeerCertificates;
use toono_pki::{ClusterCa, NodeKey};
use toono_session::{NodeEvent, NodeSession, Observed, ReplyFlags};
use toono_wire::join::{CertificateReply, JoinRequest, JoinResponse, SessionGrant};

use crate::api::MemoryApi;

pub(crate) const HEARTBEAT: Duration = Duration::from_millis(150);
pub(crate) const GRACE: Duration = Duration::from_millis(1200);

/// One server process.
pub(crate) struct World {
    pub(crate) api: MemoryApi,
    pub(crate) fleet: Fleet,
    pub(crate) udp: SocketAddr,
    pub(crate) ca_pem: String,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::over(MemoryApi::new()).await
    }

    /// A server on what an earlier one left behind.
    pub(crate) async fn over(api: MemoryApi) -> Self {
        Self::of(api, Arc::new(ClusterCa::generate().unwrap()), GRACE).await
    }

    /// A server with this CA, for which nodes are silent after this time.
    pub(crate) async fn of(api: MemoryApi, ca: Arc<ClusterCa>, grace: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let udp = socket.local_addr().unwrap();
        let config = FleetConfig {
            heartbeat: HEARTBEAT,
            grace: Grace::of_all(grace),
            tunnel_linger: Duration::from_millis(300),
            ..FleetConfig::new(vec![ClusterSecret::new(1, &[7; 32])], udp.port(), "test")
        };
        let ca_pem = ca.cert_pem().to_owned();
        let fleet = Fleet::new(config, api.client(), ca).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let runner = fleet.clone();
        let running = tokio::spawn(async move {
            runner.run(socket, async { stopped.await.unwrap_or(()) }).await;
        });
        let world = Self { api, fleet, udp, ca_pem, stop: Some(stop), running };
        world.until_loaded().await;
        world
    }

    /// Ends this server; the API stays.
    pub(crate) async fn stop(mut self) -> MemoryApi {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.running).await.unwrap();
        self.api.clone()
    }

    /// All has been read: bundles and parts are answered, and joins no longer say 503.
    async fn until_loaded(&self) {
        for (method, path, user) in [
            (Method::GET, "/fleet/v1/bundle", node_user("probe")),
            (Method::GET, "/fleet/v1/session", node_user("probe")),
            (Method::GET, "/fleet/v1/pool", node_user("probe")),
        ] {
            while self.ask(method.clone(), path, &user, &json!({})).await.0 == 503 {
                tokio::task::yield_now().await;
            }
        }
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        uri: &str,
        user: &UserInfo,
        body: &Value,
    ) -> (u16, Value) {
        let response = self.response(method, uri, user, body).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code.as_u16(), serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub(crate) async fn response(
        &self,
        method: Method,
        uri: &str,
        user: &UserInfo,
        body: &Value,
    ) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .body(toono_http::full(body.to_string()))
            .unwrap();
        request.extensions_mut().insert(user.clone());
        (self.fleet.handler())(request).await
    }

    /// The answer's code to who shows this certificate.
    pub(crate) async fn ask_showing(&self, uri: &str, user: &UserInfo, pem: &str) -> u16 {
        let shown = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut request = Request::get(uri).body(toono_http::empty()).unwrap();
        request.extensions_mut().insert(user.clone());
        request.extensions_mut().insert(PeerCertificates::new([shown].into()));
        (self.fleet.handler())(request).await.status().as_u16()
    }

    /// Asks for the next certificate by this one.
    pub(crate) async fn next_certificate(&self, name: &str, pem: &str) -> Result<String, u16> {
        let shown = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let body = json!({"csr_pem": NodeKey::generate(name).unwrap().csr_pem}).to_string();
        let mut request =
            Request::post("/fleet/v1/certificate").body(toono_http::full(body)).unwrap();
        request.extensions_mut().insert(node_user(name));
        request.extensions_mut().insert(PeerCertificates::new([shown].into()));
        let response = (self.fleet.handler())(request).await;
        if !response.status().is_success() {
            return Err(response.status().as_u16());
        }
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let reply: CertificateReply = serde_json::from_slice(&bytes).unwrap();
        Ok(reply.certificate_pem)
    }

    pub(crate) async fn try_join(&self, name: &str) -> Result<JoinResponse, (u16, Value)> {
        let (code, answer) =
            self.ask(Method::POST, "/fleet/v1/join", &joiner(), &join_request(name)).await;
        if code == StatusCode::OK {
            Ok(serde_json::from_value(answer).unwrap())
        } else {
            Err((code, answer))
        }
    }

    pub(crate) async fn join(&self, name: &str) -> Node {
        let joined = self.try_join(name).await.unwrap();
        Node::new(name, &joined.session, 1, self.udp).await
    }

    pub(crate) async fn overview(&self, name: &str) -> Value {
        let admin = UserInfo::component("admin");
        let (code, answer) = self.ask(Method::GET, "/fleet/v1/overview", &admin, &json!({})).await;
        assert_eq!(code, 200);
        answer["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|node| node["name"] == name)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) async fn until_ready(&self, name: &str, status: &str) {
        self.api.until(&format!("/api/v1/nodes/{name}"), |node| ready(node) == status).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.abort();
    }
}

pub(crate) fn ready(node: Option<&Value>) -> String {
    let conditions = node.map(|node| node["status"]["conditions"].clone()).unwrap_or_default();
    let ready = conditions.as_array().into_iter().flatten().find(|c| c["type"] == "Ready").cloned();
    ready.unwrap_or_default()["status"].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn joiner() -> UserInfo {
    UserInfo::new("system:bootstrap:abcdef", ["system:bootstrappers"])
}

pub(crate) fn node_user(name: &str) -> UserInfo {
    UserInfo::new(&format!("system:node:{name}"), ["system:nodes"])
}

pub(crate) fn join_request(name: &str) -> Value {
    serde_json::to_value(JoinRequest {
        node_name: name.to_owned(),
        pool: Some("west".to_owned()),
        csr_pem: NodeKey::generate(name).unwrap().csr_pem,
        status: json!({"capacity": {"cpu": "2", "pods": "110"}, "conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]}),
    })
    .unwrap()
}

/// A node's end: a session and a socket.
pub(crate) struct Node {
    pub(crate) user: UserInfo,
    pub(crate) session: NodeSession,
    pub(crate) socket: UdpSocket,
    pub(crate) observed: Observed,
    started: Instant,
}

impl Node {
    pub(crate) async fn new(
        name: &str,
        grant: &SessionGrant,
        boot: u32,
        server: SocketAddr,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        Self {
            user: node_user(name),
            session: NodeSession::new(grant, boot, 0x5a17).unwrap(),
            socket,
            observed: Observed { status: 1, ..Observed::default() },
            started: Instant::now(),
        }
    }

    /// Sends one heartbeat and returns its bytes.
    pub(crate) async fn send(&mut self) -> Vec<u8> {
        let datagram = self.session.heartbeat(self.started.elapsed(), self.observed).unwrap();
        self.socket.send(datagram.as_bytes()).await.unwrap();
        datagram.as_bytes().to_vec()
    }

    /// The next event, from any datagram that makes one.
    pub(crate) async fn event(&mut self) -> NodeEvent {
        self.event_within(Duration::from_secs(10)).await.expect("the server says nothing")
    }

    pub(crate) async fn event_within(&mut self, limit: Duration) -> Option<NodeEvent> {
        let deadline = Instant::now() + limit;
        loop {
            let mut buffer = [0; 200];
            let left = deadline.saturating_duration_since(Instant::now());
            let length = timeout(left, self.socket.recv(&mut buffer)).await.ok()?.unwrap();
            if let Ok(event) = self.session.receive(&buffer[..length], self.started.elapsed()) {
                return Some(event);
            }
        }
    }

    /// Whether a heartbeat is answered in this time, whatever pokes arrive.
    pub(crate) async fn answered_within(&mut self, limit: Duration) -> bool {
        while let Some(event) = self.event_within(limit).await {
            if matches!(event, NodeEvent::Reply { .. }) {
                return true;
            }
        }
        false
    }

    /// Heartbeats until the server counts this node as alive; returns the desired revision.
    pub(crate) async fn beat(&mut self) -> u64 {
        self.asked().await.0
    }

    /// As [`beat`](Self::beat), with what else the reply asks for.
    pub(crate) async fn asked(&mut self) -> (u64, ReplyFlags) {
        self.send().await;
        loop {
            if let NodeEvent::Reply { send_again, desired_revision, flags, .. } = self.event().await
            {
                if !send_again {
                    return (desired_revision, flags);
                }
                self.send().await;
            }
        }
    }
}
