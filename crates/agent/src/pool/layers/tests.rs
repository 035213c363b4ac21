//! Nodes of a pool that pull an image from a registry that counts, over real TLS, each with a store of its own.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use toono_http::{Handler, server::Limits};
use toono_images::{ImageRef, Keyring, RegistryConfig};
use toono_pki::{CLIENT_LIFETIME, ClusterCa, NodeKey};
use toono_wire::{
    join::SessionGrant,
    pool::{
        Pass, PoolNews, Records, Version,
        frame::{Changes, Frame},
        node_key,
    },
};

use super::*;
use crate::identity::{Credentials, Identity};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const IMAGE: &str = "count.test/app:1";

/// A registry of one image, with one layer.
struct Registry {
    address: SocketAddr,
    layer: Digest,
    layers: Arc<AtomicUsize>,
}

impl Registry {
    async fn start(tasks: &mut JoinSet<()>) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(600_000);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, "file", &vec![b'x'; 600_000][..]).unwrap();
        let layer = Bytes::from(tar.into_inner().unwrap());
        let digest = Digest::of(&layer);
        let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let config = json!({"architecture": arch, "os": "linux", "config": {"Cmd": ["/file"]},
            "rootfs": {"type": "layers", "diff_ids": [digest]}});
        let config = Bytes::from(config.to_string());
        let manifest = json!({"schemaVersion": 2,
            "config": {"digest": Digest::of(&config), "size": config.len()},
            "layers": [{"digest": digest, "size": layer.len()}]});
        let (manifest, layers) = (Bytes::from(manifest.to_string()), Arc::new(AtomicUsize::new(0)));
        let (asked, of_layer) = (layers.clone(), digest.to_string());
        let handler: Handler = Arc::new(move |request| {
            let path = request.uri().path().to_owned();
            let body = if path.ends_with("/manifests/1") {
                manifest.clone()
            } else if path.ends_with(&of_layer) {
                asked.fetch_add(1, Ordering::SeqCst);
                layer.clone()
            } else {
                config.clone()
            };
            Box::pin(async move { Response::new(toono_http::full(body)) })
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let until = std::future::pending();
        tasks.spawn(toono_http::server::serve(listener, None, handler, Limits::default(), until));
        Self { address, layer: digest, layers }
    }
}

/// The cloud of one pool; each node has an address of the loopback's.
struct World {
    ca: ClusterCa,
    port: u16,
    dir: tempfile::TempDir,
    part: Bytes,
    version: Version,
    tasks: JoinSet<()>,
    registry: Registry,
}

fn ip(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 7, 0, u8::try_from(number).unwrap() + 1))
}

fn name(number: usize) -> String {
    format!("node-{number}")
}

impl World {
    async fn of(nodes: usize) -> Self {
        let mut tasks = JoinSet::new();
        let registry = Registry::start(&mut tasks).await;
        let free = TcpListener::bind((ip(0), 0)).await.unwrap();
        let port = free.local_addr().unwrap().port();
        let ca = ClusterCa::generate().unwrap();
        let mut records = Records::default();
        for number in 0..nodes {
            let record = json!({"addresses": [ip(number)]}).to_string();
            records.put(&node_key(&name(number)), &record);
        }
        let version = Version { revision: 1, digest: records.digest() };
        let changed = records.iter().map(|(key, text)| (key.clone(), text.clone())).collect();
        let changes = Changes { changed, gone: Vec::new() };
        let mut frame = Frame::of("shop", Version::NONE, version, &changes).unwrap();
        frame.signature = ca.sign_statement(&frame.statement()).unwrap().into();
        let mut part = Vec::new();
        frame.encode(&mut part);
        let dir = tempfile::tempdir().unwrap();
        Self { ca, port, dir, part: part.into(), version, tasks, registry }
    }

    fn identity(&self, node: &str) -> Identity {
        let key = NodeKey::generate(node).unwrap();
        let days = CLIENT_LIFETIME.unsigned_abs();
        Identity {
            node_name: node.into(),
            node_uid: String::new(),
            certificate_pem: self.ca.sign_node_csr(&key.csr_pem, node, days).unwrap(),
            key_pem: key.key_pem,
            ca_pem: self.ca.cert_pem().into(),
            session: SessionGrant {
                index: 0,
                generation: 1,
                epoch: 1,
                key_hex: String::new(),
                udp_port: 1,
                interval_ms: 1,
                boot_floor: 0,
                servers: Vec::new(),
            },
            pod_cidr: String::new(),
            dns: None,
        }
    }

