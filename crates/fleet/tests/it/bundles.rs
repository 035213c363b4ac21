//! Desired state: who is poked, what a bundle holds.

use http::Method;
use serde_json::{Value, json};
use toono_session::{NodeEvent, Poke};

use crate::world::{Node, World};

pub(crate) fn pod(name: &str, node: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1",
           "metadata": {"name": name, "namespace": "default"},
           "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
           "status": {"phase": "Pending"}})
}

pub(crate) fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

async fn bundle(world: &World, node: &Node, since: u64) -> Value {
    let uri = format!("/fleet/v1/bundle?since={since}");
    let (code, bundle) = world.ask(Method::GET, &uri, &node.user, &json!({})).await;
    assert_eq!(code, 200);
    bundle
}

async fn poked(node: &mut Node) -> u64 {
    loop {
        if let NodeEvent::Poke(Poke::BundleMoved { revision }) = node.event().await {
            return revision;
        }
    }
}

#[tokio::test]
async fn a_bound_pod_pokes_its_node_and_no_other() {
    let world = World::start().await;
    let (mut a, mut b) = (world.join("edge-a").await, world.join("edge-b").await);
    a.beat().await;
    b.beat().await;
    // The once-only comparison after a start is out of the way.
    for node in [&mut a, &mut b] {
        node.observed = bundle(&world, node, 0).await["revision"].as_u64().unwrap();
        assert_eq!(node.beat().await, node.observed);
    }

    let stored = world.api.put(&path("web"), pod("web", "edge-a"));
    let revision: u64 = stored["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert_eq!(poked(&mut a).await, revision);
    let got = bundle(&world, &a, a.observed).await;
    assert_eq!((&got["revision"], &got["pods"][0]), (&json!(revision), &stored));
    assert_eq!(got["present"], json!([stored["metadata"]["uid"]]));
    a.observed = revision;
    assert_eq!(a.beat().await, revision);
    assert_eq!(b.beat().await, b.observed, "nothing for the other");
    assert_eq!(bundle(&world, &b, 0).await["pods"], json!([]));

    world.api.delete(&path("web"));
    let gone = poked(&mut a).await;
    assert!(gone > revision);
    let got = bundle(&world, &a, a.observed).await;
    assert_eq!((&got["revision"], &got["present"]), (&json!(gone), &json!([])));
}

#[tokio::test]
async fn a_deletion_during_a_restart_reaches_the_node() {
    let world = World::start().await;
    let mut node = world.join("edge-a").await;
    world.api.put(&path("web"), pod("web", "edge-a"));
    node.beat().await;
    while node.observed == 0 {
        let got = bundle(&world, &node, 0).await;
        if got["present"] != json!([]) {
            node.observed = got["revision"].as_u64().unwrap();
        }
    }
    let api = world.stop().await;
    api.delete(&path("web"));
    let world = World::over(api).await;
    node.socket.connect(world.udp).await.unwrap();
    node.beat().await;
    let revision = poked(&mut node).await;
    assert!(revision > node.observed);
    let got = bundle(&world, &node, node.observed).await;
    assert_eq!((&got["revision"], &got["present"]), (&json!(revision), &json!([])));
    node.observed = revision;
    assert_eq!(node.beat().await, revision, "and then it is quiet");
}
