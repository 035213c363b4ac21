//! Pools as OpenYurt's users know them, on a real edge, by kubectl: what a pool gives its nodes and says of them, who
//! leads it, what runs in each, and that it is not deleted under its nodes.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    edge::{Edge, condition},
    wait::until,
};

/// A rollout of some pods, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const IMAGE: &str = "lab.toono.io/busybox:1";
const POOL: &str = "apps.openyurt.io/nodepool";

#[test]
fn pools_give_count_elect_and_run_what_they_say() {
    let edge = Edge::up_beside();
    an_empty_pool_comes_and_goes(&edge);
    a_pool_gives_its_nodes_what_it_says_and_takes_it_back(&edge);
    a_node_leaves_its_pool_before_it_joins_another(&edge);
    leaders_are_elected_at_random_and_by_mark(&edge);
    a_set_runs_in_each_pool_as_the_pool_has_it(&edge);
    kubectl_shows_the_columns(&edge);
    a_pool_is_not_deleted_under_its_nodes(&edge);
}

fn an_empty_pool_comes_and_goes(edge: &Edge) {
    edge.apply(&pool("empty", json!({"type": "Cloud"})));
    until_members(edge, "empty", &[]);
    edge.kubectl(&["delete", "np", "empty", "--timeout=60s"]);
    let left = edge.kubectl(&["get", "np", "-o", "name"]);
    assert!(!left.contains("empty"), "{left}");
}

fn a_pool_gives_its_nodes_what_it_says_and_takes_it_back(edge: &Edge) {
    edge.apply(&pool(
        "pool-a",
        json!({"type": "Edge", "labels": {"region": "north"}, "annotations": {"owner": "shop"},
            "taints": [{"key": "far", "value": "yes", "effect": "PreferNoSchedule"}]}),
    ));
    until_members(edge, "pool-a", &["pool-a-1", "pool-a-2"]);
    ["pool-a-1", "pool-a-2"].iter().for_each(|node| until_given(edge, node, true));
    until_given(edge, "pool-b-1", false);
    edge.kubectl(&["label", "node", "pool-a-2", &format!("{POOL}-")]);
    until_members(edge, "pool-a", &["pool-a-1"]);
    until_given(edge, "pool-a-2", false);
    until_given(edge, "pool-a-1", true);
    edge.kubectl(&["label", "node", "pool-a-2", &format!("{POOL}=pool-a")]);
    until_members(edge, "pool-a", &["pool-a-1", "pool-a-2"]);
    until_given(edge, "pool-a-2", true);
}

fn a_node_leaves_its_pool_before_it_joins_another(edge: &Edge) {
    let move_to = format!("{POOL}=pool-b");
    let moved = ["label", "node", "pool-a-1", "--overwrite", &move_to];
    let output = edge.kubectl_command(&moved).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "a node is in one pool");
    assert!(told.contains("pool \"pool-a\"") && told.contains("take the label away"), "{told}");
}

fn leaders_are_elected_at_random_and_by_mark(edge: &Edge) {
    edge.apply(&pool(
        "pool-b",
        json!({"type": "Edge", "interConnectivity": true, "enableLeaderElection": true,
            "leaderElectionStrategy": "random", "leaderReplicas": 2}),
    ));
    until_led_by(edge, &["pool-b-1", "pool-b-2"]);
    let age = edge.kubectl(&["get", "np", "pool-b", "-o", "jsonpath={.status.conditions[*].type}"]);
    assert!(age.contains("LeaderReady"), "{age}");
    let mark = json!({"spec": {"leaderElectionStrategy": "mark", "leaderReplicas": 1,
        "leaderNodeLabelSelector": {"kubernetes.io/hostname": "pool-b-2"}}});
    let mark = mark.to_string();
    edge.kubectl(&["patch", "np", "pool-b", "--type=merge", "-p", &mark]);
    until_led_by(edge, &["pool-b-2"]);
    let role = edge.kubectl_json(&["get", "clusterrole", "yurt-hub-multiplexer"]);
    let may = |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["list", "watch"]});
    assert_eq!(
        role["rules"],
        json!([may("", "services"), may("discovery.k8s.io", "endpointslices")])
    );
}

