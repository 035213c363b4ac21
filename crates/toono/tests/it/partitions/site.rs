//! The site whose pool is tried: what runs there, how it is broken and healed, and what its clients saw.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use toono_lab::{LabName, Loss};
use toono_net::{
    Cidr, LinkName, NetNs, netns,
    nft::{
        Base, Chain, ChainKind, ChainName, Family, Field, Hook, Nftables, PRIORITY_RAW, Policy,
        Rule, Table, TableName,
    },
};

use super::{ENDPOINTS, Fault, HUB, NODES};
use crate::{
    capture::{self, Seen},
    chaos,
    edge::{Edge, processes_naming},
    outage::{cgroups_naming, processes_in},
    wait::until,
};

const POOL: &str = "pool-a";
/// Where another endpoint is, which is none of this pool's clients' business.
const ELSEWHERE: &str = "pool-b-1";
/// No ports of anything else here.
const PORT: u16 = 8099;
const TARGET: u16 = 8098;
const SOON: Duration = Duration::from_secs(60);

/// A site of the edge, and what is cut in it.
pub(super) struct Site {
    edge: Edge,
    lab: LabName,
    nodes: Vec<Node>,
    /// Pairs of nodes whose packets to each other vanish.
    apart: BTreeSet<(usize, usize)>,
}

struct Node {
    name: &'static str,
    ns: NetNs,
    /// Its own address, and its pods'.
    sources: [Cidr; 2],
    /// What its client was answered.
    answers: PathBuf,
}

impl Site {
    /// With the Service and its clients, all of which are served.
    pub(super) fn of(edge: Edge) -> Self {
        let lab = LabName::new(edge.wan_interface().trim_end_matches("-wan")).unwrap();
        edge.kubectl(&["label", "node", NODES[HUB], "toono.io/pool-hub=true"]);
        edge.apply(&service());
        for name in ENDPOINTS.map(|node| NODES[node]).into_iter().chain([ELSEWHERE]) {
            edge.apply(&web(name));
        }
        let service = edge.kubectl_json(&["get", "service", "web"]);
        let address = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
        let nodes = NODES.map(|name| {
            let answers = edge.data().join("answers").join(name);
            fs::create_dir_all(&answers).unwrap();
            edge.apply(&client(name, &answers, &address));
            Node {
                name,
                ns: toono_lab::namespace(&lab, name).unwrap(),
                sources: sources(&edge, name),
                answers: answers.join("log"),
            }
        });
        edge.kubectl(&[
            "wait",
            "pod",
            "-l",
            "partitions",
            "--for=condition=Ready",
            "--timeout=90s",
        ]);
        let site = Self { edge, lab, nodes: nodes.into(), apart: BTreeSet::new() };
        site.until_all_are_served(uptime());
        site
    }

    /// Has this go wrong for so long, and heals it. The longest gap of each client until all were well again.
    pub(super) fn step(&mut self, faults: &[Fault], hold: Duration) -> Vec<f64> {
        let began = uptime();
        let hung = self.inject(faults);
        std::thread::sleep(hold);
        self.heal(&hung);
        self.until_all_are_served(uptime());
        let end = uptime();
        (0..NODES.len()).map(|client| self.longest_gap(client, began, end)).collect()
    }

    /// The processes that hang by it.
    fn inject(&mut self, faults: &[Fault]) -> Vec<Pid> {
        let mut hung = Vec::new();
        for fault in faults {
            match *fault {
                Fault::CutOff => toono_lab::cut(&self.lab, POOL, Loss::All).unwrap(),
                Fault::Alone(node) => self.set_apart(node),
                Fault::HubDies => {
                    let daemon = self.edge.process("node", NODES[HUB]);
                    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
                }
                Fault::Hangs(node) => hung.extend(self.main_of(node)),
                Fault::Dies(node) => self.cut_power(node),
            }
        }
        hung.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
        hung
    }