    /// A node that has the part, and a pass of this pool.
    fn node(&mut self, number: usize, pool: &str) -> Layers {
        let name = name(number);
        let data = self.dir.path().join(&name);
        let known = Pool::load(&data, &Credentials::new(self.identity(&name), &data)).unwrap();
        let mut pass = Pass { until: u64::MAX, signature: Vec::new() };
        pass.signature = self.ca.sign_statement(&pass.statement(pool, &name)).unwrap();
        let (version, pass) = (self.version, Some(pass.to_string()));
        known.hear(PoolNews { name: "shop".into(), version, hub: None, pass, key: None });
        known.take(self.part.clone()).unwrap();
        let layers = Layers::at(known, self.store(&data), self.port);
        let serving = layers.clone();
        self.tasks.spawn(async move { serving.serve().await });
        layers
    }

    fn store(&self, data: &Path) -> ImageStore {
        let mut registries = RegistryConfig::default();
        registries.add(&format!("count.test=http://{}", self.registry.address)).unwrap();
        ImageStore::open(data.join("images"), registries).unwrap()
    }

    /// Until this node answers.
    async fn until_serves(&self, number: usize) {
        let serves = timeout(PATIENCE, async {
            while tokio::net::TcpStream::connect((ip(number), self.port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
        assert!(serves.await.is_ok(), "node {number} does not serve");
    }

    fn transfers(&self) -> usize {
        self.registry.layers.load(Ordering::SeqCst)
    }
}

async fn pull(layers: &Layers) {
    let image: ImageRef = IMAGE.parse().unwrap();
    let keyring = Keyring::default();
    let pulled = timeout(PATIENCE, layers.inner.store.pull(&image, &keyring)).await;
    assert_eq!(pulled.expect("in time").unwrap().layers.len(), 1);
}

#[tokio::test]
async fn a_layer_crosses_the_wan_once_for_a_pool() {
    let mut world = World::of(8).await;
    let nodes: Vec<Layers> = (0..7).map(|number| world.node(number, "shop")).collect();
    for number in 0..7 {
        world.until_serves(number).await;
    }
    futures::future::join_all(nodes.iter().map(pull)).await;
    assert_eq!(world.transfers(), 1);
    let keepers = || nodes.iter().filter(|it| !it.inner.store.kept_blobs().unwrap().is_empty());
    assert_eq!(keepers().count(), 2, "two copies are kept");

    // A node that comes later gets it from them, also when its trackers were started anew since.
    for node in &nodes {
        *node.tracker() = Tracker::default();
    }
    for node in keepers() {
        node.tell(std::slice::from_ref(&world.registry.layer), true).await;
    }
    let late = world.node(7, "shop");
    pull(&late).await;
    assert_eq!(world.transfers(), 1);
}

#[tokio::test]
async fn nodes_that_are_away_cost_no_pull() {
    // Only one of six runs.
    let mut world = World::of(6).await;
    let alone = world.node(3, "shop");
    world.until_serves(3).await;
    // It has heard that those have the layer.
    for other in [0, 1] {
        alone.note(&name(other), &world.registry.layer, true);
    }
    pull(&alone).await;
    assert_eq!(world.transfers(), 1);
}

#[tokio::test]
async fn who_has_no_pass_of_the_pool_gets_nothing() {
    let mut world = World::of(2).await;
    let has = world.node(0, "shop");
    world.until_serves(0).await;
    pull(&has).await;
    assert_eq!(has.inner.store.kept_blobs().unwrap().len(), 1);
    let spy = world.node(1, "another");
    let refused = spy.fetch(&name(0), &world.registry.layer, 0).await.unwrap_err();
    assert!(refused.to_string().contains(StatusCode::FORBIDDEN.as_str()), "{refused}");
    assert!(spy.ask_one(&name(0), &world.registry.layer, &[], true).await.is_err());
    pull(&spy).await;
    assert_eq!(world.transfers(), 2);
}

#[tokio::test]
async fn a_neighbour_whose_disk_is_damaged_is_left_alone() {
    let mut world = World::of(2).await;
    let (has, wants) = (world.node(0, "shop"), world.node(1, "shop"));
    for number in [0, 1] {
        world.until_serves(number).await;
    }
    pull(&has).await;
    let kept = has.inner.store.dir().join("blobs").join(world.registry.layer.hex());
    let mut file = std::fs::File::options().write(true).open(kept).unwrap();
    file.write_all(b"not what it was").unwrap();
    pull(&wants).await;
    assert_eq!(world.transfers(), 2, "it came from the registry at last");
    assert!(!wants.health().is_well(&name(0), Instant::now()));
}
