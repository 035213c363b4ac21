//! The session's datagrams in a WebSocket over real TCP.

use std::time::Duration;

use http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use toono_session::{NodeEvent, NodeSession, Observed, Poke};
use toono_streams::websocket::Datagrams;

use crate::{
    tunnels::serve,
    world::{GRACE, World},
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Socket {
    stream: TokioIo<hyper::upgrade::Upgraded>,
    ends: Datagrams,
}

async fn upgrade(server: std::net::SocketAddr, key: &str) -> Result<Socket, StatusCode> {
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get("/fleet/v1/session/socket")
        .header("host", "server")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", key)
        .body(toono_http::empty())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(response.status());
    }
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    Ok(Socket { stream, ends: Datagrams::client(|| 0x0102_0304) })
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

impl Socket {
    async fn send(&mut self, bytes: &[u8]) {
        self.ends.send(bytes);
        self.stream.write_all(&self.ends.output().split()).await.unwrap();
    }

    async fn beat(&mut self, session: &mut NodeSession) {
        let heartbeat = session.heartbeat(Duration::ZERO, Observed::default()).unwrap();
        self.send(heartbeat.as_bytes()).await;
    }

    /// The next event; none when the server has closed.
    async fn event(&mut self, session: &mut NodeSession) -> Option<NodeEvent> {
        loop {
            while let Some(datagram) = self.ends.next_datagram().unwrap() {
                if let Ok(event) = session.receive(&datagram, Duration::ZERO) {
                    return Some(event);
                }
            }
            if self.ends.is_ended() {
                return None;
            }
            let mut buffer = [0; 256];
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.unwrap().unwrap();
            if read == 0 {
                return None;
            }
            self.ends.push(&buffer[..read]).unwrap();
        }
    }

    /// Until the server counts the node as alive.
    async fn settle(&mut self, session: &mut NodeSession) {
        self.beat(session).await;
        while let Some(event) = self.event(session).await {
            match event {
                NodeEvent::Reply { send_again: true, .. } => self.beat(session).await,
                NodeEvent::Reply { .. } => return,
                NodeEvent::Poke(_) => {}
            }
        }
        panic!("the server closed");
    }
}

#[tokio::test]
async fn a_node_without_udp_is_ready_and_poked_through_its_socket() {
    let world = World::start().await;
    let server = serve(&world.fleet).await;
    let mut node = world.join("edge-a").await;
    let mut socket = upgrade(server, KEY).await.unwrap();
    socket.settle(&mut node.session).await;
    world.until_ready("edge-a", "True").await;
    let overview = world.overview("edge-a").await;
    assert_eq!(overview["session"], json!("websocket"));

    let send = world.fleet.send("edge-a", Request::get("/x").body(toono_http::empty()).unwrap());
    let poked = async {
        loop {
            match socket.event(&mut node.session).await.unwrap() {
                NodeEvent::Poke(Poke::DialBack { .. }) => return,
                other => assert!(!matches!(other, NodeEvent::Reply { .. }), "{other:?}"),
            }
        }
    };
    tokio::select! {
        _ = send => panic!("nobody dialled back"),
        () = poked => {}
    }

    // A probe by UDP is answered there, and the cloud's own words stay on the socket until a heartbeat.
    let probe = node.session.probe(Duration::ZERO, Observed::default()).unwrap();
    node.socket.send(probe.as_bytes()).await.unwrap();
    assert!(node.answered_within(PATIENCE).await);
    assert_eq!(world.overview("edge-a").await["session"], json!("websocket"));
    node.beat().await;
    assert_eq!(world.overview("edge-a").await["session"], json!("udp"));
}

#[tokio::test]
async fn a_socket_is_its_nodes_alone_and_ends_with_its_silence() {
    let world = World::start().await;
    let server = serve(&world.fleet).await;
    assert_eq!(upgrade(server, KEY).await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
    let mut node = world.join("edge-a").await;
    let mut other = world.join("edge-b").await;
    assert_eq!(upgrade(server, "short").await.err(), Some(StatusCode::BAD_REQUEST));

    let mut first = upgrade(server, KEY).await.unwrap();
    first.settle(&mut node.session).await;
    // Another node's heartbeat, bytes that are none, and a replay get no answer here.
    first.beat(&mut other.session).await;
    first.send(b"nonsense").await;
    let replay = node.session.heartbeat(Duration::ZERO, Observed::default()).unwrap();
    first.send(replay.as_bytes()).await;
    assert!(matches!(first.event(&mut node.session).await, Some(NodeEvent::Reply { .. })));
    first.send(replay.as_bytes()).await;
    assert_eq!(other.session.unanswered(), 1);

    let mut second = upgrade(server, KEY).await.unwrap();
    assert_eq!(first.event(&mut node.session).await, None, "one socket a node");
    second.settle(&mut node.session).await;
    let silent = std::time::Instant::now();
    assert_eq!(second.event(&mut node.session).await, None);
    assert!(silent.elapsed() >= GRACE / 2, "{:?}", silent.elapsed());
}