    fn heal(&mut self, hung: &[Pid]) {
        self.apart.clear();
        self.cut_wires();
        for place in NODES.into_iter().chain([POOL]) {
            toono_lab::heal(&self.lab, place).unwrap();
        }
        for pid in hung {
            // Its node may have killed it meanwhile, since it was not alive.
            let _ = kill(*pid, Signal::SIGCONT);
        }
        self.edge.run_up_without_waiting();
    }

    fn set_apart(&mut self, node: usize) {
        let others = (0..NODES.len()).filter(|other| *other != node);
        self.apart.extend(others.flat_map(|other| [(node, other), (other, node)]));
        self.cut_wires();
    }

    /// Each node takes nothing from those that it is apart from.
    fn cut_wires(&self) {
        let name = TableName::new("toono_test_apart").unwrap();
        for (number, node) in self.nodes.iter().enumerate() {
            let from = self.apart.iter().filter(|(_, to)| *to == number).map(|(from, _)| *from);
            let sources = from.flat_map(|from| self.nodes[from].sources);
            let rules: Vec<Rule> = sources.map(dropped).collect();
            let mut nft = Nftables::in_namespace(&node.ns).unwrap();
            if rules.is_empty() {
                nft.delete(Family::Inet, &name).unwrap();
                continue;
            }
            let base = Base {
                kind: ChainKind::Filter,
                hook: Hook::Prerouting,
                priority: PRIORITY_RAW,
                policy: Policy::Accept,
            };
            let name = name.clone();
            let chain =
                Chain { name: ChainName::new("prerouting").unwrap(), base: Some(base), rules };
            let table = Table { family: Family::Inet, name, sets: Vec::new(), chains: vec![chain] };
            nft.apply(&table).unwrap();
        }
    }

