//! What follows when nodes fall silent.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Node, Pod},
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use toono_controllers::{ControllersConfig, EvictionConfig};

use crate::cluster::{Cluster, wait_for};

/// Between two evictions of a pool that is disrupted; above the time after which those held back are looked
/// at again.
const SLOW: Duration = Duration::from_secs(11);

fn taints(nodes: &[Node], name: &str) -> Vec<String> {
    let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name)).unwrap();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut taints: Vec<_> =
        taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
    taints.sort_unstable();
    taints
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn on<'a>(pods: &'a [Pod], node: &'a str) -> impl Iterator<Item = &'a Pod> {
    pods.iter().filter(move |pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
    })
}

#[tokio::test]
async fn a_silent_node_is_tainted_and_its_pods_are_not_ready_until_it_returns() {
    let cluster = Cluster::start(&["a1", "a2"]).await;
    cluster
        .create::<Deployment>(json!({"metadata": {"name": "hello"}, "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "hello"}},
            "template": {
                "metadata": {"labels": {"app": "hello"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]},
            },
        }}))
        .await;
    let pods = wait_for(cluster.api::<Pod>(), "4 ready pods", |pods| {
        pods.len() == 4 && pods.iter().all(ready)
    })
    .await;
    assert_eq!(on(&pods, "a1").count(), 2);
    cluster.set_ready("a1", "Unknown").await;
    wait_for(cluster.nodes(), "the taints", |nodes| {
        taints(nodes, "a2").is_empty()
            && taints(nodes, "a1")
                == [
                    "node.kubernetes.io/unreachable:NoExecute",
                    "node.kubernetes.io/unreachable:NoSchedule",
                ]
    })
    .await;
    wait_for(cluster.api::<Pod>(), "pods marked", |pods| {
        on(pods, "a1").count() == 2 && !on(pods, "a1").any(ready) && on(pods, "a2").all(ready)
    })
    .await;
    cluster.set_ready("a1", "True").await;
    wait_for(cluster.nodes(), "no taints", |nodes| taints(nodes, "a1").is_empty()).await;
    let after =
        wait_for(cluster.api::<Pod>(), "pods ready again", |pods| pods.iter().all(ready)).await;
    let uids =
        |pods: &[Pod]| -> Vec<_> { pods.iter().map(|pod| pod.metadata.uid.clone()).collect() };
    assert_eq!(uids(&pods), uids(&after), "nothing was replaced");
}

#[tokio::test]
async fn pods_leave_a_silent_node_but_neither_an_autonomous_one_nor_a_silent_pool() {
    let cluster = Cluster::start(&["a1", "a2", "b1", "b2", "c1", "c2"]).await;
    let autonomous =
        json!({"metadata": {"annotations": {"node.openyurt.io/autonomy-duration": "0"}}});
    cluster.nodes().patch("a1", &PatchParams::default(), &Patch::Merge(&autonomous)).await.unwrap();
    for node in ["a1", "b1", "b2", "c1"] {
        // A second is enough for both nodes of pool b to fall silent.
        cluster
            .create::<Pod>(json!({"metadata": {"name": format!("on-{node}")}, "spec": {
                "nodeName": node,
                "containers": [{"name": "c", "image": "one"}],
                "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": 1}],
            }}))
            .await;
    }
    // The last one is tainted last, so all others are due when its pod goes.
    for node in ["a1", "b1", "b2"] {
        cluster.set_ready(node, "Unknown").await;
    }
    wait_for(cluster.nodes(), "the taints", |nodes| {
        ["a1", "b1", "b2"].iter().all(|node| taints(nodes, node).len() == 2)
    })
    .await;
    cluster.set_ready("c1", "Unknown").await;
    let left =
        wait_for(cluster.api::<Pod>(), "the eviction", |pods| on(pods, "c1").count() == 0).await;
    let mut left: Vec<_> = left.into_iter().filter_map(|pod| pod.metadata.name).collect();
    left.sort_unstable();
    assert_eq!(left, ["on-a1", "on-b1", "on-b2"]);
}

