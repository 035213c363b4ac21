//! What budgets allow, as their pods come and go.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::Pod,
    policy::v1::PodDisruptionBudget,
};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, wait_for},
    endpoints::set_ready,
};

fn workload(replicas: i32) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "one"}]},
        },
    }})
}

async fn budget(cluster: &Cluster, name: &str, rule: Value) {
    let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}});
    spec.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
    let budget = json!({"metadata": {"name": name}, "spec": spec});
    cluster.create::<PodDisruptionBudget>(budget).await;
}

/// `(allowed, current, desired, expected)`.
fn numbers(all: &[PodDisruptionBudget], name: &str) -> Option<[i32; 4]> {
    let found = all.iter().find(|one| one.metadata.name.as_deref() == Some(name))?;
    let status = found.status.as_ref()?;
    status.observed_generation?;
    Some([
        status.disruptions_allowed,
        status.current_healthy,
        status.desired_healthy,
        status.expected_pods,
    ])
}

async fn wait(cluster: &Cluster, name: &str, expected: [i32; 4]) -> PodDisruptionBudget {
    let api = cluster.api::<PodDisruptionBudget>();
    let what = format!("{name} with {expected:?}");
    let all = wait_for(api, &what, |all| numbers(all, name) == Some(expected)).await;
    all.into_iter().find(|one| one.metadata.name.as_deref() == Some(name)).unwrap()
}

#[tokio::test]
async fn budgets_count_the_pods_of_a_deployment() {
    let cluster = Cluster::start(&["a1"]).await;
    budget(&cluster, "least", json!({"minAvailable": 3})).await;
    budget(&cluster, "share", json!({"maxUnavailable": "50%"})).await;
    wait(&cluster, "least", [0, 0, 3, 0]).await;
    cluster.create::<Deployment>(workload(4)).await;
    let found = wait(&cluster, "least", [1, 4, 3, 4]).await;
    let conditions = found.status.unwrap().conditions.unwrap();
    assert_eq!(
        (conditions[0].type_.as_str(), conditions[0].reason.as_str()),
        ("DisruptionAllowed", "SufficientPods")
    );
    wait(&cluster, "share", [2, 4, 2, 4]).await;
    let pods = cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    set_ready(&cluster, pods[0].metadata.name.as_deref().unwrap(), false).await;
    let found = wait(&cluster, "least", [0, 3, 3, 4]).await;
    assert_eq!(found.status.unwrap().conditions.unwrap()[0].reason, "InsufficientPods");
    wait(&cluster, "share", [1, 3, 2, 4]).await;
}

#[tokio::test]
async fn owners_of_any_kind_are_asked_for_their_scale() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster.create::<StatefulSet>(workload(3)).await;
    budget(&cluster, "share", json!({"minAvailable": "50%"})).await;
    wait(&cluster, "share", [1, 3, 2, 3]).await;
}
