//! `port-forward`.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout};

use crate::host::Host;
use crate::kubectl::{PATIENCE, Protocol, kubectl};
use crate::site::Site;

/// Answers each connection with what it sent, in capitals, once it has sent all.
async fn shouting_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                heard.make_ascii_uppercase();
                stream.write_all(&heard).await.unwrap();
            });
        }
    });
    port
}

struct Forwarder {
    /// Killed when dropped.
    child: Child,
    _lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Forwarder {
    async fn start(protocol: Protocol, site: &Site, to: u16) -> Self {
        let mut command = kubectl(protocol, site);
        command.args(["port-forward", "--address=127.0.0.1", "web", &format!(":{to}")]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it hangs");
        let first = first.unwrap().expect("kubectl ended");
        let port =
            first.split([':', ' ']).nth(3).unwrap().parse().unwrap_or_else(|_| panic!("{first}"));
        Self { child, _lines: lines, port }
    }

    /// Connects, gets no byte, and returns what kubectl says of that.
    async fn error_of_a_connection(&mut self) -> String {
        let mut errors = BufReader::new(self.child.stderr.take().unwrap()).lines();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let mut got = Vec::new();
        // It ends without a byte, cleanly or not.
        let _ = stream.read_to_end(&mut got).await;
        assert!(got.is_empty());
        let line = tokio::time::timeout(PATIENCE, errors.next_line()).await.expect("it hangs");
        line.unwrap().unwrap_or_default()
    }
}

#[tokio::test]
async fn connections_go_both_ways_at_the_same_time() {
    let echo = shouting_server().await;
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let forwarder = Forwarder::start(protocol, &site, echo).await;
        let exchanges = (0..8).map(|index| async move {
            let mut stream = TcpStream::connect(("127.0.0.1", forwarder.port)).await.unwrap();
            let sent = format!("hello {index}\n").repeat(40_000);
            stream.write_all(sent.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert!(got == sent.to_uppercase().into_bytes(), "{protocol:?}: {} bytes", got.len());
        });
        let all = futures::future::join_all(exchanges);
        tokio::time::timeout(PATIENCE, all).await.expect("it hangs");
        assert_eq!(*site.upgrades.lock().unwrap(), [protocol.upgrade()]);
    }
}

#[tokio::test]
async fn a_forwarder_that_ends_takes_its_connections_along() {
    const CONNECTIONS: usize = 3;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endless = listener.local_addr().unwrap().port();
    let (told, mut ended) = tokio::sync::mpsc::channel(CONNECTIONS);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let told = told.clone();
            tokio::spawn(async move {
                while stream.write_all(&[b'x'; 1000]).await.is_ok() {}
                told.send(()).await.unwrap();
            });
        }
    });
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let mut forwarder = Forwarder::start(protocol, &site, endless).await;
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(("127.0.0.1", forwarder.port)).await.unwrap();
            stream.read_exact(&mut vec![0; 100_000]).await.unwrap();
            // Read on: a client that stalls holds up the other connections of its forwarder.
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
        forwarder.child.kill().await.unwrap();
        for _ in 0..CONNECTIONS {
            let waited = tokio::time::timeout(PATIENCE, ended.recv()).await;
            assert!(waited.is_ok(), "{protocol:?}: the node was not told");
        }
    }
}

#[tokio::test]
async fn a_silent_node_is_told() {
    for protocol in Protocol::BOTH {
        let silent_for = Some(std::time::Duration::from_secs(42));
        let site = Site::start(Host { silent_for, ..Host::new() }).await;
        let mut forwarder = Forwarder::start(protocol, &site, 80).await;
        let line = forwarder.error_of_a_connection().await;
        assert!(line.contains("node edge-1 has not been heard for 42s"), "{protocol:?}: {line}");
    }
}

#[tokio::test]
async fn a_refused_port_is_told() {
    // Bound and not listening: nobody else gets it, and it refuses.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = taken.local_addr().unwrap().port();
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let mut forwarder = Forwarder::start(protocol, &site, refusing).await;
        let line = forwarder.error_of_a_connection().await;
        assert!(line.contains("Connection refused"), "{protocol:?}: {line}");
    }
}