#[tokio::test]
async fn evictions_slow_down_while_most_of_a_pool_is_silent_and_stop_when_all_of_it_is() {
    let eviction = EvictionConfig {
        nodes_per_second: 1_000.0,
        disrupted_nodes_per_second: 1.0 / SLOW.as_secs_f64(),
        small_pool_nodes: 3,
        ..EvictionConfig::default()
    };
    let config = ControllersConfig { eviction, ..ControllersConfig::default() };
    let nodes: Vec<String> = (0..10).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let cluster = Cluster::with(config, &[&names[..], &["b0", "b1"]].concat()).await;
    // Time enough for all of the sixty percent to fall silent, and for b's to be the last that is due.
    let pods = names.iter().map(|node| (*node, 2)).chain([("b0", 2 * SLOW.as_secs())]);
    for (node, tolerated) in pods {
        cluster
            .create::<Pod>(json!({"metadata": {"name": format!("on-{node}")}, "spec": {
                "nodeName": node,
                "containers": [{"name": "c", "image": "one"}],
                "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": tolerated}],
            }}))
            .await;
    }
    for node in &names[..6] {
        cluster.set_ready(node, "Unknown").await;
    }
    let left = async |count| {
        wait_for(cluster.api::<Pod>(), "an eviction", |pods| pods.len() <= count).await.len()
    };
    assert_eq!(left(10).await, 10);
    let first = Instant::now();
    assert_eq!(left(9).await, 9, "one at a time");
    assert!(first.elapsed() >= SLOW * 9 / 10, "{:?}", first.elapsed());
    for node in &names[6..] {
        cluster.set_ready(node, "Unknown").await;
    }
    // A pool that is not silent altogether loses what is due, long after the next of the other was.
    cluster.set_ready("b0", "Unknown").await;
    let pods =
        wait_for(cluster.api::<Pod>(), "the other pool's", |pods| on(pods, "b0").count() == 0)
            .await;
    assert_eq!(pods.len(), 8, "the silent pool keeps what it has");
}

#[tokio::test]
async fn a_node_that_joins_costs_two_writes_and_its_heartbeats_none() {
    let cluster = Cluster::start(&["a1"]).await;
    wait_for(cluster.nodes(), "no taints", |nodes| taints(nodes, "a1").is_empty()).await;
    let tainted = async |expected: &[&str]| {
        wait_for(cluster.nodes(), "taints", |nodes| taints(nodes, "b1") == expected).await;
    };
    let node = json!({"metadata": {"name": "b1"}, "status": {"conditions": [
        {"type": "Ready", "status": "Unknown", "reason": "NodeStatusNeverUpdated"}]}});
    let nodes = cluster.nodes();
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    tainted(&[
        "node.kubernetes.io/unreachable:NoExecute",
        "node.kubernetes.io/unreachable:NoSchedule",
    ])
    .await;
    cluster.set_ready("b1", "True").await;
    tainted(&[]).await;
    let patch = async |patch: serde_json::Value| {
        nodes.patch_status("b1", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    };
    for memory in ["3Gi", "4Gi"] {
        patch(json!({"status": {"allocatable": {"memory": memory}, "conditions": [
            {"type": "Ready", "status": "True", "reason": memory},
            {"type": "Other", "status": "True"}]}}))
        .await;
    }
    let of_node = |events: &[Event]| {
        events.iter().filter(|event| event.involved_object.name.as_deref() == Some("b1")).count()
    };
    wait_for(cluster.api::<Event>(), "its event", |events| of_node(events) == 1).await;
    assert_eq!(cluster.requests_of_node("b1"), ["PATCH /api/v1/nodes/b1"; 2]);
    // What one asks of it after all that is still answered, and with one write.
    let cordon = json!({"spec": {"unschedulable": true}});
    nodes.patch("b1", &PatchParams::default(), &Patch::Merge(&cordon)).await.unwrap();
    tainted(&["node.kubernetes.io/unschedulable:NoSchedule"]).await;
    assert_eq!(cluster.requests_of_node("b1"), ["PATCH /api/v1/nodes/b1"; 3]);
}

#[tokio::test]
async fn pods_of_a_node_that_is_gone_are_ended_unless_it_joins_again_soon() {
    let config = ControllersConfig { missing_node_seconds: 4, ..ControllersConfig::default() };
    let cluster = Cluster::with(config, &["a1", "a2", "a3"]).await;
    let pod = |node: &str| {
        json!({"metadata": {"name": format!("on-{node}"), "finalizers": ["test/ended"]},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "one"}]}})
    };
    for node in ["a1", "a2", "a3", "never-there"] {
        cluster.create::<Pod>(pod(node)).await;
    }
    for node in ["a1", "a2"] {
        cluster.nodes().delete(node, &DeleteParams::default()).await.unwrap();
    }
    cluster.add_node("a2").await;
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_some() && phase == Some("Failed")
    };
    let began = Instant::now();
    let pods = wait_for(cluster.api::<Pod>(), "two to end", |pods| {
        ["a1", "never-there"].iter().all(|node| on(pods, node).any(ended))
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(2), "it may have been joining again");
    assert!(!on(&pods, "a2").chain(on(&pods, "a3")).any(ended));
}
