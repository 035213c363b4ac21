//! Nodes that are trusted with their pods while nobody hears of them.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    core::v1::{Event, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Resource,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

const AUTONOMY: &str = "node.openyurt.io/autonomy-duration";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

async fn annotate(cluster: &Cluster, node: &str, annotations: Value) {
    let change = json!({"metadata": {"annotations": annotations}});
    cluster.nodes().patch(node, &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
}

/// A pod's times for both taints, and what is kept of its author's.
fn bound(pod: &Pod) -> Vec<(Option<i64>, Option<&str>)> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    let of_taint = |(taint, short): (&str, &str)| {
        let found = tolerations.into_iter().flatten();
        let key = format!("apps.openyurt.io/original-{short}-toleration-duration");
        let mut found = found.filter(|it| it.key.as_deref() == Some(taint));
        let kept = pod.meta().annotations.as_ref().and_then(|all| all.get(&key));
        found.next().map(|it| (it.toleration_seconds, kept.map(String::as_str)))
    };
    [(NOT_READY, "not-ready"), (UNREACHABLE, "unreachable")]
        .into_iter()
        .filter_map(of_taint)
        .collect()
}

fn is_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True")
}

async fn pods_are(cluster: &Cluster, what: &str, test: impl Fn(&Pod) -> bool) {
    wait_for(cluster.api::<Pod>(), what, |pods| pods.iter().all(&test)).await;
}

async fn create_pod(cluster: &Cluster, name: &str, node: &str, tolerations: Value) {
    cluster
        .create::<Pod>(json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "one"}],
            "tolerations": tolerations,
        }}))
        .await;
}

#[tokio::test]
async fn pods_tolerate_the_silence_of_their_node_as_long_as_it_may_keep_them() {
    let cluster = Cluster::start(&["a1", "a2"]).await;
    let own = |seconds: Option<i64>| {
        json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds}])
    };
    create_pod(&cluster, "plain", "a1", json!([])).await;
    create_pod(&cluster, "hasty", "a1", own(Some(5))).await;
    // A toleration without an end is nothing to stumble over.
    create_pod(&cluster, "patient", "a1", own(None)).await;
    create_pod(&cluster, "elsewhere", "a2", json!([])).await;
    let plain = [(Some(300), None); 2];
    let state = |pod: &Pod,
                 hasty: (Option<i64>, Option<&str>),
                 bound_plain: (Option<i64>, Option<&str>)| {
        let bound = bound(pod);
        match pod.metadata.name.as_deref() {
            Some("plain") => bound == [bound_plain; 2],
            Some("hasty") => bound == [bound_plain, hasty],
            Some("patient") => bound == [bound_plain, (None, None)],
            _ => bound == [(Some(300), None); 2],
        }
    };
    pods_are(&cluster, "pods as written", |pod| state(pod, (Some(5), None), plain[0])).await;
    annotate(&cluster, "a1", json!({AUTONOMY: "1h"})).await;
    pods_are(&cluster, "an hour", |pod| {
        state(pod, (Some(3600), Some("5")), (Some(3600), Some("300")))
    })
    .await;
    annotate(&cluster, "a1", json!({AUTONOMY: "0"})).await;
    pods_are(&cluster, "for ever", |pod| state(pod, (None, Some("5")), (None, Some("300")))).await;
    annotate(&cluster, "a1", json!({AUTONOMY: "1m", "node.beta.openyurt.io/autonomy": "true"}))
        .await;
    create_pod(&cluster, "hasty-too", "a1", own(Some(5))).await;
    wait_for(cluster.api::<Pod>(), "a new pod bound by the older annotation", |pods| {
        let mut new = pods.iter().filter(|pod| pod.metadata.name.as_deref() == Some("hasty-too"));
        new.any(|pod| bound(pod) == [(None, Some("300")), (None, Some("5"))])
    })
    .await;
    annotate(&cluster, "a1", json!({AUTONOMY: null, "node.beta.openyurt.io/autonomy": null})).await;
    pods_are(&cluster, "pods as written, again", |pod| {
        pod.metadata.name.as_deref() == Some("hasty-too")
            && bound(pod) == [plain[0], (Some(5), None)]
            || pod.metadata.name.as_deref() != Some("hasty-too")
                && state(pod, (Some(5), None), plain[0])
    })
    .await;
    annotate(&cluster, "a1", json!({AUTONOMY: "two days"})).await;
    wait_for(cluster.api::<Event>(), "a word about nonsense", |events| {
        events.iter().any(|event| event.reason.as_deref() == Some("InvalidAutonomyDuration"))
    })
    .await;
}

