//! A static pod on many nodes, from the first manifest to the last. The nodes' part is played: a node that finds an
//! approved manifest with its mirror shows another mirror, of that revision.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use toono_openyurt::{YurtStaticSet, keys};
use toono_wire::upgrade::{self, Offer};

use crate::cluster::{Cluster, wait_for};

async fn start(nodes: &[&str]) -> Cluster {
    let cluster = Cluster::start(nodes).await;
    for node in nodes {
        show(&cluster, node, None).await;
    }
    cluster
}

/// The node shows its static pod, of this revision.
async fn show(cluster: &Cluster, node: &str, revision: Option<&str>) {
    let uid = cluster.nodes().get(node).await.unwrap().metadata.uid;
    let mut annotations = json!({"kubernetes.io/config.mirror": revision.unwrap_or("zero")});
    if let Some(revision) = revision {
        annotations[keys::STATIC_POD_HASH] = revision.into();
    }
    let mirror = json!({"metadata": {"name": format!("web-{node}"), "annotations": annotations,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid,
                "controller": true}]},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
    cluster.create::<Pod>(mirror).await;
}

fn set(strategy: &str, image: &str) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"staticPodManifest": "web-file",
        "upgradeStrategy": {"type": strategy, "maxUnavailable": 1},
        "template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn note(pod: &Pod, name: &str) -> Option<String> {
    pod.metadata.annotations.as_ref()?.get(name).cloned()
}

fn offer(pod: &Pod) -> Option<Offer> {
    Offer::parse(&note(pod, upgrade::OFFER)?)
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().node_name.clone().unwrap()
}

fn needs(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let needed = conditions.iter().find(|it| it.type_ == upgrade::NEEDED)?;
    Some(&needed.status)
}

/// The offers that are approved, by node.
fn approved(pods: &[Pod]) -> BTreeMap<String, Offer> {
    let offers = pods.iter().filter_map(|pod| Some((pod, offer(pod)?)));
    let approved = offers
        .filter(|(pod, offer)| note(pod, upgrade::APPROVED).as_ref() == Some(&offer.revision));
    approved.map(|(pod, offer)| (node_of(pod), offer)).collect()
}

async fn carry_out(cluster: &Cluster, node: &str, offer: &Offer) {
    let text = offer.manifest.as_ref().unwrap();
    let pod: Pod = serde_yaml_ng::from_str(text).unwrap();
    assert_eq!(note(&pod, keys::STATIC_POD_HASH).as_ref(), Some(&offer.revision));
    let name = format!("web-{node}");
    let now = DeleteParams::default().grace_period(0);
    cluster.api::<Pod>().delete(&name, &now).await.unwrap();
    wait_for(cluster.api::<Pod>(), "the old mirror to go", |pods| {
        pods.iter().all(|pod| pod.metadata.name.as_ref() != Some(&name))
    })
    .await;
    show(cluster, node, Some(&offer.revision)).await;
}

async fn wait_counts(cluster: &Cluster, counts: [i32; 3]) {
    wait_for(cluster.api::<YurtStaticSet>(), "these counts", |sets| {
        let status = sets[0].status.clone().unwrap_or_default();
        [status.total_number, status.ready_number, status.upgraded_number] == counts
            && status.observed_generation == sets[0].metadata.generation
    })
    .await;
}

#[tokio::test]
async fn a_set_is_replaced_one_by_one_and_a_node_that_was_away_follows() {
    let cluster = start(&["a1", "a2", "a3"]).await;
    cluster.go_offline("a3").await;
    cluster.create::<YurtStaticSet>(set("AdvancedRollingUpdate", "one")).await;
    let mut revision = String::new();
    for upgraded in 1..=2 {
        let pods = wait_for(cluster.api::<Pod>(), "an approval", |pods| !approved(pods).is_empty());
        let approved = approved(&pods.await);
        assert_eq!(approved.len(), 1, "one at a time: {approved:?}");
        let (node, offer) = approved.first_key_value().unwrap();
        assert_ne!(node, "a3");
        carry_out(&cluster, node, offer).await;
        revision.clone_from(&offer.revision);
        wait_counts(&cluster, [3, 2, upgraded]).await;
    }
    let map = cluster.api::<ConfigMap>().get("yurt-static-set-web").await.unwrap();
    assert_eq!(map.metadata.annotations.unwrap()[keys::STATIC_POD_HASH], revision);
    assert!(map.data.unwrap()["web-file"].contains("kind: Pod"));
    cluster.come_back("a3").await;
    let pods =
        wait_for(cluster.api::<Pod>(), "the last one", |pods| approved(pods).contains_key("a3"));
    carry_out(&cluster, "a3", &approved(&pods.await)["a3"]).await;
    wait_counts(&cluster, [3, 3, 3]).await;
    wait_for(cluster.api::<Event>(), "the story", |events| {
        events.iter().any(|event| event.reason.as_deref() == Some("UpgradeStarted"))
    })
    .await;

    // With another strategy the pod is the same; with another pod all are told and none is approved.
    let spec = json!({"spec": {"upgradeStrategy": {"type": "OTA"}}});
    cluster.patch::<YurtStaticSet>("web", spec).await;
    wait_for(cluster.api::<Pod>(), "nothing to be offered", |pods| {
        pods.iter().all(|pod| needs(pod) == Some("False") && offer(pod).is_none())
    })
    .await;
    wait_counts(&cluster, [3, 3, 3]).await;
    cluster.patch::<YurtStaticSet>("web", json!({"spec": set("OTA", "two")["spec"]})).await;
    let pods = wait_for(cluster.api::<Pod>(), "three offers", |pods| {
        pods.iter().all(|pod| needs(pod) == Some("True") && offer(pod).is_some())
    })
    .await;
    assert_eq!(approved(&pods), BTreeMap::new());
    let of_two = pods.iter().find(|pod| node_of(pod) == "a2").and_then(offer).unwrap();
    carry_out(&cluster, "a2", &of_two).await;
    wait_counts(&cluster, [3, 3, 1]).await;
}

#[tokio::test]
async fn a_template_that_no_node_could_run_is_an_event_and_offers_nothing() {
    let cluster = start(&["a1"]).await;
    let mut bad = set("OTA", "one");
    bad["spec"]["template"]["spec"]["containers"] = json!("none");
    cluster.create::<YurtStaticSet>(bad).await;
    wait_for(cluster.api::<Event>(), "the reason", |events| {
        events.iter().any(|event| event.reason.as_deref() == Some("InvalidTemplate"))
    })
    .await;
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    assert_eq!(offer(&pods[0]), None);
}
