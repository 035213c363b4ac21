//! Nodes: `taint`, `cordon`, `drain`.

use serde_json::json;

use crate::harness::Kubectl;

const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: edge-9, labels: {kubernetes.io/hostname: edge-9, kubernetes.io/os: linux, node-role.kubernetes.io/edge: ''}}
spec: {podCIDR: 10.99.0.0/24}
";
const READY: &str = r#"{"status":{"capacity":{"cpu":"4","memory":"8Gi","pods":"110"},"allocatable":{"cpu":"4","memory":"8Gi","pods":"110"},"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"}],"nodeInfo":{"kubeletVersion":"v1.35.0"}}}"#;

/// A pod that nobody schedules: it names its node.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec: {nodeName: edge-9, containers: [{name: main, image: 'x:1'}]}
";

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("nodes");
    k.fed("create -f -", NODE, &["node/edge-9 created"]);
    k.is(&format!("patch node edge-9 --subresource=status -p '{READY}'"), "node/edge-9 patched");
    k.holds(
        "get node edge-9",
        &[("/status/capacity/pods", json!("110")), ("/spec/podCIDR", json!("10.99.0.0/24"))],
    );
    k.says(
        "get nodes -o wide",
        &["NAME STATUS ROLES AGE VERSION INTERNAL-IP", "edge-9", " edge ", "v1.35.0"],
    );
    taints(k);
    drains(k);
    k.says(
        "describe node edge-9",
        &["Name: edge-9", "Roles: edge", "Unschedulable: false", "PodCIDR: 10.99.0.0/24"],
    );
    k.says("delete node edge-9", &["node \"edge-9\" deleted"]);
}

fn taints(k: &Kubectl<'_>) {
    k.is("taint node edge-9 wet=yes:PreferNoSchedule", "node/edge-9 tainted");
    k.says(
        "get node edge-9 -o jsonpath='{.spec.taints}'",
        &["{\"effect\":\"PreferNoSchedule\",\"key\":\"wet\",\"value\":\"yes\"}"],
    );
    k.fails(
        "taint node edge-9 wet=no:PreferNoSchedule",
        &["already has wet taint(s) with same effect(s) and --overwrite is false"],
    );
    k.is("taint node edge-9 wet=no:PreferNoSchedule --overwrite", "node/edge-9 modified");
    k.is("taint node -l kubernetes.io/hostname=edge-9 wet-", "node/edge-9 untainted");
    k.lacks("get node edge-9 -o jsonpath='{.metadata.name} {.spec.taints}'", "edge-9", &["wet"]);
    k.fails("taint node edge-9 wet=yes:Never", &["invalid taint effect: Never"]);
    k.is("label node edge-9 shelf=top", "node/edge-9 labeled");
    k.is("get nodes -l shelf=top -o name", "node/edge-9");
}

fn drains(k: &Kubectl<'_>) {
    for name in ["free", "kept"] {
        k.fed("create -f -", &POD.replace("NAME", name), &[&format!("pod/{name} created")]);
        k.make_ready(&format!("app={name}"));
    }
    k.is(
        "get pods --field-selector spec.nodeName=edge-9,status.phase=Running -o name",
        "pod/free\npod/kept",
    );
    k.says(
        "get pods -A --field-selector spec.nodeName=edge-9 -o wide",
        &["NAMESPACE NAME READY STATUS RESTARTS AGE IP NODE", "nodes free 1/1 Running 0", "edge-9"],
    );
    k.is(
        "create pdb keep --selector=app=kept --min-available=1",
        "poddisruptionbudget.policy/keep created",
    );
    k.is("create service clusterip kept --tcp=80:8080", "service/kept created");
    k.is("patch pod kept --subresource=status -p '{\"status\":{\"podIP\":\"10.1.2.4\",\"podIPs\":[{\"ip\":\"10.1.2.4\"}]}}'", "pod/kept patched");
    k.until(
        "get endpointslices -l kubernetes.io/service-name=kept",
        &["NAME ADDRESSTYPE PORTS ENDPOINTS AGE\nkept-", "IPv4 8080 10.1.2.4"],
    );
    k.is("cordon edge-9", "node/edge-9 cordoned");
    k.says("get node edge-9", &["SchedulingDisabled"]);
    k.holds("get node edge-9 --ignore-not-found", &[("/spec/unschedulable", json!(true))]);
    k.is("cordon edge-9 --dry-run=none", "node/edge-9 already cordoned");
    k.fails("drain edge-9", &["cannot delete", "declare no controller (use --force to override)"]);
    k.says("get pdb keep", &["keep 1 N/A"]);
    k.says("delete pdb keep", &["poddisruptionbudget.policy \"keep\" deleted"]);
    k.says(
        "drain edge-9 --force --ignore-daemonsets --grace-period=0 --timeout=30s",
        &[
            "node/edge-9 already cordoned",
            "evicting pod nodes/free",
            "evicting pod nodes/kept",
            "pod/kept evicted",
            "node/edge-9 drained",
        ],
    );
    k.is("get pods -o jsonpath='{.items}'", "[]");
    k.is("uncordon edge-9", "node/edge-9 uncordoned");
    k.is("get node edge-9 -o jsonpath='{.spec.unschedulable}'", "");
}
