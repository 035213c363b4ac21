//! Traffic that stays in its pool, and a pool that works without the cloud: by kubectl, on a real edge of two pools.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use toono_net::{NetNs, netns};

use crate::{capture, edge::Edge, wait::until};

/// What takes a poke, a fetch and a report, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Within this a pool knows of its dead: what is promised is 10 s, and the machine may be busy.
const KNOWN: Duration = Duration::from_secs(20);
const NODES: [&str; 4] = ["pool-a-1", "pool-a-2", "pool-b-1", "pool-b-2"];
const HERE: &str = "pool-a-1";
const BESIDE: &str = "pool-a-2";

#[test]
fn traffic_stays_in_its_pool_and_leaves_the_dead_while_the_cloud_is_away() {
    let edge = Edge::up();
    let flags = edge.data().join("flags");
    for node in NODES {
        std::fs::create_dir_all(flags.join(node)).unwrap();
        set_ready(&flags, node, true);
        edge.apply(&pod(node, &flags));
    }
    edge.apply(&service());
    edge.kubectl(&["wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=90s"]);
    let service = edge.kubectl_json(&["get", "service", "web"]);
    let cluster = format!("{}:80", service["spec"]["clusterIP"].as_str().unwrap());
    let [here, there] = [HERE, "pool-b-1"].map(|node| ns(&edge, node));
    until_answered(&here, &cluster, &[HERE, BESIDE], SOON);
    until_answered(&there, &cluster, &["pool-b-1", "pool-b-2"], SOON);
    nothing_crosses_the_wan(&edge, &here, &cluster);

    annotate(&edge, "kubernetes.io/hostname");
    until_answered(&here, &cluster, &[HERE], SOON);
    annotate(&edge, "kubernetes.io/hostname,openyurt.io/nodepool");
    until_answered(&here, &cluster, &[HERE], SOON);
    set_ready(&flags, HERE, false);
    until_answered(&here, &cluster, &[BESIDE], SOON);
    set_ready(&flags, HERE, true);
    annotate(&edge, "openyurt.io/nodepool");
    until_answered(&here, &cluster, &[HERE, BESIDE], SOON);

    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    a_neighbour_dies_and_comes_back(&edge, &here, &cluster);
    a_pod_fails_and_recovers(&edge, &flags, &cluster);
    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    edge.kubectl(&["wait", &format!("node/{HERE}"), "--for=condition=Ready", "--timeout=90s"]);
    until_answered(&here, &cluster, &[HERE, BESIDE], SOON);
}

/// Requests for the Service are many packets, and none of them is seen at the cloud's end.
fn nothing_crosses_the_wan(edge: &Edge, here: &NetNs, cluster: &str) {
    let cloud: Ipv4Addr = edge.subnet.replace(".0/24", ".1").parse().unwrap();
    let interface = edge.wan_interface();
    let capture =
        std::thread::spawn(move || capture::record(&interface, cloud, Duration::from_secs(5)));
    let (mut asked, end) = (0, Instant::now() + Duration::from_secs(4));
    while Instant::now() < end {
        asked += u32::from(get(here, cluster).is_some());
    }
    let seen = capture.join().unwrap();
    // Each request is some ten packets of TCP.
    assert!(asked > 10 && seen.tcp < asked, "{asked} requests, {seen:?}");
}

fn a_neighbour_dies_and_comes_back(edge: &Edge, here: &NetNs, cluster: &str) {
    let beside = Pid::from_raw(edge.process("node", BESIDE));
    kill(beside, Signal::SIGSTOP).unwrap();
    let went = Instant::now();
    until_answered(here, cluster, &[HERE], KNOWN);
    println!("a dead neighbour is out of use after {:?}", went.elapsed());
    kill(beside, Signal::SIGCONT).unwrap();
    until_answered(here, cluster, &[HERE, BESIDE], KNOWN);
}

/// A pod's own node knows at once, and its neighbour from it.
fn a_pod_fails_and_recovers(edge: &Edge, flags: &Path, cluster: &str) {
    let both = [HERE, BESIDE].map(|node| ns(edge, node));
    set_ready(flags, HERE, false);
    both.iter().for_each(|place| until_answered(place, cluster, &[BESIDE], KNOWN));
    set_ready(flags, HERE, true);
    both.iter().for_each(|place| until_answered(place, cluster, &[HERE, BESIDE], KNOWN));
}

fn ns(edge: &Edge, node: &str) -> NetNs {
    netns::of_pid(edge.process("node", node)).unwrap()
}

fn set_ready(flags: &Path, node: &str, is_ready: bool) {
    let flag = flags.join(node).join("ready");
    if is_ready { std::fs::write(flag, "").unwrap() } else { std::fs::remove_file(flag).unwrap() }
}

fn annotate(edge: &Edge, keys: &str) {
    let keys = format!("openyurt.io/topologyKeys={keys}");
    edge.kubectl(&["annotate", "--overwrite", "service", "web", &keys]);
}

/// What is answered at an address and a port; nothing when it cannot be had.
fn get(ns: &NetNs, to: &str) -> Option<String> {
    let url = format!("http://{to}");
    let output = ns
        .run(|| {
            let mut command = Command::new("busybox");
            command.args(["timeout", "5", "busybox", "wget", "-q", "-O", "-", &url]);
            command.stdin(Stdio::null()).output().unwrap()
        })
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

fn until_answered(ns: &NetNs, to: &str, nodes: &[&str], patience: Duration) {
    let expected: BTreeSet<Option<String>> =
        nodes.iter().map(|node| Some(format!("web-{node}"))).collect();
    until(&format!("{nodes:?} to answer"), patience, || {
        let found: BTreeSet<_> = (0..12).map(|_| get(ns, to)).collect();
        (found == expected).then_some(())
    });
}

/// Serves its name, and is ready while its node's flag is there.
fn pod(node: &str, flags: &Path) -> Value {
    let script = "mkdir -p /tmp/www; hostname > /tmp/www/index.html; \
        exec httpd -f -p 8080 -h /tmp/www";
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{node}"), "labels": {"app": "web"}},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "flags", "hostPath": {"path": flags.join(node)}}],
            "containers": [{
                "name": "main", "image": "lab.toono.io/busybox:1", "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "flags", "mountPath": "/flags"}],
                "readinessProbe": {
                    "exec": {"command": ["test", "-e", "/flags/ready"]},
                    "periodSeconds": 1, "failureThreshold": 1,
                },
            }],
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "annotations": {"openyurt.io/topologyKeys": "openyurt.io/nodepool"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}
