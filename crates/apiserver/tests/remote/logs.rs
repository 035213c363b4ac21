//! `logs`.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::host::Host;
use crate::kubectl::{PATIENCE, Protocol, kubectl, text};
use crate::site::Site;

#[tokio::test]
async fn options_reach_the_node() {
    let host = Host::new();
    host.log.send_replace(b"one\ntwo\n".to_vec());
    let site = Site::start(host.clone()).await;
    let args = [
        "logs",
        "web",
        "-c",
        "side",
        "--tail=5",
        "--timestamps",
        "--since=10s",
        "-p",
        "--limit-bytes=99",
    ];
    let (code, out, err) = text(Protocol::Spdy, &site, &args).await;
    assert_eq!((code, out.as_str()), (Some(0), "one\ntwo\n"), "{err}");
    let expected = "/containerLogs/default/web/side?previous=true&timestamps=true&sinceSeconds=10&tailLines=5&limitBytes=99";
    assert_eq!(host.asked(), [expected]);
}

#[tokio::test]
async fn a_followed_log_arrives_line_by_line_until_the_client_leaves() {
    let host = Host::new();
    host.log.send_replace(b"one\n".to_vec());
    let site = Site::start(host.clone()).await;
    let mut command = kubectl(Protocol::WebSocket, &site);
    let mut child = command.args(["logs", "-f", "web"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["one", "two", "three"] {
        let got = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it hangs");
        assert_eq!(got.unwrap().as_deref(), Some(line));
        let next = if line == "one" { "two\n" } else { "three\n" };
        host.log.send_modify(|log| log.extend_from_slice(next.as_bytes()));
    }
    child.kill().await.unwrap();
    // Everything on the way is dropped, and so is the node's end, once there is more to send.
    let gone = async {
        while host.log.receiver_count() > 0 {
            host.log.send_modify(|log| log.extend_from_slice(b"more\n"));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the node was not told");
}

#[tokio::test]
async fn a_pod_that_is_bound_nowhere_has_said_nothing() {
    let site = Site::start(Host::new()).await;
    let (code, out, err) = text(Protocol::Spdy, &site, &["logs", "pending"]).await;
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
}