    /// Nobody hears of it.
    fn cut_power(&mut self, node: usize) {
        self.set_apart(node);
        toono_lab::cut(&self.lab, NODES[node], Loss::All).unwrap();
        let data = self.edge.data().join("nodes").join(NODES[node]);
        let cgroup = format!("/{}/{}", self.lab, NODES[node]);
        until("the power to be gone", chaos::MENDED, || {
            let daemon = processes_naming(data.to_str().unwrap()).into_iter().map(|(pid, _)| pid);
            let cgroups = cgroups_naming(&cgroup);
            let pods = cgroups.iter().flat_map(|folder| processes_in(folder));
            let all: Vec<i32> = daemon.chain(pods).collect();
            for pid in &all {
                // It may have ended with another one.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            all.is_empty().then_some(())
        });
    }

    fn main_of(&self, node: usize) -> Option<Pid> {
        let pod = self.edge.kubectl_json(&["get", "pod", &format!("web-{}", NODES[node])]);
        let mains = chaos::mains(pod["metadata"]["uid"].as_str().unwrap());
        mains.first().map(|pid| Pid::from_raw(*pid))
    }

    /// When the client was answered, and by whom.
    fn answers(&self, client: usize) -> Vec<(f64, String)> {
        let log = fs::read_to_string(&self.nodes[client].answers).unwrap_or_default();
        // A node that lost power may have been writing.
        let lines = log.lines().filter_map(|line| line.split_once(' '));
        lines.filter_map(|(at, who)| Some((at.parse().ok()?, who.to_owned()))).collect()
    }

    fn longest_gap(&self, client: usize, began: f64, end: f64) -> f64 {
        let answers = self.answers(client);
        let times = answers.iter().map(|(at, _)| *at).filter(|at| (began..end).contains(at));
        let times: Vec<f64> = [began].into_iter().chain(times).chain([end]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }

    /// Until each client was answered by each endpoint after that.
    fn until_all_are_served(&self, after: f64) {
        let all: BTreeSet<String> =
            ENDPOINTS.iter().map(|it| format!("web-{}", NODES[*it])).collect();
        for (client, node) in self.nodes.iter().enumerate() {
            until(&format!("{} to be served by all", node.name), SOON, || {
                let answers = self.answers(client).into_iter();
                let by: BTreeSet<_> = answers.filter(|it| it.0 > after).map(|it| it.1).collect();
                (by == all).then_some(())
            });
        }
    }

    /// What goes to other sites or to the cloud, seen where it reaches the router, whether or not that is cut off.
    pub(super) fn capture(&self) -> Capture {
        let router = netns::open(&format!("{}-{POOL}-router", self.lab)).unwrap();
        let socket = router.run(|| capture::open("lan")).unwrap();
        let cloud = self.edge.subnet.replace(".0/24", ".1").parse().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let thread = std::thread::spawn(move || {
            capture::record_while(&socket, cloud, || !is_over.load(Ordering::Relaxed))
        });
        Capture { stop, thread: Some(thread) }
    }

    /// A packet to the other pool's endpoint is one of those that must not be there.
    pub(super) fn the_capture_sees_what_leaves(&self) {
        let pod = self.edge.kubectl_json(&["get", "pod", &format!("web-{ELSEWHERE}")]);
        let address: IpAddr = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
        let capture = self.capture();
        let patience = Duration::from_millis(500);
        // Nobody answers.
        let _ = self.nodes[HUB]
            .ns
            .run(|| std::net::TcpStream::connect_timeout(&(address, TARGET).into(), patience));
        assert!(packets(&capture.end()) > 0, "the capture is blind");
    }
}

/// What is captured until its end.
pub(super) struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Capture {
    pub(super) fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Those of the Service, before or after its address was translated.
pub(super) fn packets(seen: &Seen) -> u32 {
    [PORT, TARGET].iter().filter_map(|port| seen.ports.get(port)).sum()
}

fn dropped(source: Cidr) -> Rule {
    let wire = Field::InputInterface(LinkName::new("eth0").unwrap());
    Rule::new("apart").when(wire).when(Field::Source(source)).drop()
}

fn sources(edge: &Edge, name: &str) -> [Cidr; 2] {
    let node = edge.kubectl_json(&["get", "node", name]);
    let addresses = node["status"]["addresses"].as_array().unwrap();
    let own = addresses.iter().find(|it| it["type"] == "InternalIP").unwrap();
    let own = format!("{}/32", own["address"].as_str().unwrap());
    [own.parse().unwrap(), node["spec"]["podCIDR"].as_str().unwrap().parse().unwrap()]
}

/// Seconds since the boot, as clients write them.
fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "annotations": {"openyurt.io/topologyKeys": "openyurt.io/nodepool"}},
        "spec": {"selector": {"partitions": "web"}, "ports": [{"port": PORT, "targetPort": TARGET}]},
    })
}

fn pod(name: &str, node: &str, role: &str, container: &Value) -> Value {
    let mut container = container.clone();
    container["name"] = json!("main");
    container["image"] = json!("lab.toono.io/busybox:1");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"partitions": role}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    })
}

/// Serves its name, and is not ready while it hangs.
fn web(node: &str) -> Value {
    let script = format!(
        "mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec httpd -f -p {TARGET} -h /tmp/www"
    );
    let probe = json!({"httpGet": {"path": "/", "port": TARGET}, "periodSeconds": 1, "failureThreshold": 2});
    let container = json!({"command": ["sh", "-c", script], "readinessProbe": probe});
    pod(&format!("web-{node}"), node, "web", &container)
}

/// Asks again 100 ms after each answer, or after a second without one, and notes when it was answered by whom.
fn client(node: &str, answers: &std::path::Path, address: &str) -> Value {
    let script = format!(
        "while :; do if who=$(timeout 1 wget -q -O - http://{address}:{PORT}/); then \
         read now idle < /proc/uptime; echo \"$now $who\" >> /answers/log; fi; sleep 0.1; done"
    );
    let mount = json!({"name": "answers", "mountPath": "/answers"});
    let container = json!({"command": ["sh", "-c", script], "volumeMounts": [mount]});
    let mut pod = pod(&format!("client-{node}"), node, "client", &container);
    pod["spec"]["volumes"] = json!([{"name": "answers", "hostPath": {"path": answers}}]);
    pod
}
