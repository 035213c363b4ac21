//! Stateful sets from the first pod to the last.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

fn set(spec: Value) -> Value {
    let mut set = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    set["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    set
}

fn new_image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

async fn wait_settled(cluster: &Cluster, replicas: i32, updated: i32) -> StatefulSet {
    let settled = |set: &StatefulSet| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation >= set.metadata.generation
            && status.replicas == replicas
            && status.ready_replicas.unwrap_or(0) == replicas
            && status.available_replicas == Some(replicas)
            && status.updated_replicas.unwrap_or(0) == updated
    };
    let what = format!("{replicas} pods, {updated} of them updated");
    let sets =
        wait_for(cluster.api(), &what, |sets: &[StatefulSet]| sets.iter().all(settled)).await;
    sets.into_iter().next().unwrap()
}

fn images(pods: &[Pod]) -> BTreeMap<String, String> {
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    pods.iter().map(|pod| (pod.metadata.name.clone().unwrap(), image(pod))).collect()
}

async fn list(cluster: &Cluster) -> Vec<Pod> {
    cluster.api::<Pod>().list(&Default::default()).await.unwrap().items
}

#[tokio::test]
async fn pods_come_in_order_and_roll_down_to_the_partition() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster.create::<StatefulSet>(set(json!({}))).await;
    let first = wait_settled(&cluster, 3, 3).await.status.unwrap();
    assert_eq!(first.current_revision, first.update_revision);
    let pods = list(&cluster).await;
    let mut by_time: Vec<_> = pods.iter().collect();
    by_time.sort_by_key(|pod| {
        let version = pod.metadata.uid.clone().unwrap();
        (
            pod.metadata.creation_timestamp.clone().map(|time| time.0),
            pod.metadata.name.clone(),
            version,
        )
    });
    let names: Vec<_> = by_time.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["web-0", "web-1", "web-2"]);
    let labels = pods[2].metadata.labels.clone().unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-2");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "2");
    assert_eq!(Some(&labels["controller-revision-hash"]), first.update_revision.as_ref());

    let partition = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}});
    cluster.patch::<StatefulSet>("web", partition).await;
    cluster.patch::<StatefulSet>("web", new_image("two")).await;
    let half = wait_settled(&cluster, 3, 2).await.status.unwrap();
    assert_ne!(half.current_revision, half.update_revision);
    assert_eq!(half.current_revision, first.current_revision);
    let expected = [("web-0", "one"), ("web-1", "two"), ("web-2", "two")];
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(pod, image)| (pod.to_owned(), image.to_owned())).collect();
    assert_eq!(images(&list(&cluster).await), expected);

    // A pod below the partition comes back as it was.
    let pod = list(&cluster).await.into_iter().next().unwrap();
    cluster.api::<Pod>().delete("web-0", &DeleteParams::default()).await.unwrap();
    wait_for(cluster.api::<Pod>(), "another web-0", |pods| {
        pods.iter().any(|new| {
            new.metadata.name.as_deref() == Some("web-0") && new.metadata.uid != pod.metadata.uid
        })
    })
    .await;
    wait_settled(&cluster, 3, 2).await;
    assert_eq!(images(&list(&cluster).await), expected);

    let all = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
    cluster.patch::<StatefulSet>("web", all).await;
    wait_for(cluster.api::<StatefulSet>(), "the end of the rollout", |sets| {
        let status = sets[0].status.clone().unwrap();
        status.updated_replicas == Some(3) && status.current_revision == half.update_revision
    })
    .await;
    cluster.patch::<StatefulSet>("web", new_image("one")).await;
    wait_for(cluster.api::<StatefulSet>(), "the way back", |sets| {
        let status = sets[0].status.clone().unwrap();
        status.update_revision == first.update_revision
            && status.current_revision == first.update_revision
    })
    .await;
    let revisions = cluster.api::<ControllerRevision>().list(&Default::default()).await.unwrap();
    let numbers: BTreeSet<_> = revisions.items.iter().map(|revision| revision.revision).collect();
    assert_eq!(numbers, BTreeSet::from([2, 3]), "the first revision is the newest again");

    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    wait_settled(&cluster, 1, 1).await;
    assert_eq!(images(&list(&cluster).await).into_keys().collect::<Vec<_>>(), ["web-0"]);
}

#[tokio::test]
async fn a_broken_pod_holds_up_an_ordered_set() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster
        .create::<StatefulSet>(set(json!({"template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "broken"}]}}})))
        .await;
    wait_for(cluster.api::<StatefulSet>(), "the first pod", |sets| {
        sets.iter().all(|set| set.status.as_ref().is_some_and(|status| status.replicas == 1))
    })
    .await;
    let parallel = set(json!({"podManagementPolicy": "Parallel"}));
    cluster.api::<StatefulSet>().delete("web", &DeleteParams::foreground()).await.unwrap();
    wait_for(cluster.api::<StatefulSet>(), "no set", |sets| sets.is_empty()).await;
    cluster.create::<StatefulSet>(parallel).await;
    wait_settled(&cluster, 3, 3).await;
}

#[tokio::test]
async fn claims_stay_or_go_as_the_policy_says() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster
        .create::<StatefulSet>(set(json!({
            "replicas": 2,
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        })))
        .await;
    // Pods with claims wait for volumes, which nobody provides here.
    let names = |claims: &[PersistentVolumeClaim]| -> Vec<String> {
        claims.iter().filter_map(|claim| claim.metadata.name.clone()).collect()
    };
    let claims = wait_for(cluster.api::<PersistentVolumeClaim>(), "claims", |claims| {
        claims.iter().any(|claim| claim.metadata.name.as_deref() == Some("data-web-0"))
    })
    .await;
    assert_eq!(claims[0].metadata.labels.as_ref().unwrap()["app"], "web");
    let pods = wait_for(cluster.api::<Pod>(), "a pod", |pods| !pods.is_empty()).await;
    let volume = &pods[0].spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
    assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-web-0");
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 0}})).await;
    wait_for(cluster.api::<PersistentVolumeClaim>(), "no claims", |claims| {
        names(claims).is_empty()
    })
    .await;
}
