//! Deployments and daemon sets from the first pod to the last.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet},
    core::v1::{Event, Pod},
    scheduling::v1::PriorityClass,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

fn deployment(replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": "hello"}, "spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "hello"}},
        "template": {
            "metadata": {"labels": {"app": "hello"}},
            "spec": {"containers": [{"name": "c", "image": image}]},
        },
    }})
}

fn per_node(pods: &[Pod]) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for pod in pods {
        let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap_or_default();
        *nodes.entry(node).or_default() += 1;
    }
    nodes
}

/// What `kubectl rollout status` waits for.
fn rolled_out(deployment: &Deployment, replicas: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas == Some(replicas)
        && status.replicas == Some(replicas)
        && status.available_replicas == Some(replicas)
}

async fn wait_rolled_out(cluster: &Cluster, replicas: i32) -> Deployment {
    let all = wait_for(cluster.api::<Deployment>(), "the rollout", |all| {
        all.iter().all(|deployment| rolled_out(deployment, replicas))
    })
    .await;
    all.into_iter().next().unwrap()
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

#[tokio::test]
async fn a_deployment_spreads_scales_and_rolls() {
    let cluster = Cluster::start(&["a1", "a2", "b1", "b2"]).await;
    cluster.create::<Deployment>(deployment(20, "one")).await;
    let rolled = wait_rolled_out(&cluster, 20).await;
    assert_eq!(rolled.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "1");
    let reasons: BTreeMap<_, _> = rolled
        .status
        .unwrap()
        .conditions
        .unwrap()
        .into_iter()
        .map(|condition| (condition.type_, (condition.status, condition.reason.unwrap())))
        .collect();
    assert_eq!(reasons["Progressing"], ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));
    assert_eq!(reasons["Available"], ("True".to_owned(), "MinimumReplicasAvailable".to_owned()));
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    let spread = per_node(&pods);
    assert!(spread.len() == 4 && spread.values().all(|count| *count == 5), "{spread:?}");

    cluster.patch::<Deployment>("hello", json!({"spec": {"replicas": 4}})).await;
    wait_rolled_out(&cluster, 4).await;
    wait_for(cluster.api::<Pod>(), "4 pods", |pods| pods.len() == 4).await;

    let template =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    cluster.patch::<Deployment>("hello", template).await;
    let rolled = wait_rolled_out(&cluster, 4).await;
    assert_eq!(rolled.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "2");
    wait_for(cluster.api::<Pod>(), "the new image everywhere", |pods| {
        pods.len() == 4 && pods.iter().all(|pod| image(pod) == "two")
    })
    .await;
    let sets = cluster.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items;
    assert_eq!(sets.len(), 2);

    // Back to the first template: its set is found again and numbered anew.
    cluster
        .patch::<Deployment>(
            "hello",
            json!({"spec": {"template": {"spec": {"containers": [
        {"name": "c", "image": "one"}]}}}}),
        )
        .await;
    let rolled = wait_rolled_out(&cluster, 4).await;
    assert_eq!(rolled.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "3");
    assert_eq!(cluster.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items.len(), 2);
    wait_for(cluster.api::<Event>(), "the events of the rollout", |events| {
        let told =
            |reason: &str| events.iter().any(|event| event.reason.as_deref() == Some(reason));
        ["ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete", "Scheduled"]
            .into_iter()
            .all(told)
    })
    .await;
}

#[tokio::test]
async fn a_rollout_that_cannot_progress_keeps_the_old_pods() {
    let cluster = Cluster::start(&["a1", "b1"]).await;
    cluster.create::<Deployment>(deployment(4, "one")).await;
    wait_rolled_out(&cluster, 4).await;
    cluster
        .patch::<Deployment>(
            "hello",
            json!({"spec": {"progressDeadlineSeconds": 2, "template": {"spec": {
        "containers": [{"name": "c", "image": "broken"}]}}}}),
        )
        .await;
    wait_for(cluster.api::<Deployment>(), "the deadline", |all| {
        all.iter()
            .flat_map(|one| one.status.iter().flat_map(|status| status.conditions.iter().flatten()))
            .any(|condition| {
                condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
                    && condition.status == "False"
            })
    })
    .await;
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    assert_eq!(pods.iter().filter(|pod| image(pod) == "one").count(), 3, "25 % of 4 may be gone");
    assert!(pods.len() <= 5, "and 25 % of 4 may be added");
}

