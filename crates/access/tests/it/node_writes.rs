//! What a node may write, with Kubernetes' words for what it may not.

use serde_json::{Value, json};
use toono_access::{Graph, NodeWrite, restrict};
use toono_api::UserInfo;

use crate::{asks, user};

fn me() -> UserInfo {
    user("system:node:a", &["system:nodes"])
}

fn graph() -> Graph {
    let mut graph = Graph::default();
    for (name, node) in [("mine", "a"), ("theirs", "b")] {
        graph.apply_pod(&json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
            "spec": {"nodeName": node, "serviceAccountName": "bot"}}));
    }
    graph
}

/// The refusal without what it is about, or nothing.
fn refusal(
    verb: &str,
    what: &str,
    name: &str,
    old: Option<Value>,
    new: Option<Value>,
) -> Option<String> {
    let namespace = if what.starts_with("leases") { "kube-node-lease" } else { "shop" };
    let namespace = if what.starts_with("nodes") { "" } else { namespace };
    let write = NodeWrite { old: old.as_ref(), new: new.as_ref(), node_uid: Some("uid-a") };
    let result = restrict(&graph(), &asks(&me(), verb, what, namespace, name), &write);
    result.err().map(|error| {
        let text = error.to_string();
        text.split_once(" is forbidden: ").map_or(text.clone(), |(_, why)| why.to_owned())
    })
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field.replace("~1", "/")] = value;
    object
}

fn mirror() -> Value {
    json!({
        "metadata": {"name": "m", "namespace": "shop", "annotations": {"kubernetes.io/config.mirror": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "uid-a", "controller": true}]},
        "spec": {"nodeName": "a", "containers": [{"name": "c"}]},
    })
}

#[test]
fn a_node_creates_mirror_pods_only() {
    assert_eq!(refusal("create", "pods", "", None, Some(mirror())), None);
    let owner = "/metadata/ownerReferences/0";
    for (pointer, value, why) in [
        (
            "/metadata/annotations",
            json!({}),
            r#"pod does not have "kubernetes.io/config.mirror" annotation, node "a" can only create mirror pods"#,
        ),
        (
            "/spec/nodeName",
            json!("b"),
            r#"node "a" can only create pods with spec.nodeName set to itself"#,
        ),
        (
            "/metadata/ownerReferences",
            json!([]),
            r#"node "a" can only create pods with an owner reference set to itself"#,
        ),
        (
            "/metadata/ownerReferences",
            json!([{}, {}]),
            r#"node "a" can only create pods with a single owner reference set to itself"#,
        ),
        (
            &format!("{owner}/name"),
            json!("b"),
            r#"node "a" can only create pods with an owner reference set to itself"#,
        ),
        (
            &format!("{owner}/controller"),
            json!(false),
            r#"node "a" can only create pods with a controller owner reference set to itself"#,
        ),
        (
            &format!("{owner}/blockOwnerDeletion"),
            json!(true),
            r#"node "a" must not set blockOwnerDeletion on an owner reference"#,
        ),
        (&format!("{owner}/uid"), json!("old"), "node a UID mismatch: expected old got uid-a"),
        (
            "/spec/serviceAccountName",
            json!("bot"),
            r#"node "a" can not create pods that reference a service account"#,
        ),
        (
            "/spec/imagePullSecrets",
            json!([{"name": "x"}]),
            r#"node "a" can not create pods that reference secrets"#,
        ),
        (
            "/spec/volumes",
            json!([{"configMap": {"name": "x"}}]),
            r#"node "a" can not create pods that reference configmaps"#,
        ),
        (
            "/spec/volumes",
            json!([{"projected": {"sources": [{"clusterTrustBundle": {}}]}}]),
            r#"node "a" can not create pods that reference clustertrustbundles"#,
        ),
        (
            "/spec/volumes",
            json!([{"persistentVolumeClaim": {"claimName": "x"}}]),
            r#"node "a" can not create pods that reference persistentvolumeclaims"#,
        ),
    ] {
        let found = refusal("create", "pods", "", None, Some(with(mirror(), pointer, value)));
        assert_eq!(found.as_deref(), Some(why), "{pointer}");
    }
    // To replace what is not there is to create.
    let plain = with(mirror(), "/metadata/annotations", json!({}));
    assert!(
        refusal("update", "pods", "m", None, Some(plain)).unwrap().starts_with("pod does not have")
    );
    let unknown = NodeWrite { new: Some(&mirror()), ..NodeWrite::default() };
    let error =
        restrict(&graph(), &asks(&me(), "create", "pods", "shop", ""), &unknown).unwrap_err();
    assert_eq!(error.to_string(), "node \"a\" not found");
}