/// Waits for exactly these leaders, at their addresses, in the status and in the ConfigMap that nodes read.
fn until_led_by(edge: &Edge, nodes: &[&str]) {
    let ends: Vec<(&str, String)> = nodes.iter().map(|node| (*node, address(edge, node))).collect();
    let leaders: Vec<Value> =
        ends.iter().map(|(node, at)| json!({"nodeName": node, "address": at})).collect();
    let leaders = Value::from(leaders);
    until(&format!("leaders {leaders}"), PATIENCE, || {
        let status = edge.kubectl_json(&["get", "np", "pool-b"])["status"].clone();
        (status["leaderEndpoints"] == leaders && status["leaderNum"] == nodes.len()).then_some(())
    });
    let told: Vec<String> = ends.iter().map(|(node, at)| format!("{node}/{at}")).collect();
    let data = json!({"leaders": told.join(","), "interconnectivity": "true",
        "enable-leader-election": "true",
        "pool-scoped-metadata": "/v1/services,discovery.k8s.io/v1/endpointslices"});
    until(&format!("{data}"), PATIENCE, || {
        let map = ["get", "configmap", "-n", "kube-system", "leader-hub-pool-b"];
        (edge.kubectl_json(&map)["data"] == data).then_some(())
    });
}

fn address(edge: &Edge, node: &str) -> String {
    let path = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    edge.kubectl(&["get", "node", node, "-o", path])
}

fn a_set_runs_in_each_pool_as_the_pool_has_it(edge: &Edge) {
    let image_id = "jsonpath={.items[0].status.containerStatuses[0].imageID}";
    let by_digest = edge.kubectl(&["get", "pods", "-l", "app=hello", "-o", image_id]);
    assert!(by_digest.contains("/busybox@sha256:"), "{by_digest}");
    edge.apply(&set(json!([])));
    let plain = (IMAGE.to_owned(), String::new());
    let both = BTreeMap::from([
        ("pool-a".to_owned(), vec![plain.clone()]),
        ("pool-b".to_owned(), vec![plain.clone()]),
    ]);
    until_run(edge, &both);

    let tweak = json!({"replicas": 2, "containerImages": [{"name": "main", "targetImage": by_digest}],
        "patches": [{"operation": "add", "path": "/spec/template/spec/containers/0/env",
            "value": [{"name": "PLACE", "value": "in-{{nodepool-name}}"}]}]});
    edge.apply(&set(json!([{"pools": ["pool-b"], "tweaks": tweak}])));
    let tweaked = (by_digest, "in-pool-b".to_owned());
    let other = BTreeMap::from([
        ("pool-a".to_owned(), vec![plain]),
        ("pool-b".to_owned(), vec![tweaked.clone(), tweaked]),
    ]);
    until_run(edge, &other);
    let said = app(edge, &["rollback"]);
    assert!(said.contains("default/shop goes back to revision 1"), "{said}");
    until_run(edge, &both);
    let shown = app(edge, &["show"]);
    let lines = |pool: &str| shown.lines().filter(|line| line.starts_with(pool)).count();
    assert_eq!((lines("pool-a"), lines("pool-b")), (1, 1), "{shown}");
}

/// `toono app COMMAND shop`.
fn app(edge: &Edge, command: &[&str]) -> String {
    let config = edge.kubeconfig();
    let arguments =
        [&["app"], command, &["shop", "--kubeconfig", config.to_str().unwrap()]].concat();
    crate::edge::success(&arguments.join(" "), edge.toono(&arguments))
}

/// Image and environment of each pod.
type Runs = BTreeMap<String, Vec<(String, String)>>;

/// Waits until the ready pods of the set are these, on the nodes of their pools, and the set says so.
fn until_run(edge: &Edge, expected: &Runs) {
    until(&format!("{expected:?}"), PATIENCE, || {
        let mut found = Runs::new();
        for pod in edge.kubectl_json(&["get", "pods", "-l", "app=shop"])["items"].as_array()? {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (node, container) = (text(&pod["spec"]["nodeName"]), &pod["spec"]["containers"][0]);
            let pool = text(&pod["metadata"]["labels"]["apps.openyurt.io/pool-name"]);
            assert!(node.is_empty() || node.starts_with(&pool), "{pool} on {node}");
            if condition(pod, "Ready") != "True" || pod["metadata"]["deletionTimestamp"].is_string()
            {
                return None;
            }
            let runs = (text(&container["image"]), text(&container["env"][0]["value"]));
            found.entry(pool).or_default().push(runs);
        }
        let set = edge.kubectl_json(&["get", "yas", "shop"]);
        let count = |field: &str| set["status"][field] == 2;
        let told = ["totalWorkloads", "readyWorkloads", "updatedWorkloads"].into_iter().all(count)
            && set["status"]["observedGeneration"] == set["metadata"]["generation"];
        (told && found == *expected).then_some(())
    });
}

