//! A hub and its neighbours over real TLS; what the cloud would tell is handed in.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::Response;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use toono_http::{Handler, server::Limits};
use toono_pki::{CLIENT_LIFETIME, ClusterCa, NodeKey};
use toono_wire::{
    join::SessionGrant,
    pool::{
        Pass, Records,
        frame::{Changes, Frame},
    },
};

use super::*;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The cloud: what it signs, and where the hub of its only pool is.
struct World {
    ca: ClusterCa,
    records: Records,
    version: Version,
    hub: Hub,
    dir: tempfile::TempDir,
    tasks: JoinSet<()>,
}

impl World {
    async fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self {
            ca: ClusterCa::generate().unwrap(),
            records: Records::default(),
            version: Version::NONE,
            hub: Hub { node: "hub".into(), address: free.ip(), port: free.port() },
            dir: tempfile::tempdir().unwrap(),
            tasks: JoinSet::new(),
        }
    }

    fn identity(&self, node: &str) -> Identity {
        let key = NodeKey::generate(node).unwrap();
        let session = SessionGrant {
            index: 0,
            generation: 1,
            epoch: 1,
            key_hex: String::new(),
            udp_port: 1,
            interval_ms: 1,
            boot_floor: 0,
            servers: Vec::new(),
        };
        Identity {
            node_name: node.into(),
            node_uid: String::new(),
            certificate_pem: self
                .ca
                .sign_node_csr(&key.csr_pem, node, CLIENT_LIFETIME.unsigned_abs())
                .unwrap(),
            key_pem: key.key_pem,
            ca_pem: self.ca.cert_pem().into(),
            session,
            pod_cidr: String::new(),
            dns: None,
        }
    }

    /// A node's part, which listens to the hub or is it.
    fn node(&mut self, name: &str) -> Pool {
        let pool = {
            let data = self.dir.path().join(name);
            Pool::load(&data, &Credentials::new(self.identity(name), &data)).unwrap()
        };
        for task in [true, false] {
            let pool = pool.clone();
            self.tasks.spawn(async move {
                if task { pool.follow_hub().await } else { pool.serve_neighbours().await }
            });
        }
        pool
    }

    /// What the cloud says to a node that is in a pool.
    fn news(&self, node: &str, pool: &str) -> PoolNews {
        let mut pass = Pass { until: u64::MAX, signature: Vec::new() };
        pass.signature = self.ca.sign_statement(&pass.statement(pool, node)).unwrap();
        let (version, hub) = (self.version, Some(self.hub.clone()));
        PoolNews { name: "shop".into(), version, hub, pass: Some(pass.to_string()), key: None }
    }

    /// Sets a record; what changed by it, and all there is.
    fn set(&mut self, key: &str, text: &str) -> [Bytes; 2] {
        self.records.put(key, text);
        let since = self.version;
        self.version = Version { revision: since.revision + 1, digest: self.records.digest() };
        let all = self.records.iter().map(|(key, text)| (key.clone(), text.clone())).collect();
        [(since, vec![(Arc::from(key), Arc::from(text))]), (Version::NONE, all)].map(
            |(since, changed)| {
                let changes = Changes { changed, gone: Vec::new() };
                let mut frame = Frame::of("", since, self.version, &changes).unwrap();
                frame.signature = self.ca.sign_statement(&frame.statement()).unwrap().into();
                let mut bytes = Vec::new();
                frame.encode(&mut bytes);
                bytes.into()
            },
        )
    }
}

async fn until(pool: &Pool, version: Version) {
    let mut versions = pool.inner.version.subscribe();
    let reached = timeout(PATIENCE, versions.wait_for(|now| *now == version)).await;
    assert!(reached.is_ok(), "{:?} instead of {version:?}", pool.version());
}

fn asks_cloud(pool: &Pool) -> bool {
    pool.inner.due.lock().unwrap().is_some()
}

/// As if the cloud had been asked.
fn asked(pool: &Pool) {
    *pool.inner.due.lock().unwrap() = None;
}

