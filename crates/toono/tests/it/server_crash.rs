//! `kill -9` of the server while kubectl writes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    configmap,
    edge::{Edge, condition},
    outage::find_container_process,
    wait::until,
};

#[test]
fn no_acknowledged_write_is_lost_and_no_node_notices() {
    let edge = Edge::up();
    let containers: Vec<_> = edge.pods().iter().map(process_of).collect();
    let server = edge.process("server", "");
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&edge, &stop));
        until("some writes", Duration::from_secs(60), || {
            let listed = edge.kubectl(&["get", "cm", "-o", "name"]);
            let own = listed.lines().filter(|line| !line.ends_with("/kube-root-ca.crt"));
            (own.count() >= 20).then_some(())
        });
        kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap()
    });
    assert!(acknowledged.len() >= 20, "{}", acknowledged.len());
    until("the server's end", Duration::from_secs(5), || {
        kill(Pid::from_raw(server), None).is_err().then_some(())
    });
    let changes = ready_changes(&edge.run_up_and_list_nodes());
    let listed = edge.kubectl(&["get", "configmaps", "-o", "name"]);
    for name in &acknowledged {
        let line = format!("configmap/{name}");
        assert!(listed.lines().any(|l| l == line), "the acknowledged {name} is lost");
    }
    // Past the grace: still nobody was called NotReady, and nothing restarted.
    until("heartbeats at the new server", Duration::from_secs(30), || {
        let status = edge.status();
        let heard = |node: &serde_json::Value| node["heartbeat_age_ms"].is_u64();
        status["nodes"].as_array().unwrap().iter().all(heard).then_some(())
    });
    std::thread::sleep(Duration::from_secs(45));
    let nodes = edge.kubectl_json(&["get", "nodes"]);
    assert_eq!(ready_changes(&nodes), changes, "a Ready condition changed");
    assert_eq!(edge.nodes_with_ready("True").len(), 4);
    let after: Vec<_> = edge.pods().iter().map(process_of).collect();
    assert_eq!(after, containers, "a container restarted");
    assert!(edge.pods().iter().all(|pod| condition(pod, "Ready") == "True"));
}

impl Edge {
    fn run_up_and_list_nodes(&self) -> serde_json::Value {
        self.run_up();
        self.kubectl_json(&["get", "nodes"])
    }
}

fn write_until(edge: &Edge, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let name = format!("written-{number}");
        let kubectl = edge.kubectl_command(&configmap::ARGUMENTS);
        if configmap::create(kubectl, &name).status.success() {
            acknowledged.push(name);
        }
    }
    acknowledged
}

/// When each node's Ready condition last changed.
fn ready_changes(nodes: &serde_json::Value) -> Vec<String> {
    let ready = |node: &serde_json::Value| {
        let conditions = node["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
        format!("{} {} {}", node["metadata"]["name"], ready["status"], ready["lastTransitionTime"])
    };
    nodes["items"].as_array().unwrap().iter().map(ready).collect()
}

fn process_of(pod: &serde_json::Value) -> (String, Option<i32>) {
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    (uid.to_owned(), find_container_process(uid))
}