fn kubectl_shows_the_columns(edge: &Edge) {
    edge.apply(&json!({"apiVersion": "apps.openyurt.io/v1alpha1", "kind": "YurtStaticSet",
        "metadata": {"name": "gate"}, "spec": {"staticPodManifest": "gate", "template": template("gate")}}));
    let shown = edge.kubectl(&["get", "np,yas,yss"]);
    let rows: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    for columns in [
        &["NAME", "TYPE", "READYNODES", "NOTREADYNODES", "LEADERNODES", "LEADERELECTIONAGE", "AGE"]
            [..],
        &["NAME", "TOTAL", "READY", "UPDATED", "AGE"],
        &["NAME", "AGE", "TOTAL", "READY", "UPGRADED"],
    ] {
        assert!(rows.iter().any(|row| row == columns), "{columns:?} in {shown}");
    }
    for (name, values) in [
        ("nodepool.apps.openyurt.io/pool-a", &["Edge", "2", "0"][..]),
        ("nodepool.apps.openyurt.io/pool-b", &["Edge", "2", "0", "1"]),
        ("yurtappset.apps.openyurt.io/shop", &["2", "2", "2"]),
    ] {
        let row = rows
            .iter()
            .find(|row| row.first() == Some(&name))
            .unwrap_or_else(|| panic!("{name} in {shown}"));
        assert_eq!(&row[1..=values.len()], values, "{shown}");
    }
    edge.kubectl(&["delete", "yas/shop", "yss/gate"]);
}

fn a_pool_is_not_deleted_under_its_nodes(edge: &Edge) {
    edge.kubectl(&["delete", "np", "pool-b", "--wait=false"]);
    until("the pool to say why it stays", PATIENCE, || {
        let pool = edge.kubectl_json(&["get", "np", "pool-b"]);
        let conditions = pool["status"]["conditions"].to_string();
        (conditions.contains("pool-b-1") && conditions.contains("pool-b-2")).then_some(())
    });
    edge.kubectl(&["label", "node", "pool-b-1", "pool-b-2", &format!("{POOL}-")]);
    edge.kubectl(&["wait", "np/pool-b", "--for=delete", "--timeout=60s"]);
    until("its leaders' ConfigMap to be gone", PATIENCE, || {
        let maps = edge.kubectl(&["get", "configmap", "-n", "kube-system", "-o", "name"]);
        (!maps.contains("leader-hub-pool-b")).then_some(())
    });
}

fn pool(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "apps.openyurt.io/v1beta2", "kind": "NodePool",
        "metadata": {"name": name}, "spec": spec})
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": IMAGE, "command": ["sleep", "100000"]}]}})
}

fn set(tweaks: Value) -> Value {
    let deployment = json!({"replicas": 1, "selector": {"matchLabels": {"app": "shop"}},
        "template": template("shop")});
    json!({"apiVersion": "apps.openyurt.io/v1beta1", "kind": "YurtAppSet", "metadata": {"name": "shop"},
        "spec": {"pools": ["pool-a", "pool-b"], "workload": {"workloadTweaks": tweaks,
            "workloadTemplate": {"deploymentTemplate": {"spec": deployment}}}}})
}

/// Waits until the pool names these nodes, all of them ready.
fn until_members(edge: &Edge, pool: &str, nodes: &[&str]) {
    until(&format!("{nodes:?} in {pool}"), PATIENCE, || {
        let status = edge.kubectl_json(&["get", "np", pool])["status"].clone();
        let names: Vec<&str> = match status["nodes"].as_array() {
            Some(names) => names.iter().filter_map(Value::as_str).collect(),
            None => Vec::new(),
        };
        let told = status["readyNodeNum"] == nodes.len() && status["unreadyNodeNum"] == 0;
        (told && names == nodes).then_some(())
    });
}

/// Waits until a node has all that pool-a gives, or nothing of it.
fn until_given(edge: &Edge, node: &str, all: bool) {
    until(&format!("{node} to have what its pool gives: {all}"), PATIENCE, || {
        let node = edge.kubectl_json(&["get", "node", node]);
        let meta = &node["metadata"];
        let taint = json!({"key": "far", "value": "yes", "effect": "PreferNoSchedule"});
        let tainted =
            node["spec"]["taints"].as_array().is_some_and(|taints| taints.contains(&taint));
        let given =
            [meta["labels"]["region"] == "north", meta["annotations"]["owner"] == "shop", tainted];
        (given == [all; 3]).then_some(())
    });
}
