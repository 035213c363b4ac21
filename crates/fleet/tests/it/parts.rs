//! What all nodes of a pool must know: who is poked, what is fetched, and that it is the cloud's word.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use toono_pki::{CaKeys, ClusterCa};
use toono_session::{NodeEvent, Poke};
use toono_wire::{
    path,
    pool::{EndpointRecord, Part, Version, frame::Frame},
};

use crate::{
    api::MemoryApi,
    world::{HEARTBEAT, Node, World},
};

const SERVICE: &str = "/api/v1/namespaces/shop/services/till";
const POOL: &str = "/apis/apps.openyurt.io/v1beta2/nodepools/west";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/till-1";
/// Longer than a wave of pokes, its fetches and a heartbeat take on a busy machine.
const QUIET: Duration = Duration::from_millis(1_500);

fn service(near: bool) -> Value {
    let keys =
        if near { json!({"openyurt.io/topologyKeys": "openyurt.io/nodepool"}) } else { json!({}) };
    json!({"metadata": {"name": "till", "namespace": "shop", "annotations": keys},
           "spec": {"clusterIPs": ["10.96.0.9"], "ports": [{"port": 80}]}})
}

fn slice(endpoints: &[(&str, &str)]) -> Value {
    let endpoint = |(address, node): &(&str, &str)| {
        json!({"addresses": [address], "nodeName": node,
        "conditions": {"ready": true}})
    };
    json!({"metadata": {"name": "till-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "till"}},
           "addressType": "IPv4", "ports": [{"port": 8080}],
           "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>()})
}

/// A node that keeps its pool's part.
struct Reader {
    node: Node,
    part: Part,
}

impl Reader {
    async fn join(world: &World, name: &str) -> Self {
        let mut node = world.join(name).await;
        node.beat().await;
        Self { node, part: Part::default() }
    }

    /// The revision that the next poke of a part names.
    async fn poked(&mut self) -> u64 {
        self.poked_within(Duration::from_secs(10)).await.expect("no poke")
    }

    async fn poked_within(&mut self, limit: Duration) -> Option<u64> {
        let until = Instant::now() + limit;
        while let Some(event) =
            self.node.event_within(until.saturating_duration_since(Instant::now())).await
        {
            if let NodeEvent::Poke(Poke::PoolMoved { revision }) = event {
                return Some(revision);
            }
        }
        None
    }

    /// Asks for what is new; how many bytes that took, and the hub that was named.
    async fn fetch(&mut self, world: &World) -> (usize, Value) {
        let Version { revision, digest } = self.part.version();
        let uri = format!("{}?since={revision}&digest={digest:x}", path::POOL);
        let response = world.response(Method::GET, &uri, &self.node.user, &json!({})).await;
        assert_eq!(response.status(), 200);
        let hub = response.headers().get(path::HUB_HEADER).cloned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let length = bytes.len();
        let keys = CaKeys::of_pem(&world.ca_pem).unwrap();
        for frame in Frame::decode_all(bytes).unwrap() {
            assert!(keys.vouch_for(&frame.statement(), &frame.signature));
            self.part.apply(&frame).unwrap();
        }
        (length, hub.map_or(Value::Null, |hub| serde_json::from_slice(hub.as_bytes()).unwrap()))
    }

    /// Fetches until an endpoint is as wanted.
    async fn until(&mut self, world: &World, address: &str, node: Option<&str>) {
        let key = format!("endpoint/shop/till-1/{address}");
        for _ in 0..200 {
            self.fetch(world).await;
            let found = self.part.records().get(&key);
            let found =
                found.map(|text| serde_json::from_str::<EndpointRecord>(text).unwrap().node);
            if found.as_deref() == node {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{key} is not {node:?} but {:?}", self.part.records());
    }
}

#[tokio::test]
async fn a_service_reaches_all_nodes_by_a_poke_and_a_signed_difference() {
    let world = World::start().await;
    let (mut a, mut b) =
        (Reader::join(&world, "edge-a").await, Reader::join(&world, "edge-b").await);
    world.api.put(SERVICE, service(false));
    world.api.put(SLICE, slice(&[("10.0.0.1", "edge-a"), ("10.0.0.2", "edge-b")]));
    for reader in [&mut a, &mut b] {
        reader.poked().await;
        reader.until(&world, "10.0.0.1", Some("edge-a")).await;
        assert_eq!(reader.part.records().len(), 4, "a Service, a slice, two endpoints");
        assert_eq!(reader.fetch(&world).await.0, 0, "nothing is new");
    }
    let uri = path::BUNDLE;
    let (_, bundle) = world.ask(Method::GET, uri, &a.node.user, &json!({})).await;
    let told: Version = serde_json::from_value(bundle["pool"].clone()).unwrap();
    assert_eq!((told, &bundle["pool"]["name"]), (a.part.version(), &json!("west")));

    world.api.put(SLICE, slice(&[("10.0.0.3", "edge-a"), ("10.0.0.2", "edge-b")]));
    // An earlier poke may have been for something that it had fetched already.
    let mut revision = a.poked().await;
    while revision <= told.revision {
        revision = a.poked().await;
    }
    a.until(&world, "10.0.0.3", Some("edge-a")).await;
    a.until(&world, "10.0.0.1", None).await;
    assert_eq!(a.part.version().revision, revision);
    world.api.delete(SLICE);
    world.api.delete(SERVICE);
    b.until(&world, "10.0.0.2", None).await;
}

#[tokio::test]
async fn many_changes_in_a_second_are_one_or_two_pokes() {
    let world = World::start().await;
    let mut a = Reader::join(&world, "edge-a").await;
    world.api.put(SERVICE, service(false));
    for digit in 1..=50 {
        world.api.put(SLICE, slice(&[(&format!("10.0.0.{digit}"), "edge-a")]));
    }
    let mut pokes = 0;
    while a.poked_within(QUIET).await.is_some() {
        pokes += 1;
    }
    assert!((1..=3).contains(&pokes), "{pokes} pokes");
    a.until(&world, "10.0.0.50", Some("edge-a")).await;
}

#[tokio::test]
async fn endpoints_of_a_near_service_stay_in_their_pool() {
    let world = World::start().await;
    let (mut a, mut b) =
        (Reader::join(&world, "edge-a").await, Reader::join(&world, "edge-b").await);
    let node_path = "/api/v1/nodes/edge-b";
    let mut node = world.api.get(node_path).unwrap();
    node["metadata"]["labels"]["apps.openyurt.io/nodepool"] = "east".into();
    world.api.put(node_path, node);
    world.api.put(SERVICE, service(true));
    world.api.put(SLICE, slice(&[("10.0.0.1", "edge-a"), ("10.0.0.2", "edge-b")]));
    a.until(&world, "10.0.0.1", Some("edge-a")).await;
    a.until(&world, "10.0.0.2", None).await;
    b.until(&world, "10.0.0.2", Some("edge-b")).await;
    b.until(&world, "10.0.0.1", None).await;
    world.api.put(SERVICE, service(false));
    a.until(&world, "10.0.0.2", Some("edge-b")).await;
    b.until(&world, "10.0.0.1", Some("edge-a")).await;
    // Its pool has no hub, and has neighbours whom it may ask for layers.
    let (_, bundle) = world.ask(Method::GET, path::BUNDLE, &b.node.user, &json!({})).await;
    assert!(bundle["pool"]["pass"].is_string(), "{bundle}");
}

#[tokio::test]
async fn of_a_pool_with_a_hub_only_the_hub_is_poked() {
    let world = World::start().await;
    let (mut a, mut b) =
        (Reader::join(&world, "edge-a").await, Reader::join(&world, "edge-b").await);
    let node_path = "/api/v1/nodes/edge-b";
    let mut node = world.api.get(node_path).unwrap();
    node["metadata"]["labels"]["toono.io/pool-hub"] = "true".into();
    node["status"]["addresses"] = json!([{"type": "InternalIP", "address": "192.0.2.7"}]);
    world.api.put(node_path, node);
    let hub = json!({"node": "edge-b", "address": "192.0.2.7", "port": 10_271});
    while a.fetch(&world).await.1 != hub {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while a.poked_within(Duration::from_millis(10)).await.is_some() {}
    world.api.put(SERVICE, service(false));
    b.poked().await;
    assert_eq!(a.poked_within(QUIET).await, None, "it hears of it from its hub");
    b.node.beat().await;
    let (_, bundle) = world.ask(Method::GET, path::BUNDLE, &a.node.user, &json!({})).await;
    assert_eq!(bundle["pool"]["hub"], hub);
    assert!(bundle["pool"]["pass"].is_string(), "{bundle}");
}

/// The pool's object when these lead it.
fn led_by(elects: bool, leaders: &[&str]) -> Value {
    let end = |name: &&str| json!({"nodeName": name, "address": "192.0.2.9"});
    json!({"apiVersion": "apps.openyurt.io/v1beta2", "kind": "NodePool", "metadata": {"name": "west"},
           "spec": {"interConnectivity": true, "enableLeaderElection": elects},
           "status": {"leaderEndpoints": leaders.iter().map(end).collect::<Vec<_>>()}})
}

/// Nodes of a pool, and a server that believes for a minute that they live.
async fn three() -> (World, [Reader; 3]) {
    let ca = Arc::new(ClusterCa::generate().unwrap());
    let world = World::of(MemoryApi::new(), ca, Duration::from_secs(60)).await;
    let a = Reader::join(&world, "edge-a").await;
    let b = Reader::join(&world, "edge-b").await;
    let c = Reader::join(&world, "edge-c").await;
    (world, [a, b, c])
}

#[tokio::test]
async fn where_a_pool_elects_leaders_those_are_its_hubs_and_no_others() {
    let (world, [mut a, mut b, mut c]) = three().await;
    let node_path = "/api/v1/nodes/edge-c";
    let mut node = world.api.get(node_path).unwrap();
    node["metadata"]["labels"]["toono.io/pool-hub"] = "true".into();
    node["status"]["addresses"] = json!([{"type": "InternalIP", "address": "192.0.2.7"}]);
    world.api.put(node_path, node);
    until_hub(&world, &mut a, "edge-c").await;
    while c.poked_within(QUIET).await.is_some() {}

    // Also while nobody could be elected there is none.
    world.api.put(POOL, led_by(true, &[]));
    until_hub(&world, &mut a, "").await;
    world.api.put(POOL, led_by(true, &["edge-b", "of-elsewhere"]));
    for reader in [&mut a, &mut b, &mut c] {
        until_hub(&world, reader, "edge-b").await;
        while reader.poked_within(Duration::from_millis(10)).await.is_some() {}
    }

    // The first wave reaches all, since they may follow others; then only the hub is poked.
    world.api.put(SERVICE, service(false));
    for reader in [&mut a, &mut b, &mut c] {
        reader.poked().await;
    }
    world.api.put(SLICE, slice(&[("10.0.0.1", "edge-a")]));
    b.poked().await;
    for reader in [&mut a, &mut c] {
        assert_eq!(reader.poked_within(QUIET).await, None, "it hears of it from its hub");
    }

    // Of two each is told itself, and the others one of them.
    world.api.put(POOL, led_by(true, &["edge-a", "edge-b"]));
    until_hub(&world, &mut a, "edge-a").await;
    until_hub(&world, &mut b, "edge-b").await;
    let shared = c.fetch(&world).await.1["node"].clone();
    assert!(shared == "edge-a" || shared == "edge-b", "{shared}");

    for pool in [Some(led_by(false, &["edge-a"])), None] {
        match pool {
            Some(elects_nobody) => drop(world.api.put(POOL, elects_nobody)),
            None => drop(world.api.delete(POOL)),
        }
        until_hub(&world, &mut a, "edge-c").await;
        world.api.put(POOL, led_by(true, &["edge-b"]));
        until_hub(&world, &mut a, "edge-b").await;
    }
}

#[tokio::test]
async fn a_leader_that_falls_silent_is_no_hub_though_the_pool_still_says_so() {
    let world = World::start().await;
    let mut a = Reader::join(&world, "edge-a").await;
    let mut b = Reader::join(&world, "edge-b").await;
    world.api.put(POOL, led_by(true, &["edge-a", "edge-b"]));
    let until = Instant::now() + Duration::from_secs(30);
    while a.fetch(&world).await.1["node"] != "edge-a" {
        assert!(Instant::now() < until, "edge-a is not the hub");
        a.node.beat().await;
    }
    // Only one of them goes on.
    while a.fetch(&world).await.1["node"] != "edge-b" {
        assert!(Instant::now() < until, "edge-a stays the hub");
        b.node.beat().await;
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// Fetches until this node is named as the hub; nobody, if it is empty.
async fn until_hub(world: &World, reader: &mut Reader, node: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let hub = reader.fetch(world).await.1;
        if hub["node"].as_str().unwrap_or_default() == node {
            return;
        }
        assert!(Instant::now() < until, "{hub} is not {node:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_is_no_node_gets_no_part_and_what_is_no_version_gets_no_answer() {
    let world = World::start().await;
    let node = world.join("edge-a").await;
    let admin = toono_api::UserInfo::component("admin");
    assert_eq!(world.ask(Method::GET, path::POOL, &admin, &json!({})).await.0, 403);
    for query in ["since=x", "digest=-1", "since=1&digest=zz"] {
        let uri = format!("{}?{query}", path::POOL);
        assert_eq!(world.ask(Method::GET, &uri, &node.user, &json!({})).await.0, 400, "{query}");
    }
    let uri = format!("{}?since=7&digest=1", path::POOL);
    assert_eq!(world.ask(Method::GET, &uri, &node.user, &json!({})).await.0, 200);
}
