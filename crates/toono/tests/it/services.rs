//! Services, ports of nodes and pods beside each other, by kubectl and on a real edge: from pods, from the node,
//! from its neighbour; without endpoints, with the link cut, after the agent was killed, and after somebody took
//! the rules away.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use toono_net::{
    netns,
    nft::{Family, Nftables, TableName},
};

use crate::{edge::Edge, wait::until};

/// What takes a poke, a fetch and a report, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// A connection that nobody takes is refused at once; what vanishes is tried for longer.
const AT_ONCE: Duration = Duration::from_secs(3);
const NODE: &str = "pool-a-1";
const NEIGHBOUR: &str = "pool-a-2";
const NODE_PORT: &str = "30080";

#[test]
fn services_and_ports_lead_to_pods() {
    let edge = Edge::up();
    edge.apply(&web());
    edge.apply(&service());
    edge.apply(&client("client", NODE));
    edge.apply(&client("beside", NEIGHBOUR));
    edge.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    edge.kubectl(&["wait", "pod/client", "pod/beside", "--for=condition=Ready", "--timeout=60s"]);
    let service = edge.kubectl_json(&["get", "service", "web"]);
    let cluster = format!("{}:80", service["spec"]["clusterIP"].as_str().unwrap());
    let node = format!("{}:{NODE_PORT}", address_of(&edge, NODE));
    let host = format!("{}:8088", address_of(&edge, NODE));

    let both = names(&edge);
    assert_eq!(both.len(), 2);
    for place in [Place::Pod("client"), Place::Pod("beside"), Place::Node(NODE)] {
        until_answers(&edge, place, &cluster, &both);
    }
    for place in [Place::Pod("client"), Place::Node(NODE), Place::Node(NEIGHBOUR)] {
        until_answers(&edge, place, &node, &both);
        let text = until("the port of the node", SOON, || get(&edge, place, &host));
        assert_eq!(text, "client", "{place:?}");
    }
    pods_reach_each_other_under_their_own_addresses(&edge);

    let sticky = r#"{"spec": {"sessionAffinity": "ClientIP"}}"#;
    edge.kubectl(&["patch", "service", "web", "-p", sticky]);
    until("a client to stay", SOON, || {
        let found: BTreeSet<_> =
            (0..10).filter_map(|_| get(&edge, Place::Pod("client"), &cluster)).collect();
        (found.len() == 1).then_some(())
    });
    edge.kubectl(&["scale", "deployment/web", "--replicas=1"]);
    until("one to be left", SOON, || (names(&edge).len() == 1).then_some(()));
    until_answers(&edge, Place::Pod("client"), &cluster, &names(&edge));
    // A last change, so that all of them are known to be on the node's disk.
    let part = edge.data().join("nodes").join(NODE).join("pool/part");
    let before = SystemTime::now();
    edge.kubectl(&["create", "service", "externalname", "late", "--external-name", "late.example"]);
    until("the part on disk", SOON, || {
        let written = std::fs::metadata(&part).and_then(|file| file.modified()).ok();
        written.filter(|at| *at > before)
    });
    itself(&edge, &cluster);
    the_link_is_cut_meanwhile(&edge, &cluster, &host);

    edge.kubectl(&["scale", "deployment/web", "--replicas=0"]);
    for (place, to) in [
        (Place::Pod("client"), &cluster),
        (Place::Node(NODE), &cluster),
        (Place::Node(NEIGHBOUR), &node),
    ] {
        until("the refusal", SOON, || get(&edge, place, to).is_none().then_some(()));
        let before = Instant::now();
        assert_eq!(get(&edge, place, to), None);
        assert!(before.elapsed() < AT_ONCE, "{place:?} {to} {:?}", before.elapsed());
    }
    edge.kubectl(&["delete", "pod", "client", "--grace-period=0"]);
    until("the port to be free", SOON, || {
        get(&edge, Place::Node(NODE), &host).is_none().then_some(())
    });
}

/// Neither is translated, on one node or on two.
fn pods_reach_each_other_under_their_own_addresses(edge: &Edge) {
    let pod = |name| edge.kubectl_json(&["get", "pod", name])["status"]["podIP"].clone();
    let beside = pod("beside");
    let to = format!("{}:8080", pod("client").as_str().unwrap());
    let text = until("the neighbour's pod", SOON, || get(edge, Place::Pod("beside"), &to));
    assert_eq!(text, "client");
    let seen = format!("{}/cgi-bin/who", to);
    let seen = until("who asks", SOON, || get(edge, Place::Pod("beside"), &seen));
    // The server's socket is one of IPv6.
    assert_eq!(seen, format!("[::ffff:{}]", beside.as_str().unwrap()));
}

