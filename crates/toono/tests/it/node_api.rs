//! A node's own API, its short supplies and its files' pods, as an unmodified kubectl sees them.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::{edge::Edge, wait::until};

const IMAGE: &str = "lab.toono.io/busybox:1";
const SOON: Duration = Duration::from_secs(90);
const NODE: &str = "pool-a-1";

#[test]
fn nodes_tell_what_they_use_and_run_what_their_files_say() {
    let edge = Edge::up();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "busy", "labels": {"app": "busy"}},
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": IMAGE,
            "command": ["sh", "-c", "echo one; echo two >&2; while :; do :; done"],
            "resources": {"limits": {"cpu": "200m", "memory": "32Mi"}}}]}});
    edge.apply(&pod);
    edge.kubectl(&["wait", "pod/busy", "--for=condition=Ready", "--timeout=60s"]);
    the_kubelets_paths_answer(&edge);
    kubectl_top_shows_nodes_and_pods(&edge);
    logs_have_their_options(&edge);
    a_file_is_a_pod_with_a_mirror(&edge);
    a_full_volume_evicts_its_pod(&edge);
}

fn raw(edge: &Edge, path: &str) -> String {
    edge.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{NODE}/proxy{path}")])
}

fn the_kubelets_paths_answer(edge: &Edge) {
    assert_eq!(raw(edge, "/healthz"), "ok");
    let summary: Value = serde_json::from_str(&raw(edge, "/stats/summary")).unwrap();
    assert_eq!(summary["node"]["nodeName"], NODE);
    let pods = summary["pods"].as_array().unwrap();
    let busy = pods.iter().find(|pod| pod["podRef"]["name"] == "busy").unwrap();
    assert!(busy["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0);
    let page = raw(edge, "/metrics/resource");
    assert!(
        page.contains("pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"busy\"}"),
        "{page}"
    );
    assert!(raw(edge, "/metrics/cadvisor").contains("container_network_receive_bytes_total{"));
    assert!(raw(edge, "/metrics").contains(&format!("kubelet_node_name{{node=\"{NODE}\"}} 1")));
    let pods: Value = serde_json::from_str(&raw(edge, "/pods")).unwrap();
    assert_eq!(pods["kind"], "PodList");
    let settings: Value = serde_json::from_str(&raw(edge, "/configz")).unwrap();
    assert_eq!(settings["kubeletconfig"]["kind"], "KubeletConfiguration");
    // Who may read pods may not therefore ask a node.
    let denied = edge
        .kubectl_command(&[
            "auth",
            "can-i",
            "get",
            "nodes/proxy",
            "--as",
            "eve",
            "--as-group",
            "system:authenticated",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&denied.stdout).trim(), "no");
}

fn kubectl_top_shows_nodes_and_pods(edge: &Edge) {
    let shown = edge.kubectl(&["top", "nodes"]);
    for node in ["pool-a-1", "pool-a-2", "pool-b-1", "pool-b-2"] {
        assert!(shown.contains(node), "{shown}");
    }
    let shown = edge.kubectl(&["top", "pods", "-l", "app=busy", "--containers"]);
    let line = shown.lines().last().unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(fields[..2], ["busy", "main"], "{shown}");
    let millis: u64 = fields[2].trim_end_matches('m').parse().unwrap();
    assert!((50..=300).contains(&millis), "it is held to 200m: {shown}");
    edge.kubectl(&["top", "pod", "busy"]);
    let one = edge.kubectl(&[
        "get",
        "--raw",
        "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/busy",
    ]);
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap()["kind"], "PodMetrics");
}

fn logs_have_their_options(edge: &Edge) {
    let all = edge.kubectl(&["logs", "busy", "--timestamps"]);
    assert_eq!(all.lines().count(), 2, "{all}");
    assert_eq!(edge.kubectl(&["logs", "busy", "--limit-bytes=2"]), "on");
    assert_eq!(
        edge.kubectl(&["logs", "-l", "app=busy", "--all-containers", "--tail=1"]).lines().count(),
        1
    );
    assert_eq!(edge.kubectl(&["logs", "busy", "--since=1h"]).lines().count(), 2);
    let path = "/api/v1/namespaces/default/pods/busy/log?stream=Stderr";
    assert_eq!(edge.kubectl(&["get", "--raw", path]), "two\n");
}

fn a_file_is_a_pod_with_a_mirror(edge: &Edge) {
    let dir = edge.data().join("nodes").join(NODE).join("manifests");
    fs::create_dir_all(&dir).unwrap();
    let manifest = |word: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fixed"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main",
                "image": IMAGE, "command": ["sh", "-c", format!("echo {word}; exec sleep 1000")]}]}})
        .to_string()
    };
    fs::write(dir.join("fixed.yaml"), manifest("first")).unwrap();
    let mirror = format!("fixed-{NODE}");
    let logged = |word: &str| {
        let output = edge.kubectl_command(&["logs", &mirror]).output().unwrap();
        (output.stdout == format!("{word}\n").as_bytes()).then_some(())
    };
    until("the API shows the file's pod", SOON, || logged("first"));
    let shown = edge.kubectl_json(&["get", "pod", &mirror]);
    let annotations = &shown["metadata"]["annotations"];
    assert_eq!(
        annotations["kubernetes.io/config.mirror"],
        annotations["kubernetes.io/config.hash"]
    );
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(shown["metadata"]["ownerReferences"][0]["kind"], "Node");
    let count = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    let running = |edge: &Edge| {
        until("it runs", SOON, || {
            let pod = edge.kubectl_json(&["get", "pod", &mirror]);
            (pod["status"]["phase"] == "Running").then_some(pod)
        })
    };
    let before = running(edge);

    // Deleted, it is there again, and nothing of it was restarted.
    edge.kubectl(&["delete", "pod", &mirror]);
    until("the mirror comes back", SOON, || {
        let found = edge
            .kubectl_command(&["get", "pod", &mirror, "-o", "jsonpath={.metadata.uid}"])
            .output()
            .unwrap();
        let uid = String::from_utf8(found.stdout).unwrap();
        (!uid.is_empty() && before["metadata"]["uid"] != uid.as_str()).then_some(())
    });
    assert_eq!(count(&running(edge)), count(&before));

    fs::write(dir.join("fixed.yaml"), manifest("second")).unwrap();
    until("the file's new version runs", SOON, || logged("second"));
    fs::remove_file(dir.join("fixed.yaml")).unwrap();
    until("it is gone", SOON, || {
        let found = edge.kubectl_command(&["get", "pod", &mirror]).output().unwrap();
        (!found.status.success()).then_some(())
    });
}

fn a_full_volume_evicts_its_pod(edge: &Edge) {
    edge.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "full"},
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            "containers": [{"name": "main", "image": IMAGE,
                "command": ["sh", "-c", "head -c 3000000 /dev/zero > /v/x; exec sleep 1000"],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}));
    edge.kubectl(&["wait", "pod/full", "--for=jsonpath={.status.phase}=Failed", "--timeout=120s"]);
    let pod = edge.kubectl_json(&["get", "pod", "full"]);
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(
        pod["status"]["message"],
        "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "
    );
    let shown = edge.kubectl(&["describe", "pod", "full"]);
    assert!(shown.contains("Evicted"), "{shown}");
    edge.kubectl(&["delete", "pod", "full", "busy"]);
}
