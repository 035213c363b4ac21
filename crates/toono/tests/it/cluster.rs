//! Several servers on one etcd, each by a way of its own that can be cut, and real nodes at sites that reach
//! them all.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use toono_lab::{Daemon, LabConfig, LabName, Loss, Spawn, image};
use toono_linear::etcd_server::EtcdServer;

use crate::{
    cloud::Cloud,
    edge::{TOONO, Turn, free_port, success},
};

const TOKEN: &str = "a secret that nobody guesses";
const POOLS: usize = 3;
const NODES_PER_POOL: usize = 3;
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// A way to etcd.
pub(crate) struct Wire {
    port: u16,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn new(etcd: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Self { port, cut: Arc::default(), open: Arc::default() };
        let (cut, open) = (wire.cut.clone(), wire.open.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(etcd) = TcpStream::connect(("127.0.0.1", etcd)) else { continue };
                let mut open = open.lock().unwrap();
                if !cut.load(Ordering::SeqCst) {
                    for (from, to) in [(&stream, &etcd), (&etcd, &stream)] {
                        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                        std::thread::spawn(move || pump(from, to));
                    }
                    open.extend([stream, etcd]);
                }
            }
        });
        wire
    }

    pub(crate) fn cut(&self) {
        let mut open = self.open.lock().unwrap();
        self.cut.store(true, Ordering::SeqCst);
        for stream in open.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    // Either end may close, or be cut.
    let _: io::Result<()> = (|| {
        let mut buffer = [0; 16384];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return to.shutdown(Shutdown::Write);
            }
            to.write_all(&buffer[..read])?;
        }
    })();
}

pub(crate) struct Cluster {
    pub(crate) servers: Vec<Cloud>,
    pub(crate) wires: Vec<Wire>,
    _etcd: EtcdServer,
    lab: LabName,
    address: String,
    /// Where images are served.
    registry: String,
    dir: TempDir,
    nodes: Vec<String>,
    _turn: Turn,
}

impl Cluster {
    /// A server that answers and two that do not run yet, and sites of three pools; no node runs yet.
    pub(crate) fn start() -> Self {
        let turn = Turn::beside();
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let own = std::process::id();
        let lab = LabName::new(format!("toono-{:04x}", own & 0xffff)).unwrap();
        let mut config = LabConfig::uniform(lab.clone(), POOLS, NODES_PER_POOL);
        config.subnet = format!("100.64.{}.0/24", 192 + own % 64);
        let address = config.cloud_address().unwrap().to_string();
        let nodes = config.pools.iter().flat_map(|pool| {
            (1..=pool.nodes).map(|number| format!("{}-{number}", pool.name)).collect::<Vec<_>>()
        });
        let nodes = nodes.collect();
        runtime().block_on(toono_lab::up(&config)).unwrap();
        let etcd = EtcdServer::start();
        let wires: Vec<Wire> = (0..3).map(|_| Wire::new(etcd.port())).collect();
        let mut cluster = Self {
            servers: Vec::new(),
            wires,
            _etcd: etcd,
            lab,
            registry: format!("{address}:{}", free_port()),
            address,
            dir: tempfile::Builder::new().prefix("toono-cluster-").tempdir().unwrap(),
            nodes,
            _turn: turn,
        };
        for wire in &cluster.wires {
            let store = format!("etcd=http://127.0.0.1:{}", wire.port);
            let arguments = ["--store", &store, "--token", TOKEN, "--advertise", &cluster.address];
            cluster.servers.push(Cloud::prepare_everywhere(&arguments));
        }
        cluster.start_registry();
        cluster.servers[0].spawn();
        cluster.servers[0].await_ready();
        cluster
    }

    /// Starts the other two, and the first one anew, as when each is given another command line.
    pub(crate) fn grow(&mut self) {
        self.servers[0].end();
        self.servers.iter_mut().for_each(Cloud::spawn);
        self.servers.iter().for_each(Cloud::await_ready);
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.nodes
    }

