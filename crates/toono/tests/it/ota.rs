//! Upgrades over bad links: OpenYurt's scenarios for daemon pods and static pods, on sites with real containers.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::{
    edge::{Edge, condition, success},
    wait::until,
};

/// A rollout of some pods, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(90);
const NODES: [&str; 4] = ["pool-a-1", "pool-a-2", "pool-b-1", "pool-b-2"];

fn daemon_set(strategy: &str, version: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "default", "annotations": {
            "apps.openyurt.io/update-strategy": strategy,
            "apps.openyurt.io/max-unavailable": "30%"}},
        "spec": {"selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": {"type": "OnDelete"}, "template": template(version)}})
}

fn template(version: &str) -> Value {
    json!({"metadata": {"labels": {"app": "agent"}}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "lab.toono.io/busybox:1",
            "command": ["/bin/sleep", "100000"], "env": [{"name": "VERSION", "value": version}]}]}})
}

/// What runs on a node: the pod's name, its uid, its version.
type Runs = BTreeMap<String, (String, String, String)>;

/// The ready pods of the test.
fn runs(edge: &Edge) -> Runs {
    let list = edge.kubectl_json(&["get", "pods", "-l", "app=agent"]);
    let pods = list["items"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ready = pods.iter().filter(|pod| {
        condition(pod, "Ready") == "True" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    ready
        .map(|pod| {
            let version = &pod["spec"]["containers"][0]["env"][0]["value"];
            let (meta, node) = (&pod["metadata"], text(&pod["spec"]["nodeName"]));
            (node, (text(&meta["name"]), text(&meta["uid"]), text(version)))
        })
        .collect()
}

/// Waits until each node runs this version, in the order of [`NODES`].
fn until_versions<const N: usize>(edge: &Edge, nodes: [&str; N], versions: [&str; N]) -> Runs {
    until(&format!("{versions:?} on {nodes:?}"), PATIENCE, || {
        let runs = runs(edge);
        let on = |node: &str| runs.get(node).map(|(_, _, version)| version.as_str());
        (nodes.map(on) == versions.map(Some)).then_some(runs)
    })
}

/// The nodes whose pod is another one than before.
fn changed(before: &Runs, after: &Runs) -> Vec<String> {
    let other = |(node, (_, uid, _)): &(&String, &(String, String, String))| {
        after.get(*node).is_none_or(|(_, now, _)| now != uid)
    };
    before.iter().filter(other).map(|(node, _)| node.clone()).collect()
}

/// What waits for an approval, as the cloud's side sees it: nodes and states.
fn offered(edge: &Edge) -> BTreeMap<String, String> {
    let text = edge.toono_here(&["ota", "status"], &["-o", "json"]);
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(&row["node"]), text(&row["state"]))).collect()
}

fn until_offered(edge: &Edge, nodes: &[&str]) {
    until(&format!("offers to {nodes:?}"), PATIENCE, || {
        let offered = offered(edge);
        nodes.iter().all(|node| offered.get(*node).is_some_and(|it| it == "waits")).then_some(())
    });
}

fn node_dir(edge: &Edge, node: &str) -> PathBuf {
    edge.data().join("nodes").join(node)
}

/// `toono node ota approve` on the node itself.
fn approve_on(edge: &Edge, node: &str, pod: &str) -> String {
    let data = node_dir(edge, node);
    let arguments = ["node", "ota", "approve", "--data", data.to_str().unwrap(), pod];
    // The node hears of an offer a moment after it is written, and refuses to approve what it does not know.
    until(&format!("{node} to know the offer to {pod}"), PATIENCE, || {
        let output = edge.toono(&arguments);
        output.status.success().then(|| success("approve", output))
    })
}

fn cut(edge: &Edge, pool: &str, nodes: &[&str]) {
    edge.toono_here(&["lab", "cut"], &[pool]);
    until(&format!("{pool} to be silent"), PATIENCE, || {
        (edge.nodes_with_ready("Unknown") == nodes).then_some(())
    });
}

#[test]
fn an_ota_daemon_set_is_upgraded_where_somebody_approves_also_without_a_link() {
    let edge = Edge::up_beside();
    edge.apply(&daemon_set("OTA", "one"));
    let first = until_versions(&edge, NODES, ["one"; 4]);
    edge.apply(&daemon_set("OTA", "two"));
    until_offered(&edge, &NODES);

    let name = |node: &str| first[node].0.clone();
    let said = approve_on(&edge, "pool-a-2", &name("pool-a-2"));
    assert!(said.contains("Start updating pod"), "{said}");
    let now = until_versions(&edge, NODES, ["one", "two", "one", "one"]);
    assert_eq!(changed(&first, &now), ["pool-a-2"]);

    cut(&edge, "pool-b", &["pool-b-1", "pool-b-2"]);
    let said = approve_on(&edge, "pool-b-1", &name("pool-b-1"));
    assert!(said.contains("the link to the cloud is down"), "{said}");
    edge.toono_here(&["lab", "heal"], &["pool-b"]);
    let now = until_versions(&edge, NODES, ["one", "two", "two", "one"]);
    assert_eq!(changed(&first, &now), ["pool-a-2", "pool-b-1"]);

    edge.toono_here(&["ota", "approve"], &["--node", "pool-b-2", "--pull"]);
    let last = until_versions(&edge, NODES, ["one", "two", "two", "two"]);
    assert_eq!(changed(&now, &last), ["pool-b-2"], "none is upgraded twice");
    assert_eq!(offered(&edge), BTreeMap::from([("pool-a-1".to_owned(), "waits".to_owned())]));
}

#[test]
fn an_advanced_daemon_set_goes_around_a_site_that_is_away() {
    let edge = Edge::up_beside();
    edge.apply(&daemon_set("AdvancedRollingUpdate", "one"));
    let first = until_versions(&edge, NODES, ["one"; 4]);
    cut(&edge, "pool-b", &["pool-b-1", "pool-b-2"]);
    edge.apply(&daemon_set("AdvancedRollingUpdate", "two"));
    let now = until_versions(&edge, ["pool-a-1", "pool-a-2"], ["two"; 2]);
    assert!(!now.contains_key("pool-b-1"), "a silent node's pod is not called ready");
    edge.toono_here(&["lab", "heal"], &["pool-b"]);
    let last = until_versions(&edge, NODES, ["two"; 4]);
    assert_eq!(changed(&first, &last), NODES);
    assert_eq!(changed(&now, &last), Vec::<String>::new(), "those that were done stay");
}

fn static_set(strategy: &str, version: &str) -> Value {
    json!({"apiVersion": "apps.openyurt.io/v1alpha1", "kind": "YurtStaticSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"staticPodManifest": "web", "template": template(version),
            "upgradeStrategy": {"type": strategy, "maxUnavailable": 1}}})
}

