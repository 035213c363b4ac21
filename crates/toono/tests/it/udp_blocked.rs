//! A site whose router lets no UDP through: its nodes go on in WebSockets, and leave them when UDP is back.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{edge::Edge, wait::until};

/// Two heartbeats of 10 s that are not answered, a third that is waited for, and a handshake.
const FOUND: Duration = Duration::from_secs(50);
/// A probe at least each 40 s (docs/protocol.md), and time for the test machine.
const LEFT: Duration = Duration::from_secs(55);

fn sessions(edge: &Edge, pool: &str) -> Vec<String> {
    let status = edge.status();
    let nodes = status["nodes"].as_array().unwrap().iter();
    let of_pool = nodes.filter(|node| node["pool"] == pool);
    of_pool.map(|node| node["session"].as_str().unwrap().to_owned()).collect()
}

fn pod_of(edge: &Edge, node: &str) -> String {
    let pod = edge.pods().into_iter().find(|pod| pod["spec"]["nodeName"] == node).unwrap();
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn nodes_go_on_in_sockets_where_no_udp_gets_through_and_come_back() {
    let edge = Edge::up_beside();
    let transitions = ready_since(&edge);
    edge.toono_here(&["lab", "cut"], &["--udp", "pool-a"]);
    until("pool-a to use WebSockets", FOUND, || {
        (sessions(&edge, "pool-a") == ["websocket", "websocket"]).then_some(())
    });
    assert_eq!(sessions(&edge, "pool-b"), ["udp", "udp"]);
    assert_eq!(ready_since(&edge), transitions, "a node was NotReady meanwhile");

    // What the cloud says of itself arrives there: a request makes the node dial back, at once.
    let pod = pod_of(&edge, "pool-a-1");
    let asked = Instant::now();
    edge.kubectl(&["logs", &pod]);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    // A node that starts there is ready all the same, and soon.
    let old = edge.process("node", "pool-a-2");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    until("its end", Duration::from_secs(5), || {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), None).is_err().then_some(())
    });
    let restarted = Instant::now();
    edge.run_up_without_waiting();
    until("the restarted node's session", FOUND, || {
        let heard =
            Duration::from_millis(heartbeat_age_ms(&edge, "pool-a-2")) < restarted.elapsed();
        (heard && sessions(&edge, "pool-a") == ["websocket", "websocket"]).then_some(())
    });

    // The secret gets a new epoch, which reaches nodes by either way.
    let data = edge.data().to_str().unwrap().to_owned();
    let rotated = edge.toono(&["server", "rotate-secret", "--data", &data]);
    assert_eq!(crate::edge::success("rotate-secret", rotated), "epoch 2\n");
    until("every node to have a key of it", Duration::from_secs(60), || {
        let ring = std::fs::read_to_string(edge.data().join("cluster-secret")).unwrap();
        (ring.lines().count() == 1 && ring.starts_with("2 ")).then_some(())
    });

    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    until("pool-a to use UDP", LEFT, || {
        (sessions(&edge, "pool-a") == ["udp", "udp"]).then_some(())
    });
    edge.kubectl(&["logs", &pod]);
    assert_eq!(ready_since(&edge), transitions, "a node was NotReady meanwhile");
}

/// When each node's readiness changed last.
fn ready_since(edge: &Edge) -> Vec<Value> {
    let nodes = edge.kubectl_json(&["get", "nodes"]);
    let ready = nodes["items"].as_array().unwrap().iter().flat_map(|node| {
        let conditions = node["status"]["conditions"].as_array().unwrap().iter();
        conditions.filter(|condition| condition["type"] == "Ready").cloned()
    });
    ready.map(|ready| serde_json::json!([ready["status"], ready["lastTransitionTime"]])).collect()
}

pub(crate) fn heartbeat_age_ms(edge: &Edge, node: &str) -> u64 {
    let status = edge.status();
    let mut nodes = status["nodes"].as_array().unwrap().iter();
    nodes.find(|it| it["name"] == node).unwrap()["heartbeat_age_ms"].as_u64().unwrap()
}
