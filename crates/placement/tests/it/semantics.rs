//! Placement by example: Kubernetes' filters, their wording, and how pods spread.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toono_placement::{Cluster, NodeView, Placement, PodView};

const POOL: &str = "apps.openyurt.io/nodepool";

fn node(name: &str, pool: &str, extra: Value) -> NodeView {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, POOL: pool}},
        "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}},
    });
    merge(&mut node, extra);
    NodeView::from_node(&serde_json::from_value(node).unwrap())
}

fn pod(name: &str, extra: Value) -> PodView {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "hello"}},
        "spec": {"containers": [{"name": "c"}]},
    });
    merge(&mut pod, extra);
    PodView::from_pod(&serde_json::from_value(pod).unwrap())
}

fn merge(base: &mut Value, extra: Value) {
    match (base, extra) {
        (Value::Object(base), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, extra) => *base = extra,
    }
}

fn two_pools() -> Cluster {
    let mut cluster = Cluster::new();
    for (name, pool) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")] {
        cluster.set_node(&node(name, pool, json!({})));
    }
    cluster
}

fn place_all(cluster: &mut Cluster, count: usize, extra: &Value) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for number in 0..count {
        let pod = pod(&format!("p{number}"), extra.clone());
        let Placement::Node(node) = cluster.place(&pod) else {
            panic!("{:?}", cluster.place(&pod))
        };
        cluster.assume(&pod, &node);
        *nodes.entry(node.to_string()).or_default() += 1;
    }
    nodes
}

fn owned() -> Value {
    json!({"metadata": {"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true}]}})
}

fn refusal(cluster: &mut Cluster, pod: &PodView) -> String {
    match cluster.place(pod) {
        Placement::NoFit { reasons } => reasons,
        Placement::Node(node) => panic!("placed on {node}"),
    }
}

#[test]
fn pods_of_one_owner_spread_over_pools_and_nodes() {
    let mut cluster = two_pools();
    // Something else runs already, so that the emptiest node is not the answer to everything.
    cluster.assume(
        &pod(
            "other",
            json!({"spec": {"containers": [
        {"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]}}),
        ),
        "a1",
    );
    let expected: BTreeMap<_, _> = ["a1", "a2", "b1", "b2"].map(|name| (name.to_owned(), 1)).into();
    assert_eq!(place_all(&mut cluster, 4, &owned()), expected);
}

#[test]
fn a_required_spread_over_any_label_keeps_the_skew() {
    let mut cluster = two_pools();
    cluster.set_node(&node("a3", "a", json!({})));
    let mut extra = owned();
    merge(
        &mut extra,
        json!({"spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": POOL, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "hello"}}}]}}),
    );
    let nodes = place_all(&mut cluster, 20, &extra);
    let in_pool = |pool: &str| {
        nodes.iter().filter(|(name, _)| name.starts_with(pool)).map(|(_, count)| count).sum()
    };
    assert_eq!((in_pool("a"), in_pool("b")), (10_usize, 10_usize), "{nodes:?}");
}

#[test]
fn the_reasons_are_kubernetes_words() {
    let mut cluster = two_pools();
    cluster.set_node(&node(
        "b2",
        "b",
        json!({"spec": {"unschedulable": true, "taints": [
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}}),
    ));
    cluster.set_node(&node(
        "b1",
        "b",
        json!({"spec": {"taints": [
        {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]}}),
    ));
    let big = pod(
        "big",
        json!({"spec": {"containers": [
        {"name": "c", "resources": {"requests": {"cpu": "3", "memory": "5Gi"}}}]}}),
    );
    assert_eq!(
        refusal(&mut cluster, &big),
        "0/4 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, \
         1 node(s) were unschedulable, 2 Insufficient cpu, 2 Insufficient memory."
    );
    let picky = pod("picky", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}));
    assert_eq!(
        refusal(&mut cluster, &picky),
        "0/4 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, \
         1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector."
    );
    let daemon = pod(
        "daemon",
        json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b2"]}]}]}}}}}),
    );
    assert_eq!(
        refusal(&mut cluster, &daemon),
        "0/4 nodes are available: 1 node(s) were unschedulable, 3 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    );
    assert_eq!(refusal(&mut Cluster::new(), &daemon), "no nodes available to schedule pods");
}

#[test]
fn host_ports_and_full_nodes() {
    let mut cluster = Cluster::new();
    cluster.set_node(&node("n", "a", json!({"status": {"allocatable": {"pods": "2"}}})));
    let web = |name: &str| {
        pod(
            name,
            json!({"spec": {"containers": [
        {"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}}),
        )
    };
    cluster.assume(&web("one"), "n");
    assert_eq!(
        refusal(&mut cluster, &web("two")),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
    cluster.assume(&pod("plain", json!({})), "n");
    assert_eq!(
        refusal(&mut cluster, &pod("more", json!({}))),
        "0/1 nodes are available: 1 Too many pods."
    );
    cluster.remove_pod(&web("one").key);
    assert_eq!(cluster.place(&web("two")), Placement::Node("n".into()));
}

#[test]
fn preferences_decide_among_fitting_nodes() {
    let mut cluster = two_pools();
    let extra = json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {
            "matchExpressions": [{"key": POOL, "operator": "In", "values": ["b"]}]}}]}}}});
    let nodes = place_all(&mut cluster, 2, &extra);
    assert!(nodes.keys().all(|name| name.starts_with('b')), "{nodes:?}");
    cluster.set_node(&node(
        "b1",
        "b",
        json!({"spec": {"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}}),
    ));
    cluster.set_node(&node(
        "b2",
        "b",
        json!({"spec": {"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}}),
    ));
    let plain = pod("plain", json!({}));
    let Placement::Node(chosen) = cluster.place(&plain) else { panic!("nowhere") };
    assert!(chosen.starts_with('a'), "{chosen}");
}

#[test]
fn a_pod_seen_before_its_node_counts_when_the_node_appears() {
    let mut cluster = Cluster::new();
    let big = |name: &str| {
        pod(
            name,
            json!({"spec": {"containers": [
        {"name": "c", "resources": {"requests": {"cpu": "1500m"}}}]}}),
        )
    };
    cluster.assume(&big("early"), "n");
    assert_eq!(refusal(&mut cluster, &big("late")), "no nodes available to schedule pods");
    cluster.set_node(&node("n", "a", json!({})));
    assert_eq!(refusal(&mut cluster, &big("late")), "0/1 nodes are available: 1 Insufficient cpu.");
    cluster.remove_node("n");
    cluster.remove_pod(&big("early").key);
    cluster.set_node(&node("n", "a", json!({})));
    assert_eq!(cluster.place(&big("late")), Placement::Node("n".into()));
}

/// A node that has an image of so many MiB.
fn node_with(name: &str, image: &str, mebibytes: u64) -> NodeView {
    let images = json!([{"names": [image], "sizeBytes": mebibytes << 20}]);
    node(name, "a", json!({"status": {"images": images}}))
}

#[test]
fn a_pod_goes_where_its_large_image_is() {
    let app = pod("p", json!({"spec": {"containers": [{"name": "c", "image": "app"}]}}));
    for (mebibytes, expected) in [(45, "first"), (70, "other")] {
        let mut cluster = Cluster::new();
        cluster.set_node(&node("first", "a", json!({})));
        cluster.set_node(&node_with("other", "app:latest", mebibytes));
        // Half of the nodes have it, so half its size counts; 23 MiB are worth nothing.
        assert_eq!(cluster.place(&app), Placement::Node(expected.into()), "{mebibytes}");
    }
}