/// The status and the reason of a node's condition `Autonomy`.
fn told(nodes: &[Node], name: &str) -> Option<(String, String)> {
    let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name))?;
    let mut conditions = node.status.as_ref()?.conditions.iter().flatten();
    let found = conditions.find(|condition| condition.type_ == "Autonomy")?;
    Some((found.status.clone(), found.reason.clone().unwrap_or_default()))
}

#[tokio::test]
async fn a_node_says_whether_it_is_trusted_by_either_annotation() {
    let cluster = Cluster::start(&["a1", "a2"]).await;
    let is = async |status: &'static str, reason: &'static str| {
        let expected = Some((status.to_owned(), reason.to_owned()));
        wait_for(cluster.nodes(), &format!("{expected:?}"), |all| told(all, "a1") == expected).await
    };
    annotate(&cluster, "a1", json!({AUTONOMY: "12h"})).await;
    is("True", "AutonomyEnabled").await;
    let disk = |status: &str| json!({"status": {"conditions": [{"type": "DiskPressure", "status": status}]}});
    let set_disk = async |status: &'static str| {
        let change = Patch::Strategic(disk(status));
        cluster.nodes().patch_status("a1", &PatchParams::default(), &change).await.unwrap();
    };
    set_disk("True").await;
    is("Unknown", "DiskPressure").await;
    set_disk("False").await;
    is("True", "AutonomyEnabled").await;
    annotate(&cluster, "a1", json!({AUTONOMY: null})).await;
    is("False", "AutonomyDisabled").await;
    annotate(&cluster, "a1", json!({"node.beta.openyurt.io/autonomy": "true"})).await;
    let nodes = is("True", "AutonomyEnabled").await;
    assert_eq!(told(&nodes, "a2"), None, "nobody asked for it");
}

#[tokio::test]
async fn pods_of_a_silent_autonomous_node_serve_until_its_time_is_over() {
    const TIME: Duration = Duration::from_secs(5);
    let cluster = Cluster::start(&["a1", "b1", "c1"]).await;
    annotate(&cluster, "a1", json!({AUTONOMY: "0"})).await;
    annotate(&cluster, "b1", json!({AUTONOMY: format!("{}s", TIME.as_secs())})).await;
    cluster
        .create::<Service>(json!({"metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}))
        .await;
    for node in ["a1", "b1", "c1"] {
        create_pod(&cluster, &format!("on-{node}"), node, json!([])).await;
        let status = json!({"status": {"podIP": format!("10.0.0.{}", node.as_bytes()[0])}});
        let pods = cluster.api::<Pod>();
        pods.patch_status(&format!("on-{node}"), &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }
    let serving = |slices: &[EndpointSlice]| {
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter());
        let ready = endpoints.filter(|it| {
            it.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
        });
        let mut nodes: Vec<_> = ready.filter_map(|it| it.node_name.clone()).collect();
        nodes.sort_unstable();
        nodes
    };
    let serve = async |expected: &[&str]| {
        wait_for(cluster.api::<EndpointSlice>(), "endpoints", |slices| serving(slices) == expected)
            .await;
    };
    serve(&["a1", "b1", "c1"]).await;
    let began = Instant::now();
    for node in ["a1", "b1", "c1"] {
        cluster.set_ready(node, "Unknown").await;
    }
    wait_for(cluster.api::<Pod>(), "the other's to be marked", |pods| {
        pods.iter().all(|pod| is_ready(pod) != is_on(pod, "c1"))
            || pods.iter().any(|pod| is_on(pod, "b1") && !is_ready(pod))
    })
    .await;
    wait_for(cluster.api::<Pod>(), "the time to be over", |pods| {
        pods.iter().all(|pod| is_ready(pod) == is_on(pod, "a1"))
    })
    .await;
    assert!(began.elapsed() >= TIME - Duration::from_secs(1), "{:?}", began.elapsed());
    serve(&["a1"]).await;
    // Trust may be given and taken back while it is silent.
    annotate(&cluster, "c1", json!({AUTONOMY: "1h"})).await;
    serve(&["a1", "c1"]).await;
    annotate(&cluster, "c1", json!({AUTONOMY: null})).await;
    serve(&["a1"]).await;
    for node in ["a1", "b1", "c1"] {
        cluster.set_ready(node, "True").await;
    }
    serve(&["a1", "b1", "c1"]).await;
}
