//! A stolen node credential: it reads what its pods need, writes its own, and nothing else.

use http::Method;
use serde_json::{Value, json};

use crate::{cluster::Cluster, http::Http};

const NAMESPACE: &str = "/api/v1/namespaces/default";

async fn make(admin: &mut Http, path: &str, object: Value) -> Value {
    let (code, said) = admin.post(path, &object).await;
    assert_eq!(code, 201, "{path}: {said}");
    said
}

#[tokio::test]
async fn a_node_reads_only_what_its_pods_refer_to() {
    let cluster = Cluster::start().await;
    let own = cluster.ca().issue_client("kubernetes-admin", &["system:masters"]).unwrap();
    let mut admin = Http::connect(&cluster, Some(&own)).await;
    let own = cluster.ca().issue_client("system:node:edge-1", &["system:nodes"]).unwrap();
    let mut node = Http::connect(&cluster, Some(&own)).await;
    for name in ["edge-1", "edge-2"] {
        make(&mut admin, "/api/v1/nodes", json!({"metadata": {"name": name}})).await;
    }
    for name in ["mine", "theirs", "nobodys"] {
        let object = json!({"metadata": {"name": name}});
        make(&mut admin, &format!("{NAMESPACE}/secrets"), object.clone()).await;
        make(&mut admin, &format!("{NAMESPACE}/configmaps"), object.clone()).await;
        make(&mut admin, &format!("{NAMESPACE}/serviceaccounts"), object).await;
    }
    let mut pods = Vec::new();
    for (name, at, refers) in [("one", "edge-1", "mine"), ("two", "edge-2", "theirs")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": at,
            "serviceAccountName": refers,
            "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": refers}},
                {"configMapRef": {"name": refers}}]}]}});
        pods.push(make(&mut admin, &format!("{NAMESPACE}/pods"), pod).await);
    }
    let mine = format!("{NAMESPACE}/secrets/mine");
    let known = async { while node.get(&mine, &[]).await.0 != 200 {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), known).await.unwrap();
    for (path, code) in [
        ("/configmaps/mine", 200),
        ("/serviceaccounts/mine", 200),
        ("/pods/one", 200),
        ("/pods?fieldSelector=spec.nodeName%3Dedge-1", 200),
        ("/secrets?fieldSelector=metadata.name%3Dmine", 200),
        ("/secrets/theirs", 403),
        ("/secrets/nobodys", 403),
        ("/secrets/not-there", 403),
        ("/secrets", 403),
        ("/secrets?fieldSelector=metadata.name%3Dtheirs", 403),
        ("/secrets?fieldSelector=metadata.name!%3Dmine", 403),
        ("/configmaps/theirs", 403),
        ("/configmaps", 403),
        ("/serviceaccounts/theirs", 403),
        ("/pods/two", 403),
        ("/pods", 403),
        ("/pods?fieldSelector=spec.nodeName%3Dedge-2", 403),
        ("/pods/one/log", 403),
    ] {
        let (answered, said) = node.get(&format!("{NAMESPACE}{path}"), &[]).await;
        assert_eq!(answered, code, "{path}: {said}");
    }
    for (path, code) in [
        ("/api/v1/nodes/edge-1", 200),
        ("/api/v1/nodes/edge-2", 403),
        ("/api/v1/nodes", 403),
        ("/api/v1/secrets", 403),
        ("/api/v1/services", 200),
        ("/api/v1/namespaces", 403),
        ("/apis/apps/v1/deployments", 403),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", 403),
        ("/metrics", 403),
    ] {
        let (answered, said) = node.get(path, &[]).await;
        assert_eq!(answered, code, "{path}: {said}");
    }
    writes(&mut node, &pods).await;
    // What a pod gave ends with it.
    let (code, said) = admin
        .ask(
            &Method::DELETE,
            &format!("{NAMESPACE}/pods/one?gracePeriodSeconds=0"),
            &[],
            &Value::Null,
        )
        .await;
    assert_eq!(code, 200, "{said}");
    let gone = async { while node.get(&mine, &[]).await.0 != 403 {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.unwrap();
    cluster.stop().await;
}

async fn writes(node: &mut Http, pods: &[Value]) {
    let bound = |pod: &Value| {
        let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"]});
        json!({"spec": {"boundObjectRef": reference}})
    };
    let token = |account: &str| format!("{NAMESPACE}/serviceaccounts/{account}/token");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let patch = [("content-type", "application/merge-patch+json")];
    for (method, path, body, code, words) in [
        (Method::PATCH, "/api/v1/nodes/edge-1/status", ready.clone(), 200, ""),
        (
            Method::PATCH,
            "/api/v1/nodes/edge-2/status",
            ready.clone(),
            403,
            "node \"edge-1\" is not allowed to modify node \"edge-2\"",
        ),
        (Method::PATCH, "/api/v1/nodes/edge-1", label("topology.kubernetes.io/zone"), 200, ""),
        (
            Method::PATCH,
            "/api/v1/nodes/edge-1",
            label("node-restriction.kubernetes.io/a"),
            403,
            "is not allowed to modify labels",
        ),
        (
            Method::PATCH,
            "/api/v1/nodes/edge-1",
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
            403,
            "is not allowed to modify taints",
        ),
        (Method::PATCH, &format!("{NAMESPACE}/pods/one/status"), ready.clone(), 200, ""),
        (
            Method::PATCH,
            &format!("{NAMESPACE}/pods/two/status"),
            ready,
            403,
            "can only update pod status for pods with spec.nodeName set to itself",
        ),
        (
            Method::DELETE,
            &format!("{NAMESPACE}/pods/two"),
            Value::Null,
            403,
            "can only delete pods with spec.nodeName set to itself",
        ),
        (Method::POST, leases, lease("edge-1"), 201, ""),
        (
            Method::POST,
            leases,
            lease("edge-2"),
            403,
            "can only access node lease with the same name as the requesting node",
        ),
        (Method::POST, &token("mine"), bound(&pods[0]), 201, ""),
        (
            Method::POST,
            &token("mine"),
            json!({"spec": {}}),
            403,
            "node requested token not bound to a pod",
        ),
        (
            Method::POST,
            &token("theirs"),
            bound(&pods[1]),
            403,
            "no relationship found between node 'edge-1' and this object",
        ),
        (
            Method::POST,
            &format!("{NAMESPACE}/pods/two/eviction"),
            json!({"metadata": {"name": "two"}}),
            403,
            "can only evict pods with spec.nodeName set to itself",
        ),
        (
            Method::POST,
            &format!("{NAMESPACE}/secrets"),
            json!({"metadata": {"name": "x"}}),
            403,
            "can only read resources of this type",
        ),
        (
            Method::POST,
            &format!("{NAMESPACE}/pods"),
            json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
            403,
            "can only create mirror pods",
        ),
    ] {
        let headers = if method == Method::PATCH { &patch[..] } else { &[] };
        let (answered, said) = node.ask(&method, path, headers, &body).await;
        assert_eq!(answered, code, "{method} {path} {body}: {said}");
        assert!(said["message"].as_str().unwrap_or_default().contains(words), "{said}");
    }
}
