//! An image that nobody has, wanted by all nodes of a pool at once: what the registry is asked for, by its own log.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use toono_images::Digest;
use toono_net::netns;

use crate::{
    chaos,
    edge::{Edge, TOONO, free_port},
    wait::until,
};

const NODES: [&str; 3] = ["pool-a-1", "pool-a-2", "pool-a-3"];
const HOST: &str = "far.test";
/// What the registry sends in a second: layers take long enough to be met on their way.
const PACE: usize = 4 << 20;
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_layer_crosses_the_wan_once_for_a_pool() {
    let mut edge = Edge::prepare();
    let mut far = Far::prepare(&edge);
    edge.plan(1, 3, &["--node-program", far.program.to_str().unwrap()], &[]);
    edge.run_up();
    far.start();
    until_neighbours(&edge);
    until_on_disk(&edge);

    let layers = far.publish(&edge, "together", &[PACE / 2, PACE]);
    run_everywhere(&edge, "together");
    until_ready(&edge, "together", &NODES);
    for layer in &layers {
        assert_eq!(far.asked_for(layer).len(), 1, "{layer} crossed the WAN more than once");
    }

    the_one_who_gets_it_dies(&edge, &far);

    // Nodes that are told not to share ask for themselves.
    fs::write(&far.options, "--no-neighbour-layers").unwrap();
    NODES.iter().for_each(|node| kill_daemon(&edge, node));
    edge.run_up_without_waiting();
    let layers = far.publish(&edge, "alone", &[PACE / 2]);
    run_everywhere(&edge, "alone");
    until_ready(&edge, "alone", &NODES);
    assert_eq!(far.asked_for(&layers[0]).len(), NODES.len());
}

/// The node that transfers a layer for all is killed in the middle of it.
fn the_one_who_gets_it_dies(edge: &Edge, far: &Far) {
    let layer = far.publish(edge, "orphan", &[2 * PACE]).remove(0);
    run_everywhere(edge, "orphan");
    let first = until("a node to ask for the layer", SOON, || far.asked_for(&layer).pop());
    let holder = NODES.into_iter().find(|node| has_connection(edge, node, first.port, far.port));
    let holder = holder.expect("whoever asked still gets it");
    let arrived = |node: &str| {
        let partial = edge.data().join("nodes").join(node).join("images/partial").join(&layer);
        fs::metadata(partial).map_or(0, |file| file.len())
    };
    let some = PACE as u64 / 4;
    until("all to have some of it", SOON, || {
        NODES.iter().all(|node| arrived(node) > some).then_some(())
    });
    kill_daemon(edge, holder);
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != holder).collect();
    until_ready(edge, "orphan", &others);
    let asked = far.asked_for(&layer);
    println!("{holder} was killed; the layer was asked for {asked:?}");
    // They may lose sight of each other in this moment, and then each goes on by itself where it was.
    assert!(asked[1..].len() <= others.len(), "{asked:?}");
    assert!(asked[1..].iter().all(|it| it.from > some), "nobody begins anew: {asked:?}");

    edge.run_up_without_waiting();
    until_ready(edge, "orphan", &NODES);
    assert_eq!(far.asked_for(&layer), asked, "the others have it");
}

/// A registry beyond the WAN, on a slow link.
struct Far {
    /// What nodes run, with options that a file has besides.
    program: PathBuf,
    options: PathBuf,
    root: PathBuf,
    log: PathBuf,
    address: String,
    port: u16,
    child: Option<Child>,
}

/// A layer was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// Of whom, which a router keeps while no two nodes have the same.
    port: u16,
    from: u64,
}

impl Far {
    fn prepare(edge: &Edge) -> Self {
        let (program, options) = (edge.data().join("node-program"), edge.data().join("options"));
        let (port, address) = (free_port(), edge.subnet.replace(".0/24", ".1"));
        let script = format!(
            "#!/bin/sh\nexec {TOONO} \"$@\" --registry {HOST}=http://{address}:{port} $(cat {})\n",
            options.display()
        );
        fs::write(&options, "").unwrap();
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let (root, log) = (edge.data().join("far"), edge.data().join("far-registry.log"));
        fs::create_dir(&root).unwrap();
        Self { program, options, root, log, address, port, child: None }
    }

    fn start(&mut self) {
        let listen = format!("{}:{}", self.address, self.port);
        let mut command = Command::new(TOONO);
        command.args(["lab", "registry", "--listen", &listen, "--root"]).arg(&self.root);
        command.args(["--bytes-per-second", &PACE.to_string()]);
        command.stdin(Stdio::null()).stderr(File::create(&self.log).unwrap());
        self.child = Some(command.spawn().unwrap());
    }