/// What is put on a node by hand.
fn put_manifest(edge: &Edge, node: &str) {
    let dir = node_dir(edge, node).join("manifests");
    std::fs::create_dir_all(&dir).unwrap();
    let mut pod = template("zero");
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "web".into();
    std::fs::write(dir.join("web.yaml"), pod.to_string()).unwrap();
}

fn until_counts(edge: &Edge, total: i64, upgraded: i64) {
    until(&format!("{upgraded} of {total}"), PATIENCE, || {
        let status = edge.kubectl_json(&["get", "yss", "web"])["status"].clone();
        (status["totalNumber"] == total && status["upgradedNumber"] == upgraded).then_some(())
    });
}

#[test]
fn static_pods_are_upgraded_around_a_node_that_is_away_and_by_approval() {
    let edge = Edge::up_beside();
    let both = ["pool-a-1", "pool-b-1"];
    both.iter().for_each(|node| put_manifest(&edge, node));
    until_versions(&edge, both, ["zero"; 2]);
    cut(&edge, "pool-b", &["pool-b-1", "pool-b-2"]);
    edge.apply(&static_set("AdvancedRollingUpdate", "one"));
    until_versions(&edge, ["pool-a-1"], ["one"]);
    until_counts(&edge, 2, 1);
    let manifest = node_dir(&edge, "pool-b-1").join("manifests/web.yaml");
    assert!(std::fs::read_to_string(&manifest).unwrap().contains("zero"), "it is away");
    edge.toono_here(&["lab", "heal"], &["pool-b"]);
    let done = until_versions(&edge, both, ["one"; 2]);
    until_counts(&edge, 2, 2);
    let map = edge.kubectl_json(&["get", "configmap", "yurt-static-set-web"]);
    assert!(map["data"]["web"].as_str().unwrap().contains("kind: Pod"), "{map}");

    // The same again changes nothing; the strategy is no part of the pod.
    edge.apply(&static_set("OTA", "one"));
    until("the set to be looked at", PATIENCE, || {
        let set = edge.kubectl_json(&["get", "yss", "web"]);
        (set["status"]["observedGeneration"] == set["metadata"]["generation"]).then_some(())
    });
    assert_eq!(changed(&done, &runs(&edge)), Vec::<String>::new());

    edge.apply(&static_set("OTA", "two"));
    until_offered(&edge, &both);
    approve_on(&edge, "pool-b-1", "web-pool-b-1");
    let now = until_versions(&edge, both, ["one", "two"]);
    assert_eq!(changed(&done, &now), ["pool-b-1"]);
    until_counts(&edge, 2, 1);
}