#[test]
fn a_node_deletes_and_reports_its_own_pods_only() {
    let pod = |node: &str| json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"nodeName": node}});
    assert_eq!(refusal("delete", "pods", "p", Some(pod("a")), None), None);
    assert_eq!(
        refusal("delete", "pods", "p", Some(pod("b")), None).unwrap(),
        r#"node "a" can only delete pods with spec.nodeName set to itself"#
    );
    assert_eq!(
        refusal("patch", "pods", "p", Some(pod("a")), Some(pod("a"))).unwrap(),
        r#"unexpected operation "UPDATE", node "a" can only create and delete mirror pods"#
    );
    let reported = with(pod("a"), "/status", json!({"phase": "Running"}));
    assert_eq!(refusal("patch", "pods/status", "p", Some(pod("a")), Some(reported)), None);
    assert_eq!(
        refusal("update", "pods/status", "p", Some(pod("b")), Some(pod("a"))).unwrap(),
        r#"node "a" can only update pod status for pods with spec.nodeName set to itself"#
    );
    let labelled = with(pod("a"), "/metadata/labels", json!({"a": "c"}));
    assert_eq!(
        refusal("update", "pods/status", "p", Some(pod("a")), Some(labelled)).unwrap(),
        r#"node "a" cannot update labels through pod status"#
    );
    assert_eq!(
        refusal("create", "pods/exec", "p", None, None).unwrap(),
        "unexpected pod subresource \"exec\", only 'status' and 'eviction' are allowed"
    );
    assert_eq!(refusal("create", "pods/eviction", "mine", None, Some(json!({}))), None);
    assert_eq!(
        refusal("create", "pods/eviction", "theirs", None, Some(json!({}))).unwrap(),
        "node a can only evict pods with spec.nodeName set to itself"
    );
    assert_eq!(
        refusal("create", "pods/eviction", "gone", None, None).unwrap(),
        "pod \"gone\" not found"
    );
}

#[test]
fn a_node_changes_only_what_steers_no_work() {
    let node = json!({"metadata": {"name": "a", "labels": {}, "annotations": {}}, "spec": {}, "status": {}});
    for (key, allowed) in [
        ("example.com/zone", true),
        ("role", true),
        ("kubernetes.io/hostname", true),
        ("kubernetes.io/os", true),
        ("topology.kubernetes.io/zone", true),
        ("kubelet.kubernetes.io/x", true),
        ("foo.node.kubernetes.io/x", true),
        ("notkubernetes.io/x", true),
        ("kubernetes.io/role", false),
        ("node-role.kubernetes.io/control-plane", false),
        ("other.k8s.io/x", false),
        ("node-restriction.kubernetes.io/pci", false),
        ("example.node-restriction.kubernetes.io/x", false),
        ("apps.openyurt.io/nodepool", false),
        ("openyurt.io/is-edge-worker", false),
    ] {
        let labelled =
            with(node.clone(), &format!("/metadata/labels/{}", key.replace('/', "~1")), json!("x"));
        let refused = |text: String| (!allowed).then_some(text);
        assert_eq!(
            refusal("create", "nodes", "", None, Some(labelled.clone())),
            refused(format!("node \"a\" is not allowed to set the following labels: {key}"))
        );
        let modify = refused(format!("is not allowed to modify labels: {key}"));
        for what in ["nodes", "nodes/status"] {
            let (with_it, without) = (Some(labelled.clone()), Some(node.clone()));
            assert_eq!(refusal("patch", what, "a", without.clone(), with_it.clone()), modify);
            assert_eq!(refusal("update", what, "a", with_it.clone(), without), modify);
            assert_eq!(refusal("update", what, "a", with_it.clone(), with_it), None);
        }
    }
    let index = with(node.clone(), "/metadata/annotations", json!({"toono.io/session-index": "7"}));
    assert_eq!(
        refusal("patch", "nodes", "a", Some(node.clone()), Some(index)).unwrap(),
        "is not allowed to modify annotations: toono.io/session-index"
    );
    let tainted = with(node.clone(), "/spec/taints", json!([{"key": "k", "effect": "NoSchedule"}]));
    assert_eq!(
        refusal("update", "nodes", "a", Some(tainted), Some(node.clone())).unwrap(),
        r#"node "a" is not allowed to modify taints"#
    );
    let sourced = with(node.clone(), "/spec/configSource", json!({"configMap": {}}));
    assert_eq!(
        refusal("update", "nodes", "a", Some(node.clone()), Some(sourced)).unwrap(),
        r#"node "a" is not allowed to update configSource to a new non-nil configSource"#
    );
    assert_eq!(
        refusal("patch", "nodes/status", "b", Some(node.clone()), Some(node.clone())).unwrap(),
        r#"node "a" is not allowed to modify node "b""#
    );
    assert_eq!(refusal("get", "nodes", "b", None, None), None);
}