#[tokio::test]
async fn a_change_crosses_the_wan_once_and_reaches_every_neighbour() {
    let mut world = World::new().await;
    let [_, whole] = world.set("a", "1");
    let hub = world.node("hub");
    hub.hear(world.news("hub", "shop"));
    assert!(asks_cloud(&hub), "a hub has the cloud's own frames");
    hub.take(whole).unwrap();
    let readers = [world.node("one"), world.node("two")];
    for (reader, name) in readers.iter().zip(["one", "two"]) {
        reader.hear(world.news(name, "shop"));
        until(reader, world.version).await;
        asked(reader);
    }
    for number in 0..5 {
        let [later, _] = world.set("b", &number.to_string());
        hub.take(later).unwrap();
        for reader in &readers {
            until(reader, world.version).await;
            assert!(!asks_cloud(reader), "the hub told it");
        }
    }
    // Who has missed some, and who has something of another server's.
    let late = world.node("late");
    late.hear(world.news("late", "shop"));
    until(&late, world.version).await;
}

#[tokio::test]
async fn who_is_of_another_pool_is_not_served_and_asks_the_cloud() {
    let mut world = World::new().await;
    let [_, whole] = world.set("a", "1");
    let hub = world.node("hub");
    hub.hear(world.news("hub", "shop"));
    hub.take(whole).unwrap();
    let spy = world.node("spy");
    asked(&spy);
    let mut news = world.news("spy", "another");
    news.version = spy.version();
    spy.hear(news);
    assert!(!asks_cloud(&spy));
    timeout(PATIENCE, spy.wants_bundle()).await.expect("the hub would have it");
    assert_eq!(spy.version(), Version::NONE);
    assert!(!hub.held().admits("spy", &Pass { until: 0, signature: Vec::new() }, 1));
}

/// Serves these bytes to every neighbour, as the node of this name.
async fn liar(world: &mut World, node: &str, says: Bytes) {
    let identity = world.identity(node);
    let own = identity.own();
    let tls = toono_pki::peer_server_config(&identity.ca_pem, &own).unwrap();
    let listener = TcpListener::bind((world.hub.address, world.hub.port)).await.unwrap();
    let handler: Handler = Arc::new(move |_| {
        let says = says.clone();
        Box::pin(async move { Response::new(toono_http::full(says)) })
    });
    let serving = toono_http::server::serve(
        listener,
        Some(tls),
        handler,
        Limits::default(),
        std::future::pending(),
    );
    world.tasks.spawn(serving);
}

/// Until a node has made up its mind to ask the cloud.
async fn until_asks_cloud(pool: &Pool) {
    let asks = timeout(PATIENCE, async {
        while !asks_cloud(pool) {
            pool.inner.due_changed.notified().await;
        }
    });
    assert!(asks.await.is_ok(), "it does not ask the cloud");
}

#[tokio::test]
async fn what_a_hub_makes_up_is_not_taken() {
    let mut world = World::new().await;
    let mut other = World::new().await;
    let [_, forged] = other.set("a", "666");
    liar(&mut world, "hub", forged).await;
    let reader = world.node("reader");
    asked(&reader);
    // The cloud has nothing new, so that only the hub is a reason to ask it.
    let mut news = world.news("reader", "shop");
    news.version = reader.version();
    reader.hear(news);
    until_asks_cloud(&reader).await;
    assert_eq!(reader.version(), Version::NONE);
}

#[tokio::test]
async fn another_node_is_no_hub() {
    let mut world = World::new().await;
    let [_, whole] = world.set("a", "1");
    liar(&mut world, "another", whole).await;
    let reader = world.node("reader");
    asked(&reader);
    let mut news = world.news("reader", "shop");
    news.version = reader.version();
    reader.hear(news);
    until_asks_cloud(&reader).await;
    assert_eq!(reader.version(), Version::NONE, "it was not even listened to");
}

#[tokio::test]
async fn a_hub_that_is_none_any_more_lets_go() {
    let mut world = World::new().await;
    let [_, whole] = world.set("a", "1");
    let hub = world.node("hub");
    hub.hear(world.news("hub", "shop"));
    hub.take(whole).unwrap();
    let reader = world.node("reader");
    reader.hear(world.news("reader", "shop"));
    until(&reader, world.version).await;
    let other = Hub { node: "other".into(), address: IpAddr::from([127, 0, 0, 1]), port: 1 };
    hub.hear(PoolNews { hub: Some(other), ..world.news("hub", "shop") });
    let bound = timeout(PATIENCE, async {
        while TcpListener::bind((world.hub.address, world.hub.port)).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    assert!(bound.await.is_ok(), "its port is still taken");
}