/// The only endpoint asks for its own Service.
fn itself(edge: &Edge, cluster: &str) {
    let [name] = &*names(edge).into_iter().collect::<Vec<_>>() else { panic!("not one") };
    let url = format!("http://{cluster}/");
    let said = edge.kubectl(&["exec", name, "--", "wget", "-q", "-O", "-", &url]);
    assert_eq!(said.trim(), name);
}

/// The agent dies and somebody takes the rules away while nobody reaches the site.
fn the_link_is_cut_meanwhile(edge: &Edge, cluster: &str, host: &str) {
    let one = names(edge);
    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    let agent = edge.process("node", NODE);
    let ns = netns::of_pid(agent).unwrap();
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    until("the agent's end", SOON, || kill(Pid::from_raw(agent), None).is_err().then_some(()));
    assert_eq!(within(&ns, cluster), one.first().cloned(), "without an agent");
    edge.run_up_without_waiting();
    until("the agent again", SOON, || within(&ns, cluster));
    let mut nft = Nftables::in_namespace(&ns).unwrap();
    assert!(nft.delete(Family::Ip, &TableName::new("toono_services").unwrap()).unwrap());
    for to in [cluster, host] {
        until("the rules to be made good", SOON, || within(&ns, to));
    }
    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    edge.kubectl(&["wait", &format!("node/{NODE}"), "--for=condition=Ready", "--timeout=60s"]);
}

/// Where somebody asks from.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Pod(&'a str),
    Node(&'a str),
}

/// What is answered at an address and a port; nothing when it cannot be had.
fn get(edge: &Edge, place: Place<'_>, to: &str) -> Option<String> {
    match place {
        Place::Node(node) => within(&netns::of_pid(edge.process("node", node)).unwrap(), to),
        Place::Pod(pod) => {
            let url = format!("http://{to}");
            let output = edge
                .kubectl_command(&[
                    "exec", pod, "--", "timeout", "5", "wget", "-q", "-O", "-", &url,
                ])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success().then_some(text)
        }
    }
}

/// What is answered at an address and a port, asked from there; nothing when it cannot be had.
pub(crate) fn within(ns: &toono_net::NetNs, to: &str) -> Option<String> {
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

fn until_answers(edge: &Edge, place: Place<'_>, to: &str, expected: &BTreeSet<String>) {
    let what = format!("{expected:?} at {to} from {place:?}");
    until(&what, SOON, || {
        let found: BTreeSet<_> = (0..12).map(|_| get(edge, place, to)).collect();
        let expected: BTreeSet<_> = expected.iter().cloned().map(Some).collect();
        (found == expected).then_some(())
    });
}

/// The pods of the Deployment.
fn names(edge: &Edge) -> BTreeSet<String> {
    let pods = edge.kubectl_json(&["get", "pods", "-l", "app=web"]);
    let names = pods["items"].as_array().unwrap().iter();
    names.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn address_of(edge: &Edge, node: &str) -> String {
    let node = edge.kubectl_json(&["get", "node", node]);
    let addresses = node["status"]["addresses"].as_array().unwrap();
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP").unwrap();
    internal["address"].as_str().unwrap().to_owned()
}

/// Serves the pod's name, and at `cgi-bin/who` the address that asks.
fn container() -> Value {
    let script = "mkdir -p /tmp/www/cgi-bin; hostname > /tmp/www/index.html; \
        printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /tmp/www/cgi-bin/who; \
        chmod +x /tmp/www/cgi-bin/who; exec httpd -f -p 8080 -h /tmp/www";
    json!({
        "name": "main", "image": "lab.toono.io/busybox:1", "command": ["sh", "-c", script],
        "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
    })
}

fn web() -> Value {
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": NODE}, "terminationGracePeriodSeconds": 1,
            "containers": [container()],
        },
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    })
}

fn service() -> Value {
    let port = json!({"port": 80, "targetPort": 8080, "nodePort": 30080});
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [port]},
    })
}

/// A pod with a port of its node.
fn client(name: &str, node: &str) -> Value {
    let mut container = container();
    container["ports"] = json!([{"containerPort": 8080, "hostPort": 8088}]);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container],
        },
    })
}
