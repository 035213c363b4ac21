//! What is left of an owner.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Event, Pod, Secret},
    rbac::v1::{ClusterRole, PolicyRule},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use toono_controllers::ControllersConfig;

use crate::cluster::{Cluster, wait_for};

async fn started() -> Cluster {
    let cluster = Cluster::start(&["a1"]).await;
    cluster
        .create::<Deployment>(json!({"metadata": {"name": "hello"}, "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "hello"}},
            "template": {
                "metadata": {"labels": {"app": "hello"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]},
            },
        }}))
        .await;
    let ready = |all: &[Deployment]| {
        all.iter()
            .all(|one| one.status.as_ref().and_then(|status| status.ready_replicas) == Some(3))
    };
    wait_for(cluster.api::<Deployment>(), "three pods", ready).await;
    cluster
}

#[tokio::test]
async fn background_deletion_takes_the_dependents_along() {
    let cluster = started().await;
    cluster.api::<Deployment>().delete("hello", &DeleteParams::background()).await.unwrap();
    wait_for(cluster.api::<ReplicaSet>(), "no replica set", <[_]>::is_empty).await;
    wait_for(cluster.api::<Pod>(), "no pod", <[_]>::is_empty).await;
}

#[tokio::test]
async fn foreground_deletion_ends_with_the_owner() {
    let cluster = started().await;
    cluster.api::<Deployment>().delete("hello", &DeleteParams::foreground()).await.unwrap();
    wait_for(cluster.api::<Deployment>(), "no deployment", <[_]>::is_empty).await;
    let sets = cluster.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items;
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    assert!(sets.is_empty() && pods.is_empty(), "{} sets, {} pods", sets.len(), pods.len());
}

#[tokio::test]
async fn orphans_stay_and_are_adopted_again() {
    let cluster = started().await;
    let set = cluster.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items.remove(0);
    let pods_before = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    cluster.api::<Deployment>().delete("hello", &DeleteParams::orphan()).await.unwrap();
    wait_for(cluster.api::<Deployment>(), "no deployment", <[_]>::is_empty).await;
    let orphan =
        cluster.api::<ReplicaSet>().get(set.metadata.name.as_deref().unwrap()).await.unwrap();
    assert_eq!(orphan.metadata.owner_references.unwrap_or_default(), []);
    cluster
        .create::<Deployment>(json!({"metadata": {"name": "again"}, "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "hello"}},
            "template": {
                "metadata": {"labels": {"app": "hello"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]},
            },
        }}))
        .await;
    wait_for(cluster.api::<ReplicaSet>(), "an adopted set", |sets| {
        sets.len() == 1
            && sets.iter().all(|set| set.metadata.owner_references.iter().flatten().count() == 1)
    })
    .await;
    let pods_after = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    let uids =
        |pods: &[Pod]| -> Vec<_> { pods.iter().map(|pod| pod.metadata.uid.clone()).collect() };
    assert_eq!(uids(&pods_before), uids(&pods_after));
}

#[tokio::test]
async fn an_object_whose_owner_never_was_is_removed() {
    let cluster = Cluster::start(&[]).await;
    cluster
        .create::<ConfigMap>(json!({"metadata": {"name": "lost", "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "no-such-uid"}]}}))
        .await;
    wait_for(cluster.api::<ConfigMap>(), "no lost object", |all| {
        all.iter().all(|map| map.metadata.name.as_deref() != Some("lost"))
    })
    .await;
}

#[tokio::test]
async fn events_go_when_nothing_renews_them() {
    let config = ControllersConfig { event_lifetime_seconds: 2, ..ControllersConfig::default() };
    let cluster = Cluster::with(config, &[]).await;
    for (name, counted) in [("old", "2026-01-01T00:00:00Z"), ("news", "2100-01-01T00:00:00Z")] {
        cluster
            .create::<Event>(json!({"metadata": {"name": name}, "lastTimestamp": counted,
                "reason": "Test", "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}}))
            .await;
    }
    let names = |all: &[Event]| -> Vec<_> {
        all.iter().filter_map(|event| event.metadata.name.clone()).collect()
    };
    wait_for(cluster.api::<Event>(), "only news", |all| names(all) == ["news"]).await;
}

#[tokio::test]
async fn bootstrap_tokens_go_when_they_expire() {
    let cluster = Cluster::start(&[]).await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "kube-system");
    for (name, expires) in [
        ("bootstrap-token-aaaaaa", "2026-01-01T00:00:00Z"),
        ("bootstrap-token-bbbbbb", "2100-01-01T00:00:00Z"),
    ] {
        let secret = json!({"metadata": {"name": name}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": &name[16..], "token-secret": "0123456789abcdef", "expiration": expires}});
        let secret = serde_json::from_value(secret).unwrap();
        secrets.create(&PostParams::default(), &secret).await.unwrap();
    }
    wait_for(secrets, "one token", |all| {
        let names: Vec<_> =
            all.iter().filter_map(|secret| secret.metadata.name.as_deref()).collect();
        names == ["bootstrap-token-bbbbbb"]
    })
    .await;
}

#[tokio::test]
async fn a_cluster_role_made_of_others_has_their_rules() {
    let cluster = Cluster::start(&[]).await;
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let whole = json!({"metadata": {"name": "whole"}, "rules": [], "aggregationRule": {
        "clusterRoleSelectors": [{"matchLabels": {"example.com/part": "yes"}}]}});
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let part = json!({"metadata": {"name": "part", "labels": {"example.com/part": "yes"}}, "rules": [rule]});
    for role in [whole, part] {
        roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    }
    let rules = |all: &[ClusterRole]| {
        let whole = all.iter().find(|role| role.metadata.name.as_deref() == Some("whole"));
        whole.and_then(|role| role.rules.clone()).unwrap_or_default()
    };
    let rule: PolicyRule = serde_json::from_value(rule).unwrap();
    wait_for(roles.clone(), "the rule", |all| rules(all) == std::slice::from_ref(&rule)).await;
    roles.delete("part", &DeleteParams::default()).await.unwrap();
    wait_for(roles, "no rule", |all| rules(all).is_empty()).await;
}