#[tokio::test]
async fn pods_that_fit_nowhere_say_so_and_go_when_a_node_comes() {
    let cluster = Cluster::start(&[]).await;
    let mut wanted = deployment(1, "one");
    wanted["spec"]["template"]["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "b1"});
    cluster.create::<Deployment>(wanted).await;
    cluster.add_node("a1").await;
    let expected = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    wait_for(cluster.api::<Pod>(), "the condition", |pods| {
        pods.iter()
            .flat_map(|pod| pod.status.iter().flat_map(|status| status.conditions.iter().flatten()))
            .any(|condition| {
                condition.type_ == "PodScheduled"
                    && condition.reason.as_deref() == Some("Unschedulable")
                    && condition.message.as_deref() == Some(expected)
            })
    })
    .await;
    cluster.add_node("b1").await;
    wait_rolled_out(&cluster, 1).await;
}

#[tokio::test]
async fn a_daemon_runs_on_each_node_and_is_updated() {
    let cluster = Cluster::start(&["a1", "a2"]).await;
    cluster
        .create::<DaemonSet>(json!({"metadata": {"name": "agent"}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]},
            },
        }}))
        .await;
    let settled = |nodes: i32| {
        move |sets: &[DaemonSet]| {
            sets.iter().all(|set| {
                let status = set.status.clone().unwrap_or_default();
                status.observed_generation >= set.metadata.generation
                    && status.desired_number_scheduled == nodes
                    && status.updated_number_scheduled == Some(nodes)
                    && status.number_available == Some(nodes)
            })
        }
    };
    wait_for(cluster.api::<DaemonSet>(), "two daemons", settled(2)).await;
    cluster.add_node("b1").await;
    wait_for(cluster.api::<DaemonSet>(), "three daemons", settled(3)).await;
    let one_each = |image_name: &'static str| {
        move |pods: &[Pod]| {
            let nodes = per_node(pods);
            pods.iter().all(|pod| image(pod) == image_name)
                && nodes == ["a1", "a2", "b1"].map(|node| (node.to_owned(), 1)).into()
        }
    };
    wait_for(cluster.api::<Pod>(), "one daemon per node", one_each("one")).await;
    let template =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    cluster.patch::<DaemonSet>("agent", template).await;
    wait_for(cluster.api::<Pod>(), "the new image on each", one_each("two")).await;
    wait_for(cluster.api::<DaemonSet>(), "three new daemons", settled(3)).await;
    let revisions =
        cluster.api::<ControllerRevision>().list(&Default::default()).await.unwrap().items;
    assert_eq!(revisions.iter().map(|revision| revision.revision).max(), Some(2));
    cluster.nodes().delete("a1", &DeleteParams::default()).await.unwrap();
    wait_for(cluster.api::<DaemonSet>(), "two daemons again", settled(2)).await;
}

#[tokio::test]
async fn an_important_pod_pushes_out_the_least_important_one() {
    let cluster = Cluster::start(&["a1"]).await;
    let classes: Api<PriorityClass> = Api::all(cluster.client.clone());
    for (name, value) in [("low", 1), ("middle", 2), ("high", 3)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        let class = serde_json::from_value(class).unwrap();
        classes.create(&PostParams::default(), &class).await.unwrap();
    }
    // The node has eight cores, so there is room for two of these.
    let pod = |name: &str, class: &str| {
        json!({"metadata": {"name": name}, "spec": {"priorityClassName": class, "containers": [
            {"name": "c", "image": "one", "resources": {"requests": {"cpu": "4"}}}]}})
    };
    let on_node = |names: &'static [&'static str]| {
        move |pods: &[Pod]| {
            let bound = pods
                .iter()
                .filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()));
            let mut bound: Vec<_> =
                bound.map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
            bound.sort_unstable();
            bound == names
        }
    };
    cluster.create::<Pod>(pod("less", "low")).await;
    cluster.create::<Pod>(pod("more", "middle")).await;
    wait_for(cluster.api::<Pod>(), "both on the node", on_node(&["less", "more"])).await;
    let marked = wait_for(cluster.api::<Pod>(), "the mark", |pods| {
        pods.iter().filter(|pod| pod.metadata.name.as_deref() == Some("less")).any(|pod| {
            let status = pod.status.iter();
            status.flat_map(|status| status.conditions.iter().flatten()).any(|condition| {
                condition.type_ == "DisruptionTarget"
                    && condition.status == "True"
                    && condition.reason.as_deref() == Some("PreemptionByScheduler")
            })
        })
    });
    let (_, _) = tokio::join!(marked, cluster.create::<Pod>(pod("most", "high")));
    wait_for(cluster.api::<Pod>(), "the important ones", on_node(&["more", "most"])).await;
}
