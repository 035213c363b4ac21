//! What pods reference: who hears of it, and who is given it.

use http::Method;
use serde_json::{Value, json};
use toono_session::{NodeEvent, Poke};

use crate::{
    bundles::path,
    world::{Node, World},
};

fn pod(name: &str, node: &str) -> Value {
    let mut pod = crate::bundles::pod(name, node);
    pod["spec"]["containers"][0]["envFrom"] =
        json!([{"secretRef": {"name": "s", "optional": true}}]);
    pod["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "m"}}]);
    pod
}

fn map(value: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"k": value},
           "metadata": {"name": "m", "namespace": "default", "annotations": {"for": "people"}}})
}

fn secret(namespace: &str) -> Value {
    json!({"kind": "Secret", "apiVersion": "v1", "type": "Opaque", "data": {"k": "djE="},
           "metadata": {"name": "s", "namespace": namespace}})
}

fn at(plural: &str, namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{plural}/{name}")
}

async fn bundle(world: &World, node: &Node, since: u64) -> Value {
    let uri = format!("/fleet/v1/bundle?since={since}");
    let (code, bundle) = world.ask(Method::GET, &uri, &node.user, &json!({})).await;
    assert_eq!(code, 200);
    bundle
}

/// Fetches what changed since the node's bundle, and stores it.
async fn fetch(world: &World, node: &mut Node) -> Value {
    let got = bundle(world, node, node.observed.revision).await;
    node.observed.revision = got["revision"].as_u64().unwrap();
    node.observed.bundle = u32::try_from(got["digest"].as_u64().unwrap()).unwrap();
    got
}

/// Waits for a poke that tells of something that the node does not have.
async fn poked(node: &mut Node) {
    loop {
        if let NodeEvent::Poke(Poke::BundleMoved { revision }) = node.event().await
            && revision > node.observed.revision
        {
            return;
        }
    }
}

async fn is_quiet(node: &mut Node) -> bool {
    for _ in 0..4 {
        let (desired, flags) = node.asked().await;
        if desired > node.observed.revision || flags.contains(toono_session::ReplyFlags::COMPARE) {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_node_has_what_its_pods_reference_and_nothing_else() {
    let world = World::start().await;
    world.api.put(&at("configmaps", "default", "m"), map("1"));
    world.api.put(
        &at("configmaps", "default", "other"),
        json!({"metadata": {"name": "other", "namespace": "default"}}),
    );
    world.api.put(&at("secrets", "elsewhere", "s"), secret("elsewhere"));
    let (mut a, mut b) = (world.join("edge-a").await, world.join("edge-b").await);
    for node in [&mut a, &mut b] {
        node.beat().await;
        fetch(&world, node).await;
    }
    world.api.put(&path("web"), pod("web", "edge-a"));
    poked(&mut a).await;
    let got = fetch(&world, &mut a).await;
    let one = json!({"kind": "ConfigMap", "namespace": "default", "name": "m", "data": {"k": "1"}});
    assert_eq!(got["referents"], json!([one]), "annotations stay where they are");
    assert_eq!(got["referenced"], json!(["configmaps/default/m"]));
    assert!(is_quiet(&mut a).await && is_quiet(&mut b).await);

    world.api.put(&at("configmaps", "default", "m"), map("2"));
    poked(&mut a).await;
    let got = fetch(&world, &mut a).await;
    assert_eq!((&got["pods"], &got["referents"][0]["data"]), (&json!([]), &json!({"k": "2"})));
    world.api.put(&at("secrets", "default", "s"), secret("default"));
    poked(&mut a).await;
    let got = fetch(&world, &mut a).await;
    assert_eq!(got["referents"][0]["type"], "Opaque");
    assert_eq!(got["referenced"], json!(["configmaps/default/m", "secrets/default/s"]));
    world.api.delete(&at("configmaps", "default", "m"));
    poked(&mut a).await;
    let got = fetch(&world, &mut a).await;
    assert_eq!((got.get("referents"), &got["referenced"]), (None, &json!(["secrets/default/s"])));
    assert!(is_quiet(&mut a).await && is_quiet(&mut b).await);
    assert_eq!(bundle(&world, &b, 0).await.get("referenced"), None);
}

#[tokio::test]
async fn after_a_restart_only_who_missed_something_is_asked() {
    let world = World::start().await;
    world.api.put(&at("configmaps", "default", "m"), map("1"));
    world.api.put(&at("secrets", "default", "s"), secret("default"));
    world.api.put(&path("web"), pod("web", "edge-a"));
    let mut other = pod("other", "edge-b");
    other["spec"].as_object_mut().unwrap().remove("volumes");
    world.api.put(&path("other"), other);
    let (mut a, mut b) = (world.join("edge-a").await, world.join("edge-b").await);
    for node in [&mut a, &mut b] {
        while fetch(&world, node).await["present"].as_array().unwrap().is_empty() {
            node.beat().await;
        }
        assert!(is_quiet(node).await);
    }
    let api = world.stop().await;
    api.put(&at("configmaps", "default", "m"), map("2"));
    let world = World::over(api).await;
    for node in [&mut a, &mut b] {
        node.socket.connect(world.udp).await.unwrap();
    }
    assert!(is_quiet(&mut b).await);
    a.asked().await;
    assert!(a.asked().await.1.contains(toono_session::ReplyFlags::COMPARE));
    let got = fetch(&world, &mut a).await;
    assert_eq!(got["referents"].as_array().unwrap().len(), 1);
    assert!(is_quiet(&mut a).await);
}

#[tokio::test]
async fn what_is_sent_before_it_is_heard_of_agrees_once_it_is() {
    let world = World::start().await;
    world.api.put(&at("configmaps", "default", "m"), map("1"));
    world.api.put(&at("secrets", "default", "s"), secret("default"));
    world.api.put(&path("web"), pod("web", "edge-a"));
    let mut node = world.join("edge-a").await;
    while fetch(&world, &mut node).await["present"].as_array().unwrap().is_empty() {
        node.beat().await;
    }
    world.api.hold_watches();
    world.api.put(&at("configmaps", "default", "m"), map("2"));
    world.api.delete(&at("secrets", "default", "s"));
    node.observed.revision = 0;
    let got = fetch(&world, &mut node).await;
    assert_eq!(got["referenced"], json!(["configmaps/default/m"]));
    assert_eq!(got["referents"][0]["data"]["k"], "2");
    let digest = node.observed.bundle;
    world.api.release_watches();
    poked(&mut node).await;
    fetch(&world, &mut node).await;
    while !is_quiet(&mut node).await {
        fetch(&world, &mut node).await;
    }
    assert_eq!(node.observed.bundle, digest, "it had it all");
}
