//! Endpoints follow pods and services.

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

/// A pod on the node `a1` with an address, once it runs.
pub(crate) async fn pod(cluster: &Cluster, name: &str, ip: &str) {
    cluster
        .create::<Pod>(json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {
            "nodeName": "a1", "containers": [
                {"name": "c", "image": "one", "ports": [{"name": "http", "containerPort": 8080}]}]}}))
        .await;
    wait_for(cluster.api::<Pod>(), "a running pod", |pods| {
        pods.iter().any(|pod| {
            pod.metadata.name.as_deref() == Some(name)
                && pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"))
        })
    })
    .await;
    status(cluster, name, json!({"podIP": ip, "podIPs": [{"ip": ip}]})).await;
}

pub(crate) async fn status(cluster: &Cluster, pod: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    cluster.api::<Pod>().patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
}

pub(crate) async fn set_ready(cluster: &Cluster, pod: &str, ready: bool) {
    let ready = if ready { "True" } else { "False" };
    status(cluster, pod, json!({"conditions": [{"type": "Ready", "status": ready}]})).await;
}

pub(crate) async fn service(cluster: &Cluster) {
    cluster
        .create::<Service>(
            json!({"metadata": {"name": "web", "labels": {"tier": "front"}}, "spec": {
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}),
        )
        .await;
}

/// `ready | not ready : ports`, of each subset.
fn shown(endpoints: &[Endpoints], name: &str) -> Option<Vec<String>> {
    let found = endpoints.iter().find(|one| one.metadata.name.as_deref() == Some(name))?;
    let ips = |all: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        all.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>().join(" ")
    };
    let subsets = found.subsets.iter().flatten().map(|subset| {
        let ports = subset.ports.iter().flatten().map(|port| port.port.to_string());
        let ports = ports.collect::<Vec<_>>().join(" ");
        format!("{} | {} : {ports}", ips(&subset.addresses), ips(&subset.not_ready_addresses))
    });
    Some(subsets.collect())
}

#[tokio::test]
async fn endpoints_follow_their_pods() {
    let cluster = Cluster::start(&["a1"]).await;
    service(&cluster).await;
    let endpoints = || cluster.api::<Endpoints>();
    let wait = async |expected: &[&str]| {
        let wanted = expected.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        wait_for(endpoints(), &wanted.join(", "), |all| shown(all, "web") == Some(wanted.clone()))
            .await
    };
    wait(&[]).await;
    pod(&cluster, "one", "10.244.0.1").await;
    pod(&cluster, "two", "10.244.0.2").await;
    let found = wait(&["10.244.0.1 10.244.0.2 |  : 8080"]).await;
    let labels = found[0].metadata.labels.clone().unwrap();
    assert_eq!(labels["tier"], "front");
    set_ready(&cluster, "one", false).await;
    wait(&["10.244.0.2 | 10.244.0.1 : 8080"]).await;
    cluster.patch::<Service>("web", json!({"spec": {"publishNotReadyAddresses": true}})).await;
    wait(&["10.244.0.1 10.244.0.2 |  : 8080"]).await;
    cluster.patch::<Pod>("two", json!({"metadata": {"labels": {"app": "other"}}})).await;
    wait(&["10.244.0.1 |  : 8080"]).await;
    cluster.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    wait_for(endpoints(), "no endpoints", |all| shown(all, "web").is_none()).await;
}
