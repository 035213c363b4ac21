//! Addresses and node ports of Services, through the API: given once, kept, given back.

use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::cluster::Cluster;

fn service(name: &str, kind: &str) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"type": kind, "selector": {"app": "a"}, "ports": [{"port": 80}]},
    }))
    .unwrap()
}

fn services(client: &Client) -> Api<Service> {
    Api::namespaced(client.clone(), "default")
}

fn cluster_ip(service: &Service) -> String {
    service.spec.as_ref().unwrap().cluster_ip.clone().unwrap_or_default()
}

fn node_port(service: &Service) -> Option<i32> {
    service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port
}

#[tokio::test]
async fn the_server_has_a_service() {
    let cluster = Cluster::start().await;
    let own = services(&cluster.client()).get("kubernetes").await.unwrap();
    assert_eq!(cluster_ip(&own), "10.43.0.1");
    cluster.stop().await;
}

#[tokio::test]
async fn no_two_services_have_the_same_address_or_port() {
    let cluster = Cluster::start().await;
    let api = services(&cluster.client());
    let made = join_all((0..40).map(|number| {
        let api = api.clone();
        async move {
            let name = format!("s{number}");
            api.create(&PostParams::default(), &service(&name, "NodePort")).await.unwrap()
        }
    }))
    .await;
    let addresses: BTreeSet<String> = made.iter().map(cluster_ip).collect();
    let ports: BTreeSet<i32> = made.iter().filter_map(node_port).collect();
    assert_eq!((addresses.len(), ports.len()), (40, 40));
    assert!(addresses.iter().all(|address| address.starts_with("10.43.")));
    assert!(ports.iter().all(|port| (30_000..=32_767).contains(port)));
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_taken_is_refused_until_it_is_given_back() {
    let cluster = Cluster::start().await;
    let api = services(&cluster.client());
    let asks = |name: &str, address: &str, port: i32| {
        let mut service = service(name, "NodePort");
        let spec = service.spec.as_mut().unwrap();
        spec.cluster_ip = Some(address.to_owned());
        spec.ports.as_mut().unwrap()[0].node_port = Some(port);
        service
    };
    let post = PostParams::default();
    api.create(&post, &asks("a", "10.43.0.77", 30_080)).await.unwrap();
    let refused = async |service: Service| match api.create(&post, &service).await {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(asks("b", "10.43.0.77", 30_081)).await,
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.77\"]: failed to allocate IP 10.43.0.77: provided IP is already allocated"
    );
    assert_eq!(
        refused(asks("b", "10.43.0.78", 30_080)).await,
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    assert_eq!(
        refused(asks("b", "10.43.0.78", 29_999)).await,
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 29999: provided port is not in the valid range. The range of valid ports is 30000-32767"
    );
    let out = refused(asks("b", "10.44.0.1", 30_081)).await;
    assert!(
        out.contains("is not in the valid range. The range of valid IPs is 10.43.0.0/16"),
        "{out}"
    );
    api.delete("a", &DeleteParams::default()).await.unwrap();
    api.create(&post, &asks("b", "10.43.0.77", 30_080)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_changed_type_takes_and_gives_back() {
    let cluster = Cluster::start().await;
    let api = services(&cluster.client());
    let made = api.create(&PostParams::default(), &service("s", "ClusterIP")).await.unwrap();
    assert_eq!(node_port(&made), None);
    let to = async |kind: &str, more: serde_json::Value| {
        let mut patch = json!({"spec": {"type": kind}});
        for (field, value) in more.as_object().unwrap() {
            patch["spec"][field] = value.clone();
        }
        api.patch("s", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    };
    let open = to("NodePort", json!({})).await;
    assert_eq!(cluster_ip(&open), cluster_ip(&made));
    let port = node_port(&open).unwrap();
    // A client that sends back what it made, without what was allocated, changes nothing.
    let mut sent = service("s", "NodePort");
    sent.metadata.resource_version = open.resource_version();
    let kept = api.replace("s", &PostParams::default(), &sent).await.unwrap();
    assert_eq!((cluster_ip(&kept), node_port(&kept)), (cluster_ip(&made), Some(port)));
    let closed = to("ClusterIP", json!({})).await;
    assert_eq!(node_port(&closed), None);
    let named = to("ExternalName", json!({"externalName": "example.com"})).await;
    assert_eq!(named.spec.as_ref().unwrap().cluster_ip, None);
    let moved = api
        .patch("s", &PatchParams::default(), &Patch::Merge(json!({"spec": {"type": "ClusterIP"}})))
        .await
        .unwrap();
    assert!(cluster_ip(&moved).starts_with("10.43."));
    let change = json!({"spec": {"clusterIP": "10.43.9.9", "clusterIPs": ["10.43.9.9"]}});
    let refused = api.patch("s", &PatchParams::default(), &Patch::Merge(change)).await.unwrap_err();
    assert!(refused.to_string().contains("may not change once set"), "{refused}");
    // Everything that was given back can be had again.
    let mut again = service("t", "NodePort");
    again.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].node_port = Some(port);
    api.create(&PostParams::default(), &again).await.unwrap();
    cluster.stop().await;
}
