//! What a node may ask for: only itself and what its pods refer to, and only as long as they do.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use toono_access::{Access, Attributes, Graph, Request, bootstrap};
use toono_api::{FieldSelector, UserInfo};

use crate::{asks, resource, rules_of, user};

fn node(name: &str) -> UserInfo {
    user(&format!("system:node:{name}"), &["system:nodes"])
}

fn pod(namespace: &str, name: &str, node: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}")}, "spec": spec});
    pod["spec"]["nodeName"] = json!(node);
    pod
}

fn access(graph: Graph) -> Access {
    Access { rules: rules_of(&bootstrap::objects()), graph }
}

fn everything() -> Value {
    json!({
        "serviceAccountName": "bot",
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"name": "c",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env-map", "key": "k"}}}],
            "envFrom": [{"secretRef": {"name": "from-secret"}}, {"configMapRef": {"name": "from-map"}}]}],
        "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "init-map"}}]}],
        "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "debug-secret"}}]}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "volume-secret"}},
            {"name": "b", "configMap": {"name": "volume-map"}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}},
            {"name": "d", "projected": {"sources": [{"secret": {"name": "projected-secret"}}, {"configMap": {"name": "projected-map"}}]}},
            {"name": "e", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "csi-secret"}}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
        ],
        "resourceClaims": [{"name": "gpu", "resourceClaimName": "one-gpu"}],
    })
}

const REFERRED: [(&str, &str); 17] = [
    ("secrets", "pull"),
    ("secrets", "env-secret"),
    ("secrets", "from-secret"),
    ("secrets", "debug-secret"),
    ("secrets", "volume-secret"),
    ("secrets", "projected-secret"),
    ("secrets", "csi-secret"),
    ("configmaps", "env-map"),
    ("configmaps", "from-map"),
    ("configmaps", "init-map"),
    ("configmaps", "volume-map"),
    ("configmaps", "projected-map"),
    ("persistentvolumeclaims", "disk"),
    ("persistentvolumeclaims", "p-scratch"),
    ("resourceclaims.resource.k8s.io", "one-gpu"),
    ("serviceaccounts", "bot"),
    ("pods", "p"),
];

#[test]
fn a_node_reads_what_its_pods_refer_to() {
    let mut graph = Graph::default();
    graph.apply_pod(&pod("shop", "p", "a", everything()));
    graph.apply_volume(&json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "shop", "name": "disk"}}}));
    let mut access = access(graph);
    let (own, other) = (node("a"), node("b"));
    let may = |access: &Access, who, what, namespace, name| {
        access.decide(&asks(who, "get", what, namespace, name)).is_allowed()
    };
    for (what, name) in REFERRED {
        assert!(may(&access, &own, what, "shop", name), "{what} {name}");
        assert!(!may(&access, &other, what, "shop", name), "{what} {name}");
        assert!(!may(&access, &own, what, "depot", name), "{what} {name}");
        assert!(!may(&access, &own, what, "shop", "other"), "{what} {name}");
    }
    assert!(may(&access, &own, "persistentvolumes", "", "pv"));
    assert!(!may(&access, &other, "persistentvolumes", "", "pv"));
    access.graph.remove_pod("shop", "p");
    for (what, name) in REFERRED {
        assert!(!may(&access, &own, what, "shop", name), "{what} {name}");
    }
    assert!(!may(&access, &own, "persistentvolumes", "", "pv"));
    access.graph.remove_volume("pv");
    assert!(access.graph.is_empty());
}

#[test]
fn a_mirror_pod_gives_its_node_nothing() {
    let mut mirror = pod("shop", "p", "a", everything());
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let mut graph = Graph::default();
    graph.apply_pod(&mirror);
    let access = access(graph);
    for (what, name) in REFERRED {
        let decision = access.decide(&asks(&node("a"), "get", what, "shop", name));
        assert_eq!(decision.is_allowed(), what == "pods", "{what} {name}");
    }
}

