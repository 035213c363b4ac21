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
async fn a_refused_port_is_told() {
    // Bound and not listening: nobody else gets it, and it refuses.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = taken.local_addr().unwrap().port();
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let mut forwarder = Forwarder::start(protocol, &site, refusing).await;
        let mut errors = BufReader::new(forwarder.child.stderr.take().unwrap()).lines();
        let mut stream = TcpStream::connect(("127.0.0.1", forwarder.port)).await.unwrap();
        let mut got = Vec::new();
        // It ends without a byte, cleanly or not.
        let _ = stream.read_to_end(&mut got).await;
        assert!(got.is_empty());
        let line = tokio::time::timeout(PATIENCE, errors.next_line()).await.expect("it hangs");
        let line = line.unwrap().unwrap_or_default();
        assert!(line.contains("Connection refused"), "{protocol:?}: {line}");
    }
}
