//! Reports: what a node may write, and what becomes of it.

use http::Method;
use serde_json::{Value, json};

use crate::{
    bundles::{path, pod},
    world::{Node, World, ready},
};

async fn report(world: &World, node: &Node, report: Value) -> Value {
    let (code, reply) = world.ask(Method::POST, "/fleet/v1/report", &node.user, &report).await;
    assert_eq!(code, 200, "{reply}");
    reply
}

fn status_of(pod: &Value, status: &Value, gone: bool) -> Value {
    json!({"namespace": "default", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
           "status": status, "gone": gone})
}

#[tokio::test]
async fn pod_status_is_written_for_the_nodes_own_pods_only() {
    let world = World::start().await;
    let (a, b) = (world.join("edge-a").await, world.join("edge-b").await);
    let mut scheduled = pod("web", "edge-a");
    scheduled["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}]);
    let web = world.api.put(&path("web"), scheduled);
    let running = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});

    let reply = report(&world, &a, json!({"pods": [status_of(&web, &running, false)]})).await;
    assert_eq!(reply, json!({"gone": [], "retry": []}));
    let stored = world.api.get(&path("web")).unwrap();
    assert_eq!(stored["status"]["phase"], "Running");
    assert_eq!(stored["status"]["conditions"].as_array().unwrap().len(), 2, "PodScheduled stays");
    let writes = world.api.writes();
    report(&world, &a, json!({"pods": [status_of(&web, &running, false)]})).await;
    assert_eq!(world.api.writes(), writes, "the same again writes nothing");

    let failed = json!({"phase": "Failed"});
    let mut impostor = status_of(&web, &failed, true);
    assert_eq!(
        report(&world, &b, json!({"pods": [impostor]})).await["gone"],
        json!([web["metadata"]["uid"]])
    );
    impostor = status_of(&web, &failed, true);
    impostor["uid"] = "an-earlier-one".into();
    assert_eq!(
        report(&world, &a, json!({"pods": [impostor]})).await["gone"],
        json!(["an-earlier-one"])
    );
    impostor = status_of(&web, &failed, false);
    impostor["name"] = "../../nodes/edge-a".into();
    assert_eq!(
        report(&world, &a, json!({"pods": [impostor]})).await["gone"],
        json!([web["metadata"]["uid"]])
    );
    assert_eq!(world.api.writes(), writes);
}

#[tokio::test]
async fn a_pod_is_removed_when_its_node_says_so_and_someone_deleted_it() {
    let world = World::start().await;
    let a = world.join("edge-a").await;
    let web = world.api.put(&path("web"), pod("web", "edge-a"));
    let ended = json!({"phase": "Failed"});
    let early = report(&world, &a, json!({"pods": [status_of(&web, &ended, true)]})).await;
    assert_eq!(early["gone"], json!([]));
    let mut deleting = world.api.get(&path("web")).unwrap();
    assert_eq!(deleting["status"]["phase"], "Failed");
    deleting["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    world.api.put(&path("web"), deleting);
    let reply = report(&world, &a, json!({"pods": [status_of(&web, &ended, true)]})).await;
    assert_eq!(reply["gone"], json!([web["metadata"]["uid"]]));
    assert_eq!(world.api.get(&path("web")), None);
}

#[tokio::test]
async fn the_nodes_own_readiness_counts_while_it_is_heard() {
    let world = World::start().await;
    let mut a = world.join("edge-a").await;
    let broken = json!({"node": {"capacity": {"cpu": "4"}, "conditions": [
        {"type": "Ready", "status": "False", "reason": "NetworkNotReady", "message": "m"},
        {"type": "MemoryPressure", "status": "False", "reason": "x", "message": "m"}]}});
    report(&world, &a, broken.clone()).await;
    let node = world.api.get("/api/v1/nodes/edge-a");
    assert_eq!(
        (ready(node.as_ref()).as_str(), &node.unwrap()["status"]["capacity"]["cpu"]),
        ("Unknown", &json!("4"))
    );
    a.beat().await;
    world.until_ready("edge-a", "True").await;
    report(&world, &a, broken).await;
    world.until_ready("edge-a", "False").await;
    a.beat().await;
    assert_eq!(
        ready(world.api.get("/api/v1/nodes/edge-a").as_ref()),
        "False",
        "heartbeats do not overrule it"
    );
}

#[tokio::test]
async fn repeated_events_are_counted_and_foreign_ones_dropped() {
    let world = World::start().await;
    let a = world.join("edge-a").await;
    let web = world.api.put(&path("web"), pod("web", "edge-a"));
    let event = json!({"namespace": "default", "pod": "web", "pod_uid": web["metadata"]["uid"],
        "field_path": "spec.containers{c}", "kind": "Warning", "reason": "BackOff",
        "message": "Back-off restarting failed container", "at": "2026-01-01T00:00:01Z"});
    let mut later = event.clone();
    later["at"] = "2026-01-01T00:05:00Z".into();
    let mut foreign = event.clone();
    foreign["pod_uid"] = "not-mine".into();
    // The feed shows the pod first.
    while world.overview("edge-a").await["pods"] != json!(1) {
        tokio::task::yield_now().await;
    }
    report(&world, &a, json!({"events": [event, later, foreign]})).await;
    let events = world.api.all("/api/v1/namespaces/default/events/");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (&events[0]["count"], &events[0]["lastTimestamp"]),
        (&json!(2), &json!("2026-01-01T00:05:00Z"))
    );
    assert_eq!(events[0]["source"], json!({"component": "kubelet", "host": "edge-a"}));
    assert_eq!(events[0]["involvedObject"]["name"], "web");
}