#[test]
fn verbs_and_scopes_are_kubernetes() {
    let mut graph = Graph::default();
    graph.apply_pod(&pod("shop", "p", "a", everything()));
    let access = access(graph);
    let own = node("a");
    let lease = "leases.coordination.k8s.io";
    let csi = "csinodes.storage.k8s.io";
    for (verb, what, namespace, name, refusal) in [
        ("list", "secrets", "shop", "pull", None),
        ("watch", "configmaps", "shop", "env-map", None),
        ("list", "secrets", "shop", "", Some("No Object name found")),
        ("list", "secrets", "", "", Some("can only read namespaced object of this type")),
        ("update", "secrets", "shop", "pull", Some("can only read resources of this type")),
        (
            "list",
            "persistentvolumeclaims",
            "shop",
            "disk",
            Some("can only get individual resources of this type"),
        ),
        ("patch", "persistentvolumeclaims/status", "shop", "disk", None),
        (
            "get",
            "persistentvolumeclaims/status",
            "shop",
            "disk",
            Some("can only get/update/patch this type"),
        ),
        ("create", "serviceaccounts/token", "shop", "bot", None),
        (
            "create",
            "serviceaccounts/token",
            "shop",
            "root",
            Some("no relationship found between node 'a' and this object"),
        ),
        (
            "create",
            "serviceaccounts",
            "shop",
            "",
            Some("can only create tokens for individual service accounts"),
        ),
        ("get", "nodes", "", "a", None),
        ("create", "nodes", "", "", None),
        ("patch", "nodes/status", "", "a", None),
        ("list", "nodes", "", "", Some("node 'a' cannot read all nodes, only its own Node object")),
        ("get", "nodes", "", "b", Some("node 'a' cannot read 'b', only its own Node object")),
        ("delete", "nodes", "", "a", Some("")),
        ("get", "nodes/proxy", "", "a", Some("")),
        ("update", lease, "kube-node-lease", "a", None),
        ("create", lease, "kube-node-lease", "", None),
        (
            "update",
            lease,
            "kube-node-lease",
            "b",
            Some("can only access node lease with the same name as the requesting node"),
        ),
        (
            "get",
            lease,
            "kube-system",
            "a",
            Some("can only access leases in the \"kube-node-lease\" system namespace"),
        ),
        (
            "list",
            lease,
            "kube-node-lease",
            "",
            Some("can only get, create, update, patch, or delete a node lease"),
        ),
        ("patch", csi, "", "a", None),
        (
            "get",
            csi,
            "",
            "b",
            Some("can only access CSINode with the same name as the requesting node"),
        ),
        (
            "list",
            "pods",
            "",
            "",
            Some("can only list/watch pods with spec.nodeName field selector"),
        ),
        ("update", "pods", "shop", "p", Some("")),
        ("patch", "pods/status", "shop", "p", None),
        ("create", "pods/eviction", "shop", "p", None),
        ("create", "pods/exec", "shop", "p", Some("")),
        ("list", "services", "", "", None),
        ("create", "events", "shop", "", None),
        ("create", "deployments.apps", "shop", "", Some("")),
        (
            "get",
            "resourceslices.resource.k8s.io",
            "",
            "x",
            Some("no relationship found between node 'a' and this object"),
        ),
    ] {
        let decision = access.decide(&asks(&own, verb, what, namespace, name));
        assert_eq!(decision.is_allowed(), refusal.is_none(), "{verb} {what} {name}");
        assert_eq!(decision.reason(), refusal.unwrap_or_default(), "{verb} {what} {name}");
    }
}

#[test]
fn pods_are_listed_by_node() {
    let access = access(Graph::default());
    let own = node("a");
    let known = ["spec.nodeName", "metadata.name"];
    for (selector, allowed) in [
        ("spec.nodeName=a", true),
        ("spec.nodeName=a,metadata.name=x", true),
        ("spec.nodeName!=a", false),
        ("spec.nodeName=b", false),
        ("metadata.name=x", false),
    ] {
        let selector = FieldSelector::parse(selector, &known).unwrap();
        let request = resource("pods", "", "").selecting(&selector);
        let attributes =
            Attributes { user: &own, verb: "watch", request: Request::Resource(request) };
        assert_eq!(access.decide(&attributes).is_allowed(), allowed, "{selector:?}");
    }
}

/// Random pods come, change, move and go; after each step the graph must agree with a walk over all pods.
#[test]
fn the_graph_agrees_with_a_walk_over_all_pods() {
    let (nodes, names) = (["a", "b", ""], ["p", "q", "r", "s"]);
    let (namespaces, secrets) = (["shop", "depot"], ["x", "y", "z"]);
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pods: Vec<Value> = Vec::new();
        let mut access = access(Graph::default());
        for step in 0..60 {
            let (namespace, name) = (namespaces[random.usize(..2)], names[random.usize(..4)]);
            pods.retain(|pod| {
                pod["metadata"]["namespace"] != namespace || pod["metadata"]["name"] != name
            });
            if random.u8(..4) == 0 {
                access.graph.remove_pod(namespace, name);
            } else {
                let pulls: BTreeSet<&str> =
                    (0..random.usize(..3)).map(|_| secrets[random.usize(..3)]).collect();
                let pulls: Vec<Value> =
                    pulls.into_iter().map(|name| json!({"name": name})).collect();
                let pod = pod(
                    namespace,
                    name,
                    nodes[random.usize(..3)],
                    json!({"imagePullSecrets": pulls}),
                );
                access.graph.apply_pod(&pod);
                pods.push(pod);
            }
            for who in ["a", "b"] {
                for namespace in namespaces {
                    for secret in secrets {
                        let expected = pods.iter().any(|pod| {
                            let pulls = pod["spec"]["imagePullSecrets"].as_array().unwrap();
                            pod["metadata"]["namespace"] == namespace
                                && pod["spec"]["nodeName"] == who
                                && pulls.iter().any(|pull| pull["name"] == secret)
                        });
                        let user = node(who);
                        let decision =
                            access.decide(&asks(&user, "get", "secrets", namespace, secret));
                        assert_eq!(decision.is_allowed(), expected, "seed {seed} step {step}");
                    }
                }
            }
        }
        for namespace in namespaces {
            names.iter().for_each(|name| access.graph.remove_pod(namespace, name));
        }
        assert!(access.graph.is_empty(), "seed {seed}");
    }
}
