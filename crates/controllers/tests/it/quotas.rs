//! Quotas: what is gone is given back, whatever its kind.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{ConfigMap, Pod, ResourceQuota, Service},
};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

async fn wait_used(cluster: &Cluster, expected: Value) {
    let expected: BTreeMap<String, String> = serde_json::from_value(expected).unwrap();
    wait_for(cluster.api::<ResourceQuota>(), &format!("usage {expected:?}"), |quotas| {
        let status = quotas[0].status.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let used: BTreeMap<_, _> =
            used.into_iter().map(|(name, amount)| (name, amount.0)).collect();
        used == expected && status.hard == quotas[0].spec.as_ref().unwrap().hard
    })
    .await;
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "one",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}

#[tokio::test]
async fn usage_follows_what_there_is() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster.create::<Pod>(pod("before")).await;
    cluster
        .create::<ResourceQuota>(json!({"metadata": {"name": "q"}, "spec": {"hard": {
        "pods": "5", "requests.cpu": "1", "requests.memory": "1Gi", "services.nodeports": "3",
        "count/configmaps": "5", "count/replicasets.apps": "2"}}}))
        .await;
    let used = |pods: usize, cpu: &str, memory: &str, ports: &str, maps: &str, sets: &str| {
        json!({"pods": pods.to_string(), "requests.cpu": cpu, "requests.memory": memory,
            "services.nodeports": ports, "count/configmaps": maps, "count/replicasets.apps": sets})
    };
    let maps = cluster.api::<ConfigMap>().list(&Default::default()).await.unwrap().items.len();
    let maps = |more: usize| (maps + more).to_string();
    wait_used(&cluster, used(1, "100m", "64Mi", "0", &maps(0), "0")).await;
    cluster.create::<ConfigMap>(json!({"metadata": {"name": "m"}})).await;
    cluster
        .create::<Service>(json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort",
        "ports": [{"port": 1}]}}))
        .await;
    cluster
        .create::<ReplicaSet>(json!({"metadata": {"name": "r"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": pod("x")["spec"]}}}))
        .await;
    // What is created is counted by a change of the quota at the latest.
    let label = json!({"spec": {"hard": {"secrets": "100"}}});
    wait_for(cluster.api::<Pod>(), "three pods", |pods| pods.len() == 3).await;
    cluster.patch::<ResourceQuota>("q", label).await;
    cluster.patch::<ResourceQuota>("q", json!({"spec": {"hard": {"secrets": null}}})).await;
    wait_used(&cluster, used(3, "300m", "192Mi", "1", &maps(1), "1")).await;

    let internal = json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": null,
        "ports": [{"port": 1}]}});
    cluster.patch::<Service>("s", internal).await;
    cluster.api::<ConfigMap>().delete("m", &DeleteParams::default()).await.unwrap();
    wait_used(&cluster, used(3, "300m", "192Mi", "0", &maps(0), "1")).await;
    cluster.api::<ReplicaSet>().delete("r", &DeleteParams::background()).await.unwrap();
    wait_used(&cluster, used(1, "100m", "64Mi", "0", &maps(0), "0")).await;
    cluster.api::<Pod>().delete("before", &DeleteParams::default()).await.unwrap();
    wait_used(&cluster, used(0, "0", "0", "0", &maps(0), "0")).await;
}
