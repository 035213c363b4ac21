//! A site without its cloud stands the restart of each of its parts.
//!
//! | part, while the cloud is out of reach | where it is seen to come back |
//! |---|---|
//! | the daemon is killed: it starts and adopts what runs | here, `outage.rs`, `chaos.rs` |
//! | a container crashes | `outage.rs`, `chaos.rs` |
//! | the node loses power, once and thrice in a day | `chaos.rs`, `day.rs` |
//! | its disk is full meanwhile | `full_disk.rs` |
//! | the rules of Services are taken away | `services.rs` |
//! | all rules of the node are wiped, those of the pod network too | here |
//! | the way to the pods of another node is lost, and the daemon starts | here |
//! | DNS, after the daemon was killed | `dns.rs` |
//! | pods ask the API | `tokens.rs`, `agent/tests/it/tokens.rs` |
//! | a neighbour dies, a pod fails its probe | `traffic.rs` |
//! | an upgrade is approved | `ota.rs` |

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use toono_net::{NetNs, netns, nft::Nftables};

use crate::{edge::Edge, outage::find_container_process, services::within, wait::until};

/// What runs is served within this.
const SERVED: Duration = Duration::from_secs(60);
/// A daemon that was killed is another one within this.
const STARTED: Duration = Duration::from_secs(120);
const HERE: &str = "pool-a-1";
const BESIDE: &str = "pool-a-2";

#[test]
fn a_site_without_its_cloud_stands_the_restart_of_each_part() {
    let edge = Edge::up_beside();
    let site = Site::set_up(&edge);
    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    site.the_daemons_are_killed();
    site.the_rules_are_wiped();
    site.the_way_to_a_neighbour_is_lost();
    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    for node in [HERE, BESIDE] {
        edge.kubectl(&["wait", &format!("node/{node}"), "--for=condition=Ready", "--timeout=90s"]);
    }
    until("the pods to be as they were", SERVED, || {
        (containers(&edge) == site.containers).then_some(())
    });
}

/// Two nodes of a site, a pod on each, and a Service before both.
struct Site<'a> {
    edge: &'a Edge,
    /// Where the pods ask from: each one's own network.
    pods: [NetNs; 2],
    /// The second pod's address and port.
    beside: String,
    /// The pod network of its node.
    network: String,
    service: String,
    containers: Vec<Value>,
}

impl<'a> Site<'a> {
    fn set_up(edge: &'a Edge) -> Self {
        [HERE, BESIDE].iter().for_each(|node| edge.apply(&pod(node)));
        edge.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "auto"},
            "spec": {"selector": {"app": "auto"}, "ports": [{"port": 80, "targetPort": 8080}]}}));
        edge.kubectl(&["wait", "pod", "-l", "app=auto", "--for=condition=Ready", "--timeout=90s"]);
        let field = |what: &[&str], path: &str| {
            edge.kubectl(&[&["get"], what, &["-o", &format!("jsonpath={path}")]].concat())
        };
        let pods = [HERE, BESIDE].map(|node| {
            let uid = field(&["pod", &format!("auto-{node}")], "{.metadata.uid}");
            netns::of_pid(find_container_process(&uid).unwrap()).unwrap()
        });
        let address = field(&["pod", &format!("auto-{BESIDE}")], "{.status.podIP}");
        let site = Self {
            edge,
            pods,
            beside: format!("{address}:8080"),
            network: field(&["node", BESIDE], "{.spec.podCIDR}"),
            service: format!("{}:80", field(&["service", "auto"], "{.spec.clusterIP}")),
            containers: containers(edge),
        };
        site.until_served();
        site.until_on_disk();
        site
    }

    /// A last change, so that all of them are known to be on the nodes' disks.
    fn until_on_disk(&self) {
        let before = SystemTime::now();
        let late = ["create", "service", "externalname", "late", "--external-name", "late.example"];
        self.edge.kubectl(&late);
        for node in [HERE, BESIDE] {
            let part = self.edge.data().join("nodes").join(node).join("pool/part");
            until(&format!("the part on the disk of {node}"), SERVED, || {
                let written = std::fs::metadata(&part).and_then(|file| file.modified()).ok();
                written.filter(|at| *at > before)
            });
        }
    }

    /// Both pods answer to both, by the Service, and the second to the first by its address.
    fn until_served(&self) {
        let both: BTreeSet<Option<String>> =
            [HERE, BESIDE].iter().map(|node| Some(format!("auto-{node}"))).collect();
        for pod in &self.pods {
            until(&format!("{both:?} at {}", self.service), SERVED, || {
                let found: BTreeSet<_> = (0..12).map(|_| within(pod, &self.service)).collect();
                (found == both).then_some(())
            });
        }
        until("the neighbour's pod", SERVED, || self.reach_beside());
    }

    fn reach_beside(&self) -> Option<String> {
        within(&self.pods[0], &self.beside)
    }

    fn kill_daemon(&self, node: &str) -> i32 {
        let daemon = self.edge.process("node", node);
        kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
        until("the daemon's end", STARTED, || {
            kill(Pid::from_raw(daemon), None).is_err().then_some(())
        });
        daemon
    }

    fn start_daemon(&self, node: &str, killed: i32) {
        self.edge.run_up_without_waiting();
        until(&format!("another daemon of {node}"), STARTED, || {
            self.edge.find_process("node", node).filter(|pid| *pid != killed)
        });
    }

    fn the_daemons_are_killed(&self) {
        let killed = [HERE, BESIDE].map(|node| self.kill_daemon(node));
        // Nothing of what is served needs them.
        self.until_served();
        self.start_daemon(HERE, killed[0]);
        self.start_daemon(BESIDE, killed[1]);
        self.until_served();
    }

    fn the_rules_are_wiped(&self) {
        let node = netns::of_pid(self.edge.process("node", HERE)).unwrap();
        let mut nft = Nftables::in_namespace(&node).unwrap();
        let tables = |nft: &mut Nftables| -> BTreeSet<String> {
            nft.tables().unwrap().iter().map(|(_, name)| name.as_str().to_owned()).collect()
        };
        let before = tables(&mut nft);
        assert!(before.contains("toono_node") && before.contains("toono_services"), "{before:?}");
        for (family, name) in nft.tables().unwrap() {
            assert!(nft.delete(family, &name).unwrap());
        }
        until("all rules to be made good", SERVED, || {
            before.is_subset(&tables(&mut nft)).then_some(())
        });
        self.until_served();
    }

    fn the_way_to_a_neighbour_is_lost(&self) {
        let killed = self.kill_daemon(HERE);
        let lose = [HERE, "--", "ip", "route", "del", &self.network];
        self.edge.toono_here(&["lab", "shell"], &lose);
        assert_eq!(self.reach_beside(), None, "there is another way to {}", self.network);
        self.start_daemon(HERE, killed);
        self.until_served();
    }
}

/// Which container each pod has, and how often it was restarted, ordered by the pods' names.
fn containers(edge: &Edge) -> Vec<Value> {
    let pods = edge.kubectl_json(&["get", "pods", "-l", "app=auto", "--sort-by=.metadata.name"]);
    let of = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        json!([
            pod["metadata"]["uid"],
            pod["status"]["podIP"],
            container["containerID"],
            container["restartCount"],
            container["ready"]
        ])
    };
    pods["items"].as_array().unwrap().iter().map(of).collect()
}

/// Serves its name.
fn pod(node: &str) -> Value {
    let script =
        "mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("auto-{node}"), "labels": {"app": "auto"}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": "lab.toono.io/busybox:1", "command": ["sh", "-c", script],
            "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1}}]}})
}
