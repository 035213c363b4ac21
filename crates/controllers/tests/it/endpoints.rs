//! Endpoints follow pods and services.

use k8s_openapi::api::{
    core::v1::{Endpoints, Event, Pod, Service},
    discovery::v1::EndpointSlice,
};
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

/// `address ready/serving/terminating @node`, of all endpoints of a service.
fn in_slices(slices: &[EndpointSlice], service: &str) -> Option<Vec<String>> {
    let label = |slice: &EndpointSlice| {
        slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name").cloned()
    };
    let mut found = slices.iter().filter(|one| label(one).as_deref() == Some(service)).peekable();
    found.peek()?;
    let mut shown: Vec<_> = found
        .flat_map(|slice| slice.endpoints.clone())
        .map(|endpoint| {
            let conditions = endpoint.conditions.unwrap_or_default();
            let flags = [conditions.ready, conditions.serving, conditions.terminating];
            let flags = flags.map(|flag| flag.map_or("-".to_owned(), |flag| flag.to_string()));
            let node = endpoint.node_name.unwrap_or_default();
            format!("{} {} @{node}", endpoint.addresses.join(","), flags.join("/"))
        })
        .collect();
    shown.sort();
    Some(shown)
}

async fn wait_slices(cluster: &Cluster, service: &str, expected: &[&str]) -> Vec<EndpointSlice> {
    let wanted: Vec<_> = expected.iter().map(|&one| one.to_owned()).collect();
    wait_for(cluster.api::<EndpointSlice>(), &wanted.join(", "), |all| {
        in_slices(all, service) == Some(wanted.clone())
    })
    .await
}

#[tokio::test]
async fn slices_tell_of_pods_that_become_ready_and_that_leave() {
    let cluster = Cluster::start(&["a1"]).await;
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z1"}}});
    cluster.nodes().patch("a1", &PatchParams::default(), &Patch::Merge(&zone)).await.unwrap();
    service(&cluster).await;
    let empty = wait_slices(&cluster, "web", &[]).await;
    pod(&cluster, "one", "10.244.0.1").await;
    pod(&cluster, "two", "10.244.0.2").await;
    let both = ["10.244.0.1 true/true/false @a1", "10.244.0.2 true/true/false @a1"];
    let found = wait_slices(&cluster, "web", &both).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].metadata.name, empty[0].metadata.name, "the slice is used again");
    let labels = found[0].metadata.labels.clone().unwrap();
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(labels["tier"], "front");
    let owner = &found[0].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Service", "web"));
    let port = &found[0].ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("http"), Some(8080)));
    assert_eq!(found[0].endpoints[0].zone.as_deref(), Some("z1"));
    set_ready(&cluster, "one", false).await;
    let unready = "10.244.0.1 false/false/false @a1";
    wait_slices(&cluster, "web", &[unready, both[1]]).await;
    // It is on its way out and still serves.
    let held = json!({"metadata": {"finalizers": ["example.com/till"]}});
    cluster.patch::<Pod>("two", held).await;
    cluster.api::<Pod>().delete("two", &DeleteParams::default()).await.unwrap();
    wait_slices(&cluster, "web", &[unready, "10.244.0.2 false/true/true @a1"]).await;
    cluster.patch::<Pod>("two", json!({"metadata": {"finalizers": null}})).await;
    wait_slices(&cluster, "web", &[unready]).await;
    set_ready(&cluster, "one", true).await;
    let near = json!({"spec": {"trafficDistribution": "PreferClose"}});
    cluster.patch::<Service>("web", near).await;
    wait_for(cluster.api::<EndpointSlice>(), "a hint", |all| {
        all.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| {
            let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
            hints.is_some_and(|zones| zones.len() == 1 && zones[0].name == "z1")
        })
    })
    .await;
    cluster.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    wait_for(cluster.api::<EndpointSlice>(), "no slice", |all| in_slices(all, "web").is_none())
        .await;
}

#[tokio::test]
async fn endpoints_that_somebody_writes_are_mirrored() {
    let cluster = Cluster::start(&[]).await;
    cluster
        .create::<Service>(
            json!({"metadata": {"name": "outside"}, "spec": {"ports": [{"port": 80}]}}),
        )
        .await;
    cluster
        .create::<Endpoints>(
            json!({"metadata": {"name": "outside", "labels": {"a": "b"}}, "subsets": [
            {"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
             "ports": [{"port": 8000}]}]}),
        )
        .await;
    let expected = ["192.0.2.1 true/-/- @", "192.0.2.2 false/-/- @"];
    let found = wait_slices(&cluster, "outside", &expected).await;
    let labels = found[0].metadata.labels.clone().unwrap();
    let manager = "endpointslicemirroring-controller.k8s.io";
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], manager);
    assert_eq!(labels["a"], "b");
    let fewer =
        json!({"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 8000}]}]});
    cluster.patch::<Endpoints>("outside", fewer).await;
    wait_slices(&cluster, "outside", &expected[..1]).await;
    cluster.api::<Endpoints>().delete("outside", &DeleteParams::default()).await.unwrap();
    wait_for(cluster.api::<EndpointSlice>(), "no slice", |all| in_slices(all, "outside").is_none())
        .await;
}

#[tokio::test]
async fn a_topology_key_that_is_none_is_told_once_a_change() {
    let cluster = Cluster::start(&[]).await;
    service(&cluster).await;
    let keys =
        |value: &str| json!({"metadata": {"annotations": {"openyurt.io/topologyKeys": value}}});
    let told = |events: &[Event]| -> Vec<String> {
        let ours = events.iter().filter(|it| it.reason.as_deref() == Some("UnknownTopologyKey"));
        let about = |it: &Event| {
            let object = &it.involved_object;
            assert_eq!(
                (object.kind.as_deref(), object.name.as_deref()),
                (Some("Service"), Some("web"))
            );
            assert_eq!((it.type_.as_deref(), it.count), (Some("Warning"), Some(1)));
            it.message.clone().unwrap()
        };
        ours.map(about).collect()
    };
    cluster.patch::<Service>("web", keys("openyurt.io/nodepool")).await;
    cluster.patch::<Service>("web", keys("openyurt.io/nodepools, *")).await;
    let known = "kubernetes.io/hostname, openyurt.io/nodepool, kubernetes.io/zone, *";
    let first =
        wait_for(cluster.api::<Event>(), "a word about it", |all| !told(all).is_empty()).await;
    assert_eq!(
        told(&first),
        [format!(
            "openyurt.io/topologyKeys: openyurt.io/nodepools: not known and passed over; the other \
             keys count. Known are: {known}"
        )]
    );
    // Another change of the service is none of its keys.
    cluster.patch::<Service>("web", json!({"metadata": {"labels": {"tier": "back"}}})).await;
    cluster.patch::<Service>("web", keys("hostname")).await;
    let both = wait_for(cluster.api::<Event>(), "the next", |all| told(all).len() > 1).await;
    assert_eq!(told(&both).len(), 2);
}