    /// The lab's image with more layers of these sizes, which are its own; their digests' digits.
    fn publish(&self, edge: &Edge, name: &str, sizes: &[usize]) -> Vec<String> {
        let base = Layout(edge.data().join("images/busybox"));
        let image = Layout(self.root.join(name));
        fs::create_dir_all(image.0.join("blobs/sha256")).unwrap();
        let index = read(&base.0.join("index.json"));
        let manifest = read(&base.blob(&index["manifests"][0]["digest"]));
        let mut config = read(&base.blob(&manifest["config"]["digest"]));
        let mut layers = manifest["layers"].as_array().unwrap().clone();
        for layer in &layers {
            fs::copy(base.blob(&layer["digest"]), image.blob(&layer["digest"])).unwrap();
        }
        let mut digests = Vec::new();
        for size in sizes {
            let made = image.put("application/vnd.oci.image.layer.v1.tar", &layer(name, *size));
            config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(made["digest"].clone());
            digests.push(hex(&made["digest"]).to_owned());
            layers.push(made);
        }
        let config =
            image.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        let mut manifest = image.put(kind, manifest.to_string().as_bytes());
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(image.0.join("index.json"), index.to_string()).unwrap();
        digests
    }

    /// Each time that the registry was asked for a layer.
    fn asked_for(&self, layer: &str) -> Vec<Asked> {
        let log = fs::read_to_string(&self.log).unwrap();
        let of_layer = format!("/blobs/sha256:{layer}");
        let lines = log.lines().filter(|it| it.contains("method=GET") && it.contains(&of_layer));
        let asked = lines.map(|line| {
            let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
            let port = field("peer=").unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
            let range = field("range=").unwrap().trim_matches('"');
            let from = range.strip_prefix("bytes=").map_or(0, |range| {
                range.split('-').next().and_then(|from| from.parse().ok()).unwrap()
            });
            Asked { port, from }
        });
        asked.collect()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has ended if it could not listen.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An OCI image layout of one image.
struct Layout(PathBuf);

impl Layout {
    fn blob(&self, digest: &Value) -> PathBuf {
        self.0.join("blobs/sha256").join(hex(digest))
    }

    fn put(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = json!(Digest::of(bytes).to_string());
        fs::write(self.blob(&digest), bytes).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }
}

fn hex(digest: &Value) -> &str {
    digest.as_str().unwrap().strip_prefix("sha256:").unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A file of this size, named after the image and the size.
fn layer(name: &str, size: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, format!("{name}-{size}"), &vec![b'x'; size][..]).unwrap();
    tar.into_inner().unwrap()
}

/// Until each node knows all others: it has a way to their pods.
fn until_neighbours(edge: &Edge) {
    let nodes = edge.kubectl_json(&["get", "nodes"]);
    let nodes = nodes["items"].as_array().unwrap();
    let cidrs = nodes.iter().map(|node| node["spec"]["podCIDR"].as_str().unwrap());
    let cidrs: BTreeSet<&str> = cidrs.collect();
    for node in NODES {
        until(&format!("{node} to know its neighbours"), SOON, || {
            let routes = edge.toono_here(&["lab", "shell"], &[node, "--", "ip", "-o", "route"]);
            cidrs.iter().all(|cidr| routes.contains(cidr)).then_some(())
        });
    }
}

/// Until what each node knows of its pool now is on its disk, for the daemon that is started after a death: that is
/// written ten seconds after the last time.
fn until_on_disk(edge: &Edge) {
    let since = SystemTime::now();
    // A change, so that there is something to write.
    edge.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "change"},
        "spec": {"ports": [{"port": 80}]}}));
    for node in NODES {
        let part = edge.data().join("nodes").join(node).join("pool/part");
        until(&format!("{node} to write its pool's part"), SOON, || {
            (fs::metadata(&part).ok()?.modified().unwrap() > since).then_some(())
        });
    }
}

fn run_everywhere(edge: &Edge, name: &str) {
    edge.apply(&json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "main", "image": format!("{HOST}/{name}:1"),
                    "command": ["sleep", "100000"],
                }]},
            },
        },
    }));
}

fn until_ready(edge: &Edge, name: &str, nodes: &[&str]) {
    until(&format!("{name} on {nodes:?}"), SOON, || {
        let pods = edge.kubectl_json(&["get", "pods", "-l", &format!("app={name}")]);
        let is_ready = |node: &&str| {
            let mut pods = pods["items"].as_array().unwrap().iter();
            pods.any(|pod| {
                pod["spec"]["nodeName"] == **node
                    && pod["status"]["containerStatuses"][0]["ready"] == true
            })
        };
        nodes.iter().all(is_ready).then_some(())
    });
}

/// Whether a node has a TCP connection between these ports.
fn has_connection(edge: &Edge, node: &str, own: u16, other: u16) -> bool {
    let ns = netns::of_pid(edge.process("node", node)).unwrap();
    let table = ns.run(|| fs::read_to_string("/proc/thread-self/net/tcp").unwrap()).unwrap();
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let mut is_port =
            |port: u16| words.next().is_some_and(|it| it.ends_with(&format!(":{port:04X}")));
        is_port(own) && is_port(other)
    })
}

fn kill_daemon(edge: &Edge, node: &str) {
    let daemon = Pid::from_raw(edge.process("node", node));
    kill(daemon, Signal::SIGKILL).unwrap();
    until("the daemon's end", chaos::MENDED, || kill(daemon, None).is_err().then_some(()));
}
