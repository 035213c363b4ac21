//! Desired state: who is poked, what a bundle holds.

use http::Method;
use serde_json::{Value, json};
use toono_session::{NodeEvent, Poke, ReplyFlags};

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

/// The node stores a bundle.
fn store(node: &mut Node, bundle: &Value) {
    node.observed.revision = bundle["revision"].as_u64().unwrap();
    node.observed.bundle = u32::try_from(bundle["digest"].as_u64().unwrap()).unwrap();
}

/// The node fetches what changed since its bundle, and stores it.
async fn fetch(world: &World, node: &mut Node) -> Value {
    let got = bundle(world, node, node.observed.revision).await;
    store(node, &got);
    got
}

/// Fetches until so many pods are there.
async fn until_present(world: &World, node: &mut Node, pods: usize) {
    while fetch(world, node).await["present"].as_array().unwrap().len() < pods {
        node.beat().await;
    }
}

async fn poked(node: &mut Node) -> u64 {
    loop {
        if let NodeEvent::Poke(Poke::BundleMoved { revision }) = node.event().await {
            return revision;
        }
    }
}

/// Whether the cloud asks nothing of the node, in several heartbeats in turn.
async fn is_quiet(node: &mut Node) -> bool {
    for _ in 0..4 {
        let (desired, flags) = node.asked().await;
        if desired > node.observed.revision || flags.contains(ReplyFlags::COMPARE) {
            return false;
        }
    }
    true
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_bound_pod_pokes_its_node_and_no_other() {
    let world = World::start().await;
    let (mut a, mut b) = (world.join("edge-a").await, world.join("edge-b").await);
    for node in [&mut a, &mut b] {
        fetch(&world, node).await;
        assert!(is_quiet(node).await);
    }

    let stored = world.api.put(&path("web"), pod("web", "edge-a"));
    assert_eq!(poked(&mut a).await, revision(&stored));
    let got = fetch(&world, &mut a).await;
    assert_eq!(got["pods"], json!([&stored]));
    assert_eq!(got["present"], json!([stored["metadata"]["uid"]]));
    assert!(is_quiet(&mut a).await && is_quiet(&mut b).await);
    assert_eq!(bundle(&world, &b, 0).await["pods"], json!([]));

    world.api.delete(&path("web"));
    assert!(poked(&mut a).await > revision(&stored));
    let got = fetch(&world, &mut a).await;
    assert_eq!((&got["present"], &got["digest"]), (&json!([]), &json!(0)));
    assert!(is_quiet(&mut a).await);
}

#[tokio::test]
async fn a_deletion_during_a_restart_reaches_the_node_and_nobody_else_is_asked() {
    let world = World::start().await;
    world.api.put(&path("web"), pod("web", "edge-a"));
    world.api.put(&path("other"), pod("other", "edge-b"));
    let (mut a, mut b) = (world.join("edge-a").await, world.join("edge-b").await);
    for node in [&mut a, &mut b] {
        until_present(&world, node, 1).await;
        assert!(is_quiet(node).await);
    }
    let api = world.stop().await;
    api.delete(&path("web"));
    // A change of the status is none that concerns the node.
    let mut other = api.get(&path("other")).unwrap();
    other["status"]["phase"] = "Running".into();
    api.put(&path("other"), other);

    let world = World::over(api).await;
    for node in [&mut a, &mut b] {
        node.socket.connect(world.udp).await.unwrap();
    }
    assert!(is_quiet(&mut b).await);
    let nothing = (a.observed.revision, ReplyFlags::default());
    assert_eq!(a.asked().await, nothing, "it may be on its way");
    assert_eq!(a.asked().await, (a.observed.revision, ReplyFlags::COMPARE));
    assert_eq!(fetch(&world, &mut a).await["present"], json!([]));
    assert!(is_quiet(&mut a).await);
}

#[tokio::test]
async fn a_damaged_disk_is_cued_at_once() {
    let world = World::start().await;
    let mut node = world.join("edge-a").await;
    assert!(node.beat().await > 0);
    fetch(&world, &mut node).await;
    assert!(is_quiet(&mut node).await);
}

#[tokio::test]
async fn what_is_sent_before_the_index_hears_of_it_agrees_once_it_has() {
    let world = World::start().await;
    let mut node = world.join("edge-a").await;
    let first = world.api.put(&path("web"), pod("web", "edge-a"));
    world.api.put(&path("gone"), pod("gone", "edge-a"));
    until_present(&world, &mut node, 2).await;
    assert!(is_quiet(&mut node).await);

    world.api.hold_watches();
    let mut changed = first;
    changed["metadata"]["labels"] = json!({"a": "b"});
    let changed = world.api.put(&path("web"), changed);
    world.api.delete(&path("gone"));
    let got = bundle(&world, &node, 0).await;
    assert_eq!(got["pods"], json!([&changed]));
    assert_eq!(got["present"], json!([changed["metadata"]["uid"]]));
    store(&mut node, &got);
    let digest = node.observed.bundle;
    node.beat().await;
    world.api.release_watches();
    poked(&mut node).await;
    assert_eq!(fetch(&world, &mut node).await["digest"], json!(digest), "it had it all");
    assert!(is_quiet(&mut node).await);
}

#[tokio::test]
async fn a_pod_that_changes_and_changes_while_it_is_fetched_comes_to_rest() {
    let world = World::start().await;
    let mut node = world.join("edge-a").await;
    node.beat().await;
    let (api, changes) = (world.api.clone(), 300);
    let changing = tokio::spawn(async move {
        for change in 0..changes {
            let mut web = pod("web", "edge-a");
            // There and back, so that digests of before come again.
            web["metadata"]["labels"] = json!({"a": (change % 3).to_string()});
            api.put(&path("web"), web);
            if change % 7 == 0 {
                api.delete(&path("web"));
            }
            tokio::task::yield_now().await;
        }
    });
    while !changing.is_finished() {
        fetch(&world, &mut node).await;
        node.asked().await;
    }
    changing.await.unwrap();
    let mut fetches = 0;
    while !is_quiet(&mut node).await {
        fetch(&world, &mut node).await;
        fetches += 1;
    }
    assert!(fetches <= 3, "{fetches} fetches after the last change");
    let web = world.api.get(&path("web")).unwrap();
    let web = toono_session::PodDigest::of_json(&web.to_string()).unwrap();
    let expected: toono_session::BundleDigest = [web].into_iter().collect();
    assert_eq!(node.observed.bundle, expected.0);
}

#[tokio::test]
async fn a_node_with_a_report_waiting_is_asked_for_it() {
    let world = World::start().await;
    let mut node = world.join("edge-a").await;
    let asked = |flags: ReplyFlags| flags.contains(ReplyFlags::RESEND_STATUS);
    node.beat().await;
    world.until_ready("edge-a", "True").await;
    // Once since it has become ready, and then for as long as it says so.
    node.beat().await;
    assert!(!asked(node.asked().await.1));
    node.observed.status = 0;
    assert!(asked(node.asked().await.1) && asked(node.asked().await.1));
    let report = json!({"digest": 7});
    assert_eq!(world.ask(Method::POST, "/fleet/v1/report", &node.user, &report).await.0, 200);
    node.observed.status = 7;
    assert!(!asked(node.asked().await.1));
}