#[test]
fn leases_tokens_and_claims_are_its_own() {
    let named = |name: &str| Some(json!({"metadata": {"name": name}}));
    let lease = "leases.coordination.k8s.io";
    assert_eq!(refusal("create", lease, "", None, named("a")), None);
    assert_eq!(refusal("update", lease, "a", named("a"), named("a")), None);
    assert_eq!(
        refusal("create", lease, "", None, named("b")).unwrap(),
        "can only access node lease with the same name as the requesting node"
    );
    assert_eq!(
        refusal("create", "csinodes.storage.k8s.io", "", None, named("b")).unwrap(),
        "can only access CSINode with the same name as the requesting node"
    );

    let token = |name: &str, uid: &str| {
        Some(
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}}),
        )
    };
    for (body, why) in [
        (token("mine", "uid-mine"), None),
        (token("mine", ""), Some("node requested token with a pod binding without a uid")),
        (
            token("theirs", "uid-theirs"),
            Some("node requested token bound to a pod scheduled on a different node"),
        ),
        (token("gone", "x"), Some("pod \"gone\" not found")),
        (Some(json!({"spec": {}})), Some("node requested token not bound to a pod")),
        (
            token("mine", "old"),
            Some(
                "the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated",
            ),
        ),
    ] {
        assert_eq!(refusal("create", "serviceaccounts/token", "bot", None, body).as_deref(), why);
    }

    let claim = json!({"metadata": {"name": "disk", "resourceVersion": "1"}, "spec": {}, "status": {"phase": "Bound"}});
    let grown = with(claim.clone(), "/status/capacity", json!({"storage": "2Gi"}));
    let grown = with(grown, "/metadata/resourceVersion", json!(""));
    assert_eq!(
        refusal("patch", "persistentvolumeclaims/status", "disk", Some(claim.clone()), Some(grown)),
        None
    );
    let lost = with(claim.clone(), "/status/phase", json!("Lost"));
    assert!(
        refusal("patch", "persistentvolumeclaims/status", "disk", Some(claim.clone()), Some(lost))
            .is_some()
    );
    assert_eq!(
        refusal("patch", "persistentvolumeclaims", "disk", Some(claim.clone()), Some(claim))
            .unwrap(),
        "may only update PVC status"
    );
}

#[test]
fn everyone_else_passes() {
    let write = NodeWrite::default();
    for who in [user("jane", &[]), user("system:node:a", &[])] {
        restrict(&graph(), &asks(&who, "delete", "pods", "shop", "theirs"), &write).unwrap();
    }
    let nameless = user("system:node:", &["system:nodes"]);
    let error =
        restrict(&graph(), &asks(&nameless, "delete", "pods", "shop", "p"), &write).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pods \"p\" is forbidden: could not determine node from user \"system:node:\""
    );
}
