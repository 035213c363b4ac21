//! kube-rs without a socket, as the controllers use it.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Node, Pod},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::watcher,
};
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}}))
    .unwrap()
}

#[tokio::test]
async fn objects_live_and_die() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let made = pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    assert!(made.metadata.uid.is_some());
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));

    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n1"}});
    pods.create_subresource::<Value, Value>("binding", "a", &PostParams::default(), &binding)
        .await
        .unwrap();
    let again = pods
        .create_subresource::<Value, Value>("binding", "a", &PostParams::default(), &binding)
        .await;
    assert!(matches!(again, Err(kube::Error::Api(status)) if status.code == 409));
    let bound = pods.get("a").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n1"));

    // Bound: deletion waits for the node, which ends it with grace 0.
    let marked = pods.delete("a", &DeleteParams::default()).await.unwrap();
    let marked = marked.left().expect("the pod is only marked");
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    let gone = pods.delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(gone.is_left(), "the pod as it was");
    assert!(pods.get_opt("a").await.unwrap().is_none());
    // Not bound: it goes at once.
    pods.create(&PostParams::default(), &pod("b")).await.unwrap();
    assert!(pods.delete("b", &DeleteParams::default()).await.unwrap().is_left());
    cluster.stop().await;
}

#[tokio::test]
async fn stale_writes_conflict_and_equal_writes_are_no_writes() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let first: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).unwrap();
    let first = maps.create(&PostParams::default(), &first).await.unwrap();
    let mut second = first.clone();
    second.data = Some([("a".to_owned(), "2".to_owned())].into());
    let second = maps.replace("m", &PostParams::default(), &second).await.unwrap();
    assert_ne!(first.metadata.resource_version, second.metadata.resource_version);
    let stale = maps.replace("m", &PostParams::default(), &first).await;
    let Err(kube::Error::Api(status)) = stale else { panic!("{stale:?}") };
    assert_eq!(
        status.message,
        "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let same = maps.replace("m", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.metadata.resource_version, second.metadata.resource_version);
    cluster.stop().await;
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let cluster = Cluster::start().await;
    let all: Api<Deployment> = Api::default_namespaced(cluster.client());
    let made: Deployment = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})).unwrap();
    all.create(&PostParams::default(), &made).await.unwrap();
    let patch = json!({"spec": {"replicas": 7}, "status": {"replicas": 7}});
    let patched = all.patch("d", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(
        (patched.spec.as_ref().unwrap().replicas, patched.status.as_ref().unwrap().replicas),
        (Some(7), None)
    );
    assert_eq!(patched.metadata.generation, Some(2));
    let patch = json!({"spec": {"replicas": 1}, "status": {"replicas": 3}});
    let patched =
        all.patch_status("d", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(
        (patched.spec.unwrap().replicas, patched.status.unwrap().replicas),
        (Some(7), Some(3))
    );
    assert_eq!(patched.metadata.generation, Some(2));
    let scale = all.get_scale("d").await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("a=b"));
    let scaled = all
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}})))
        .await
        .unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(2));
    cluster.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_of_one_revision() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client());
    for index in 0..7 {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": format!("n{index}"), "labels": {"odd": (index % 2).to_string()}}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
    }
    let page = nodes.list(&ListParams::default().limit(3)).await.unwrap();
    nodes.delete("n5", &DeleteParams::default()).await.unwrap();
    let mut names: Vec<String> =
        page.items.iter().filter_map(|node| node.metadata.name.clone()).collect();
    let mut token = page.metadata.continue_;
    while let Some(next) = token.filter(|token| !token.is_empty()) {
        let page = nodes.list(&ListParams::default().limit(3).continue_token(&next)).await.unwrap();
        names.extend(page.items.iter().filter_map(|node| node.metadata.name.clone()));
        token = page.metadata.continue_;
    }
    assert_eq!(names, ["n0", "n1", "n2", "n3", "n4", "n5", "n6"]);
    let odd = nodes.list(&ListParams::default().labels("odd=1").limit(1)).await.unwrap();
    assert_eq!((odd.items.len(), odd.metadata.continue_.is_some()), (1, true));
    let one = nodes.list(&ListParams::default().fields("metadata.name=n2")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let metadata = nodes.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items.len(), 6);
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_sees_objects_come_and_go_from_its_selection() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let start = pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events =
        pods.watch(&WatchParams::default().labels("app=a"), &start).await.unwrap().boxed();
    pods.create(&PostParams::default(), &pod("b")).await.unwrap();
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let mut revisions = Vec::new();
    let mut next = async |expected: &str| {
        let (kind, pod) = loop {
            break match events.try_next().await.unwrap().unwrap() {
                WatchEvent::Added(pod) => ("ADDED", pod),
                WatchEvent::Modified(pod) => ("MODIFIED", pod),
                WatchEvent::Deleted(pod) => ("DELETED", pod),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => panic!("{status:?}"),
            };
        };
        assert_eq!((kind, pod.metadata.name.as_deref()), (expected, Some("a")));
        let revision: u64 = pod.metadata.resource_version.unwrap().parse().unwrap();
        assert!(revisions.last().is_none_or(|last| *last < revision));
        revisions.push(revision);
    };
    next("ADDED").await;
    let label =
        |value: &str| Patch::Merge(json!({"metadata": {"labels": {"app": value, "x": value}}}));
    pods.patch(
        "a",
        &PatchParams::default(),
        &Patch::Merge(json!({"metadata": {"labels": {"y": "1"}}})),
    )
    .await
    .unwrap();
    next("MODIFIED").await;
    pods.patch("a", &PatchParams::default(), &label("other")).await.unwrap();
    next("DELETED").await;
    pods.patch("a", &PatchParams::default(), &label("a")).await.unwrap();
    next("ADDED").await;
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    next("DELETED").await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_runtime_watcher_begins_with_a_list_or_in_the_stream() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = watcher(pods.clone(), config).boxed();
        let mut seen = Vec::new();
        while let Some(event) = events.try_next().await.unwrap() {
            match event {
                watcher::Event::InitApply(pod) => seen.extend(pod.metadata.name),
                watcher::Event::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(seen, ["a"]);
    }
    cluster.stop().await;
}
