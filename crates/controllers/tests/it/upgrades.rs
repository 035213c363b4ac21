//! Daemon sets whose annotation says how they are upgraded: around nodes that are away, and by approval.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Event, Pod, PodCondition},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use toono_wire::upgrade::{self, Offer};

use crate::cluster::{Cluster, wait_for};

fn daemon_set(strategy: &str, most: &str) -> Value {
    json!({"metadata": {"name": "agent", "annotations": {
        "apps.openyurt.io/update-strategy": strategy, "apps.openyurt.io/max-unavailable": most}},
    "spec": {
        "selector": {"matchLabels": {"app": "agent"}},
        "updateStrategy": {"type": "OnDelete"},
        "template": {
            "metadata": {"labels": {"app": "agent"}},
            "spec": {"containers": [{"name": "c", "image": "one"}]},
        },
    }})
}

async fn set_image(cluster: &Cluster, image: &str) {
    let template =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    cluster.patch::<DaemonSet>("agent", template).await;
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().node_name.clone().unwrap_or_default()
}

/// The image on each node; none while a pod leaves or is not ready.
fn images(pods: &[Pod]) -> BTreeMap<String, String> {
    let running = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
    });
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    running.map(|pod| (node_of(pod), image(pod))).collect()
}

fn expected(images: &[(&str, &str)]) -> BTreeMap<String, String> {
    images.iter().map(|(node, image)| ((*node).to_owned(), (*image).to_owned())).collect()
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn is_needed(pod: &Pod) -> Option<&str> {
    condition(pod, upgrade::NEEDED).map(|needed| needed.status.as_str())
}

fn offer(pod: &Pod) -> Option<Offer> {
    Offer::parse(pod.metadata.annotations.as_ref()?.get(upgrade::OFFER)?)
}

/// Waits until an image is offered to the pods of these nodes; answers with its revision.
async fn wait_offered(cluster: &Cluster, nodes: &[&str], image: &str) -> String {
    let pods = wait_for(cluster.api::<Pod>(), "the offers", |pods| {
        let offered = |pod: &Pod| {
            is_needed(pod) == Some("True")
                && offer(pod).is_some_and(|offer| offer.images == [image.to_owned()])
        };
        let offered: BTreeSet<_> = pods.iter().filter(|pod| offered(pod)).map(node_of).collect();
        nodes.iter().all(|node| offered.contains(*node))
    })
    .await;
    let found = pods.iter().filter_map(offer).find(|offer| offer.images == [image.to_owned()]);
    found.unwrap().revision
}

async fn wait_images(cluster: &Cluster, wanted: &[(&str, &str)]) -> Vec<Pod> {
    let wanted = expected(wanted);
    wait_for(cluster.api::<Pod>(), "these images", |pods| images(pods) == wanted).await
}

fn name_on(pods: &[Pod], node: &str) -> String {
    pods.iter().find(|pod| node_of(pod) == node).unwrap().metadata.name.clone().unwrap()
}

async fn pods(cluster: &Cluster) -> Vec<Pod> {
    cluster.api::<Pod>().list(&Default::default()).await.unwrap().items
}

async fn annotate(cluster: &Cluster, node: &str, notes: Value) {
    let name = name_on(&pods(cluster).await, node);
    cluster.patch::<Pod>(&name, json!({"metadata": {"annotations": notes}})).await;
}

/// As the node's own report does.
async fn report(cluster: &Cluster, node: &str, type_: &str, status: &str, message: &str) {
    let name = name_on(&pods(cluster).await, node);
    let status = json!({"status": {"conditions": [{"type": type_, "status": status,
        "message": message, "lastTransitionTime": Timestamp::now()}]}});
    let api: Api<Pod> = cluster.api();
    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap();
}

#[tokio::test]
async fn an_advanced_update_goes_around_nodes_that_are_away_and_takes_them_up_again() {
    let cluster = Cluster::start(&["a1", "a2", "a3", "a4"]).await;
    cluster.create::<DaemonSet>(daemon_set("AdvancedRollingUpdate", "1")).await;
    wait_images(&cluster, &["a1", "a2", "a3", "a4"].map(|node| (node, "one"))).await;
    // With the update strategy of Kubernetes these two would be all of the room, and nothing would go on.
    cluster.go_offline("a1").await;
    cluster.go_offline("a2").await;
    set_image(&cluster, "two").await;
    let upgraded = |pods: &[Pod]| {
        let image = |node: &str| images(pods).get(node).cloned();
        image("a3").as_deref() == Some("two") && image("a4").as_deref() == Some("two")
    };
    let now = wait_for(cluster.api::<Pod>(), "the nodes that are there", upgraded).await;
    let away = now.iter().filter(|pod| ["a1", "a2"].contains(&node_of(pod).as_str()));
    for pod in away {
        assert_eq!(pod.spec.as_ref().unwrap().containers[0].image.as_deref(), Some("one"));
        assert!(pod.metadata.deletion_timestamp.is_none(), "it is not touched while away");
    }
    cluster.come_back("a1").await;
    cluster.come_back("a2").await;
    wait_images(&cluster, &["a1", "a2", "a3", "a4"].map(|node| (node, "two"))).await;
}

#[tokio::test]
async fn an_ota_update_waits_for_the_approval_of_each_node() {
    let cluster = Cluster::start(&["a1", "a2", "a3"]).await;
    cluster.create::<DaemonSet>(daemon_set("OTA", "1")).await;
    let before = wait_images(&cluster, &["a1", "a2", "a3"].map(|node| (node, "one"))).await;
    set_image(&cluster, "two").await;
    let revision = wait_offered(&cluster, &["a1", "a2", "a3"], "two").await;
    wait_images(&cluster, &["a1", "a2", "a3"].map(|node| (node, "one"))).await;

    // From the cloud, then from the node.
    annotate(&cluster, "a2", json!({upgrade::APPROVED: revision})).await;
    wait_images(&cluster, &[("a1", "one"), ("a2", "two"), ("a3", "one")]).await;
    report(&cluster, "a1", upgrade::APPROVED_HERE, "True", &revision).await;
    let now = wait_images(&cluster, &[("a1", "two"), ("a2", "two"), ("a3", "one")]).await;
    assert_eq!(name_on(&now, "a3"), name_on(&before, "a3"));
    wait_for(cluster.api::<Pod>(), "the new ones to say so", |pods| {
        let told = |pod: &&Pod| is_needed(pod) == Some("False") && offer(pod).is_none();
        pods.iter().filter(told).map(node_of).collect::<BTreeSet<_>>()
            == BTreeSet::from(["a1", "a2"].map(str::to_owned))
    })
    .await;

    // An approval is of the revision that it names.
    set_image(&cluster, "three").await;
    let newest = wait_offered(&cluster, &["a1", "a2", "a3"], "three").await;
    annotate(&cluster, "a3", json!({upgrade::APPROVED: revision})).await;
    annotate(&cluster, "a1", json!({upgrade::APPROVED: newest})).await;
    wait_images(&cluster, &[("a1", "three"), ("a2", "two"), ("a3", "one")]).await;

    // Back to what some run already: they are not touched, and nothing is offered to them.
    set_image(&cluster, "two").await;
    wait_for(cluster.api::<Pod>(), "the offer to be withdrawn", |pods| {
        pods.iter().any(|pod| node_of(pod) == "a2" && is_needed(pod) == Some("False"))
    })
    .await;
    let last = wait_images(&cluster, &[("a1", "three"), ("a2", "two"), ("a3", "one")]).await;
    assert_eq!(name_on(&last, "a2"), name_on(&now, "a2"));
    wait_for(cluster.api::<Event>(), "the story", |events| {
        let told = |reason: &str| events.iter().any(|it| it.reason.as_deref() == Some(reason));
        told("UpgradeOffered") && told("UpgradeApproved") && told("SuccessfulDelete")
    })
    .await;
}

#[tokio::test]
async fn an_approved_upgrade_waits_for_the_images_that_were_asked_for() {
    let cluster = Cluster::start(&["a1", "a2"]).await;
    cluster.create::<DaemonSet>(daemon_set("OTA", "1")).await;
    wait_images(&cluster, &[("a1", "one"), ("a2", "one")]).await;
    set_image(&cluster, "two").await;
    let revision = wait_offered(&cluster, &["a1", "a2"], "two").await;
    let both = json!({upgrade::PULL: revision, upgrade::APPROVED: revision});
    annotate(&cluster, "a1", both).await;
    let pulling = upgrade::image_message(&revision, "pulling");
    report(&cluster, "a1", upgrade::IMAGE_READY, "False", &pulling).await;
    annotate(&cluster, "a2", json!({upgrade::APPROVED: revision})).await;
    wait_images(&cluster, &[("a1", "one"), ("a2", "two")]).await;
    let here = upgrade::image_message(&revision, "1 image is here");
    report(&cluster, "a1", upgrade::IMAGE_READY, "True", &here).await;
    wait_images(&cluster, &[("a1", "two"), ("a2", "two")]).await;
}

#[tokio::test]
async fn an_accident_is_no_approval() {
    let cluster = Cluster::start(&["a1", "a2"]).await;
    cluster.create::<DaemonSet>(daemon_set("OTA", "1")).await;
    let before = wait_images(&cluster, &[("a1", "one"), ("a2", "one")]).await;
    set_image(&cluster, "two").await;
    wait_offered(&cluster, &["a1", "a2"], "two").await;
    let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted"}});
    let (api, name): (Api<Pod>, _) = (cluster.api(), name_on(&before, "a1"));
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&evicted)).await.unwrap();
    let after = wait_for(cluster.api::<Pod>(), "another one", |pods| {
        images(pods).len() == 2 && pods.iter().all(|pod| pod.metadata.name.as_ref() != Some(&name))
    })
    .await;
    assert_ne!(name_on(&after, "a1"), name);
    wait_images(&cluster, &[("a1", "one"), ("a2", "one")]).await;
    wait_offered(&cluster, &["a1", "a2"], "two").await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_an_event_and_replaces_nothing() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster.create::<DaemonSet>(daemon_set("Sometimes", "1")).await;
    wait_images(&cluster, &[("a1", "one")]).await;
    set_image(&cluster, "two").await;
    let told = |reason: &'static str| {
        move |events: &[Event]| events.iter().any(|event| event.reason.as_deref() == Some(reason))
    };
    wait_for(cluster.api::<Event>(), "unknown", told("UnknownUpdateStrategy")).await;
    let annotations = |strategy: &str, most: &str| {
        json!({"metadata": {"annotations": {"apps.openyurt.io/update-strategy": strategy,
            "apps.openyurt.io/max-unavailable": most}}})
    };
    cluster.patch::<DaemonSet>("agent", annotations("AdvancedRollingUpdate", "half")).await;
    wait_for(cluster.api::<Event>(), "no number", told("InvalidMaxUnavailable")).await;
    wait_images(&cluster, &[("a1", "one")]).await;
    cluster.patch::<DaemonSet>("agent", annotations("AdvancedRollingUpdate", "50%")).await;
    wait_images(&cluster, &[("a1", "two")]).await;
}