    /// Starts these nodes, which join at so many servers in turn.
    pub(crate) fn start_nodes(&self, nodes: std::ops::Range<usize>, servers: usize) {
        let registry = &self.registry;
        for (number, node) in self.nodes[nodes].iter().enumerate() {
            let server = &self.servers[number % servers];
            let pool = node.rsplit_once('-').unwrap().0;
            let options = [
                ("--server", format!("https://{}:{}", self.address, server.port)),
                ("--ca-cert-hash", server.read("ca-cert-hash")),
                ("--name", node.clone()),
                ("--pool", pool.to_owned()),
                ("--data", self.node_dir(node).display().to_string()),
                ("--cgroup-root", self.cgroup_root(node)),
                ("--registry", format!("lab.toono.io=http://{registry}")),
                // This machine's disk is no part of the test.
                ("--eviction-hard", "nodefs.available<0%,imagefs.available<0%".to_owned()),
            ];
            let options =
                options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
            let spawn = Spawn {
                program: TOONO.into(),
                args: ["node".to_owned()].into_iter().chain(options).collect(),
                env: vec![("TOONO_TOKEN".to_owned(), server.read("node-token"))],
                netns: Some(toono_lab::namespace(&self.lab, node).unwrap()),
            };
            self.daemon(node).start(&spawn).unwrap();
        }
    }

    pub(crate) fn stop_node(&self, node: &str) {
        self.daemon(node).stop(GRACE).unwrap();
    }

    fn start_registry(&self) {
        let root = self.dir.path().join("images");
        image::build(&image::ImageSpec {
            busybox: image::BUSYBOX.into(),
            root: root.clone(),
            repository: "busybox".to_owned(),
            tag: "1".to_owned(),
        })
        .unwrap();
        let root = root.display().to_string();
        let args = ["lab", "registry", "--listen", &self.registry, "--root", &root];
        let args = args.map(str::to_owned).to_vec();
        let spawn = Spawn { program: TOONO.into(), args, env: Vec::new(), netns: None };
        self.daemon("registry").start(&spawn).unwrap();
    }

    /// Lets no UDP of a pool through.
    pub(crate) fn block_udp(&self, pool: &str) {
        toono_lab::cut(&self.lab, pool, Loss::Udp).unwrap();
    }

    /// What a server says of all nodes.
    pub(crate) fn overview(&self, server: &Cloud) -> Vec<Value> {
        let data = server.dir.path().to_str().unwrap();
        let output = std::process::Command::new(TOONO)
            .args(["status", "-o", "json", "--data", data])
            .output()
            .unwrap();
        let status: Value = serde_json::from_str(&success("toono status", output)).unwrap();
        status["nodes"].as_array().unwrap().clone()
    }

    /// Nodes that speak to this server.
    pub(crate) fn heard_by(&self, server: &Cloud) -> Vec<String> {
        let here = |node: &&Value| matches!(node["session"].as_str(), Some("udp" | "websocket"));
        let overview = self.overview(server);
        let here = overview.iter().filter(here);
        here.map(|node| node["name"].as_str().unwrap().to_owned()).collect()
    }

    /// How many servers a node has been told of.
    pub(crate) fn servers_known_to(&self, node: &str) -> usize {
        let identity = std::fs::read_to_string(self.node_dir(node).join("identity.json")).unwrap();
        let identity: Value = serde_json::from_str(&identity).unwrap();
        identity["session"]["servers"].as_array().map_or(0, Vec::len)
    }

    /// When each node's readiness changed last, and to what.
    pub(crate) fn readiness(&self, server: &Cloud) -> Vec<Value> {
        let nodes = server.kubectl(&["get", "nodes", "-o", "json"]);
        let nodes: Value = serde_json::from_str(&nodes).unwrap();
        let ready = nodes["items"].as_array().unwrap().iter().map(|node| {
            let conditions = node["status"]["conditions"].as_array().unwrap();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
            serde_json::json!([
                node["metadata"]["name"],
                ready["status"],
                ready["lastTransitionTime"]
            ])
        });
        ready.collect()
    }

    fn daemon(&self, name: &str) -> Daemon {
        Daemon::new(self.dir.path().join("run"), name)
    }

    fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.path().join("nodes").join(node)
    }

    fn cgroup_root(&self, node: &str) -> String {
        format!("/{}/{node}", self.lab)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.daemon(node).log_path()).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(15).collect();
                eprintln!("--- {node}");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            self.daemon(node).stop(GRACE).unwrap();
            let (data, cgroup) = (self.node_dir(node), self.cgroup_root(node));
            let reset = toono_agent::reset::reset(&data, &cgroup);
            if let Err(error) = runtime().block_on(reset) {
                eprintln!("{node} leaves something behind: {error}");
            }
        }
        self.daemon("registry").stop(GRACE).unwrap();
        runtime().block_on(toono_lab::down(&self.lab)).unwrap();
        toono_sandbox::prune_cgroups(&format!("/{}", self.lab)).unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
