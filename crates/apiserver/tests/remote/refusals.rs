//! What a client is told when there is no way into a pod.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::host::Host;
use crate::kubectl::{Protocol, text};
use crate::site::Site;

#[tokio::test]
async fn errors_are_kubernetes() {
    let table: [(&[&str], &str); 4] = [
        (&["exec", "web", "-c", "nope", "--", "true"], "container nope is not valid for pod web"),
        (&["exec", "pending", "--", "true"], "pod pending does not have a host assigned"),
        (&["exec", "web", "--", "refuse"], "container \"app\" is not running"),
        (&["logs", "web", "-c", "nope"], "container nope is not valid for pod web"),
    ];
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        for (args, message) in table {
            let (code, _, err) = text(protocol, &site, args).await;
            assert_eq!(code, Some(1), "{protocol:?} {args:?}");
            assert!(err.contains(message), "{protocol:?} {args:?}: {err}");
        }
    }
}

#[tokio::test]
async fn a_silent_node_is_named_with_a_hint() {
    for protocol in Protocol::BOTH {
        let host = Host { silent_for: Some(Duration::from_secs(42)), ..Host::new() };
        let site = Site::start(host).await;
        for args in [&["logs", "web"][..], &["exec", "web", "--", "true"]] {
            let (code, _, err) = text(protocol, &site, args).await;
            assert_eq!(code, Some(1));
            let message = "node edge-1 has not been heard for 42s (hint: ";
            assert!(err.contains(message), "{protocol:?} {args:?}: {err}");
        }
    }
}

/// Sends a request as it stands and returns the head of the answer.
async fn head(site: &Site, request: &str) -> String {
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let request = request.replace('\n', "\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test]
async fn upgrades_that_cannot_be_are_refused() {
    let site = Site::start(Host::new()).await;
    let spdy = "Connection: Upgrade\nUpgrade: SPDY/3.1\n";
    let websocket = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";
    let exec = "/api/v1/namespaces/default/pods/web/exec";
    let table = [
        (format!("GET {exec}?command=x&stdout=1"), String::new(), "400"),
        (format!("DELETE {exec}?command=x&stdout=1"), spdy.to_owned(), "405"),
        (format!("POST {exec}?stdout=1"), spdy.to_owned(), "400"),
        (format!("POST {exec}?command=x"), spdy.to_owned(), "400"),
        (
            format!("POST {exec}?command=x&stdout=1"),
            format!("{spdy}X-Stream-Protocol-Version: v9.channel.k8s.io\n"),
            "403",
        ),
        (
            format!("GET {exec}?command=x&stdout=1"),
            format!("{websocket}Sec-WebSocket-Protocol: v9.channel.k8s.io\n"),
            "403",
        ),
        (
            "POST /api/v1/namespaces/default/pods/none/exec?command=x&stdout=1".to_owned(),
            spdy.to_owned(),
            "404",
        ),
    ];
    for (line, headers, status) in table {
        let answer = head(&site, &format!("{line} HTTP/1.1\nHost: x\n{headers}\n")).await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{line}: {answer}");
        let accepted = answer.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io");
        assert_eq!(accepted, status == "403", "{line}: {answer}");
    }
}

#[tokio::test]
async fn older_and_newer_clients_get_their_protocol() {
    let site = Site::start(Host::new()).await;
    let exec = "/api/v1/namespaces/default/pods/web/exec?command=true&stdout=1";
    for protocol in ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io"] {
        let request = format!(
            "GET {exec} HTTP/1.1\nHost: x\nConnection: keep-alive, Upgrade\nUpgrade: websocket\n\
             Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\
             Sec-WebSocket-Protocol: new.channel.k8s.io, {protocol}\n\n"
        );
        let answer = head(&site, &request).await;
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(answer.contains(&format!("sec-websocket-protocol: {protocol}\r\n")), "{answer}");
        assert!(
            answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
            "{answer}"
        );
    }
}
