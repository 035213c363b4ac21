//! YurtAppSets: a workload in each pool, what is different in some, and what becomes of bad input.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment, StatefulSet},
        core::v1::{Event, Pod},
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use toono_openyurt::{NodePool, YurtAppSet};

use crate::cluster::{Cluster, wait_for};

const DEPLOYMENTS: &str = "/namespaces/default/deployments";
const REVISION: &str = "apps.openyurt.io/controller-revision-hash";
const POOL: &str = "apps.openyurt.io/pool-name";

/// A cluster with a node in each of these pools, all of them in the east.
async fn cluster(pools: &[&str]) -> Cluster {
    let cluster = Cluster::start(pools).await;
    for pool in pools {
        add_pool(&cluster, &pool[..1]).await;
    }
    cluster
}

fn node_pools(cluster: &Cluster) -> Api<NodePool> {
    Api::all(cluster.client.clone())
}

async fn add_pool(cluster: &Cluster, name: &str) {
    let pool = json!({"metadata": {"name": name, "labels": {"area": "east"}}});
    let pool = serde_json::from_value(pool).unwrap();
    node_pools(cluster).create(&PostParams::default(), &pool).await.unwrap();
}

fn set(tweaks: Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "nodepoolSelector": {"matchLabels": {"area": "east"}},
        "workload": {
            "workloadTemplate": {"deploymentTemplate": {"spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "one"}]},
                },
            }}},
            "workloadTweaks": tweaks,
        },
    }})
}

fn condition(set: &YurtAppSet, type_: &str) -> Option<(String, String, String)> {
    let conditions = &set.status.as_ref()?.conditions;
    let found = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone()?, found.message.clone()?))
}

fn settled(set: &YurtAppSet, workloads: i32) -> bool {
    let status = set.status.clone().unwrap_or_default();
    status.observed_generation == set.metadata.generation
        && [status.total_workloads, status.ready_workloads, status.updated_workloads]
            .iter()
            .all(|count| *count == workloads)
}

async fn wait_settled(cluster: &Cluster, workloads: i32) -> YurtAppSet {
    let all = wait_for(cluster.api::<YurtAppSet>(), "the set", |all| {
        all.len() == 1 && settled(&all[0], workloads)
    })
    .await;
    all.into_iter().next().unwrap()
}

/// By pool, the set's workloads.
async fn by_pool<K>(api: Api<K>) -> BTreeMap<String, K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let pool = |one: &K| one.meta().labels.as_ref().unwrap()[POOL].clone();
    let all = api.list(&Default::default()).await.unwrap().items;
    all.into_iter().map(|one| (pool(&one), one)).collect()
}

fn image(deployment: &Deployment) -> &str {
    let template = &deployment.spec.as_ref().unwrap().template;
    template.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

async fn tweak(cluster: &Cluster, tweaks: Value) {
    let patch = json!({"spec": {"workload": {"workloadTweaks": tweaks}}});
    cluster.patch::<YurtAppSet>("web", patch).await;
}

#[tokio::test]
async fn a_set_writes_once_a_pool_and_then_only_where_something_changed() {
    let cluster = cluster(&["a1", "b1", "c1"]).await;
    let tweaks = json!([{"pools": ["b"], "tweaks": {"replicas": 2, "patches": [
        {"operation": "add", "path": "/spec/template/metadata/labels/place",
            "value": "in-{{nodepool-name}}"}]}}]);
    cluster.create::<YurtAppSet>(set(tweaks)).await;
    let first = wait_settled(&cluster, 3).await;
    let made = by_pool(cluster.api::<Deployment>()).await;
    assert_eq!(made.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    let replicas = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas;
    assert_eq!((replicas(&made["a"]), replicas(&made["b"])), (Some(1), Some(2)));
    let owner = made["a"].metadata.owner_references.as_ref().unwrap();
    assert_eq!(owner[0].uid, first.metadata.uid.clone().unwrap());
    let pods = wait_for(cluster.api::<Pod>(), "four pods", |pods| pods.len() == 4).await;
    for pod in &pods {
        let pool = &pod.metadata.labels.as_ref().unwrap()[POOL];
        assert!(pod.spec.as_ref().unwrap().node_name.as_ref().unwrap().starts_with(pool));
    }
    assert_eq!(condition(&first, "AppReady").unwrap().1, "AllWorkloadsReady");
    assert_eq!(condition(&first, "PoolFound").unwrap().0, "True");
    let writes = |verb: &str| {
        let of_sets = |write: &&String| {
            write.starts_with(verb) && !write.ends_with("/status") && !write.contains("replicasets")
        };
        cluster.writes_below(DEPLOYMENTS).iter().filter(of_sets).count()
    };
    assert_eq!(writes("POST"), 3, "{:?}", cluster.writes_below(DEPLOYMENTS));

    tweak(
        &cluster,
        json!([{"pools": ["b"], "tweaks": {
        "containerImages": [{"name": "c", "targetImage": "two"}]}}]),
    )
    .await;
    wait_for(cluster.api::<Deployment>(), "the image", |all| {
        all.iter().filter(|one| image(one) == "two").count() == 1
    })
    .await;
    let second = wait_settled(&cluster, 3).await;
    let after = by_pool(cluster.api::<Deployment>()).await;
    for pool in ["a", "c"] {
        assert_eq!(after[pool].metadata.generation, made[pool].metadata.generation);
        assert_eq!(after[pool].metadata.labels, made[pool].metadata.labels, "nothing is written");
    }
    let revision = second.status.unwrap().current_revision;
    assert_ne!(revision, first.status.unwrap().current_revision);
    assert_eq!(after["b"].metadata.labels.as_ref().unwrap()[REVISION], revision);
    assert_eq!(writes("POST"), 3);
}

#[tokio::test]
async fn what_hands_did_is_undone_and_pools_come_and_go() {
    let cluster = cluster(&["a1", "b1"]).await;
    cluster.create::<YurtAppSet>(set(json!([]))).await;
    wait_settled(&cluster, 2).await;
    let made = by_pool(cluster.api::<Deployment>()).await;
    let name = made["a"].metadata.name.clone().unwrap();
    cluster.patch::<Deployment>(&name, json!({"spec": {"replicas": 5, "paused": true}})).await;
    wait_for(cluster.api::<Deployment>(), "what was before", |all| {
        all.iter().all(|one| {
            let spec = one.spec.as_ref().unwrap();
            let again =
                one.metadata.name != made["a"].metadata.name || one.metadata.generation > Some(2);
            again && spec.replicas == Some(1) && !spec.paused.unwrap_or(false)
        })
    })
    .await;
    let name = made["b"].metadata.name.clone().unwrap();
    cluster.api::<Deployment>().delete(&name, &DeleteParams::background()).await.unwrap();
    wait_for(cluster.api::<Deployment>(), "another one", |all| {
        let another = |one: &Deployment| one.metadata.uid != made["b"].metadata.uid;
        all.len() == 2 && all.iter().all(another)
    })
    .await;

    cluster.add_node("c1").await;
    add_pool(&cluster, "c").await;
    wait_settled(&cluster, 3).await;
    let west = Patch::Merge(json!({"metadata": {"labels": {"area": "west"}}}));
    node_pools(&cluster).patch("a", &PatchParams::default(), &west).await.unwrap();
    wait_settled(&cluster, 2).await;
    let left = by_pool(cluster.api::<Deployment>()).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["b", "c"]);
    cluster.api::<YurtAppSet>().delete("web", &DeleteParams::default()).await.unwrap();
    wait_for(cluster.api::<Pod>(), "no pod", |pods| pods.is_empty()).await;
    let left = cluster.api::<Deployment>().list(&Default::default()).await.unwrap().items;
    assert!(left.is_empty(), "{left:#?}");
}

#[tokio::test]
async fn bad_input_is_told_by_pool_and_holds_up_no_other() {
    let cluster = cluster(&["a1", "b1", "c1"]).await;
    let tweaks = json!([
        {"pools": ["a"], "tweaks": {"patches": [{"operation": "remove", "path": "/spec/nothing"}]}},
        {"pools": ["b"], "tweaks": {"patches": [
            {"operation": "replace", "path": "/spec/template/metadata/labels/app", "value": "x"}]}},
        {"pools": ["nowhere"], "tweaks": {"replicas": 3}},
    ]);
    cluster.create::<YurtAppSet>(set(tweaks)).await;
    let sets = wait_for(cluster.api::<YurtAppSet>(), "the conditions", |all| {
        all.iter().any(|set| {
            let told = condition(set, "AppDispatched");
            told.is_some_and(|told| told.2.contains("a (") && told.2.contains("b ("))
                && set.status.as_ref().unwrap().ready_workloads == 1
        })
    })
    .await;
    let (status, reason, message) = condition(&sets[0], "AppDispatched").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "CreateWorkloadError"));
    assert!(message.contains("patch 1 of tweak 1 (remove /spec/nothing)"), "{message}");
    assert!(message.contains("selector"), "what the API said of b: {message}");
    let (status, reason, message) = condition(&sets[0], "PoolFound").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "PoolsMissing"));
    assert!(message.contains("tweak 3 names pool nowhere, which is not there"), "{message}");
    let made = by_pool(cluster.api::<Deployment>()).await;
    assert_eq!(made.keys().collect::<Vec<_>>(), ["c"]);
    wait_for(cluster.api::<Event>(), "the events", |events| {
        let told =
            |reason: &str| events.iter().any(|event| event.reason.as_deref() == Some(reason));
        ["FailedCreate", "SuccessfulCreate", "PoolsMissing"].into_iter().all(told)
    })
    .await;
    tweak(&cluster, json!([])).await;
    let good = wait_settled(&cluster, 3).await;
    assert_eq!(condition(&good, "AppDispatched").unwrap().0, "True");
    assert_eq!(condition(&good, "PoolFound").unwrap().0, "True");
}

#[tokio::test]
async fn a_template_that_no_pool_can_run_is_told_of_each_and_holds_up_no_other_set() {
    let cluster = cluster(&["a1", "b1"]).await;
    let named = |name: &str, template: Value| {
        let mut set = set(json!([]));
        set["metadata"]["name"] = name.into();
        let spec = &mut set["spec"]["workload"]["workloadTemplate"]["deploymentTemplate"]["spec"];
        for (field, value) in template.as_object().unwrap() {
            spec["template"]["spec"][field] = value.clone();
        }
        set
    };
    let refused = named("refused", json!({"restartPolicy": "Never"}));
    cluster.create::<YurtAppSet>(refused).await;
    let unplaced = named("unplaced", json!({"nodeSelector": {"disk": "tape"}}));
    cluster.create::<YurtAppSet>(unplaced).await;
    cluster.create::<YurtAppSet>(set(json!([]))).await;
    wait_for(cluster.api::<YurtAppSet>(), "each set's state", |all| {
        let told = |name: &str, type_: &str| {
            let set = all.iter().find(|set| set.metadata.name.as_deref() == Some(name));
            set.and_then(|set| condition(set, type_)).unwrap_or_default()
        };
        let (status, reason, why) = told("refused", "AppDispatched");
        let refused = status == "False" && reason == "CreateWorkloadError";
        let by_pool = why.contains("a (") && why.contains("b (") && why.contains("restartPolicy");
        let (status, _, why) = told("unplaced", "AppReady");
        let waits = |pool: &str| why.contains(&format!("{pool} (0 of 1 ready"));
        let unplaced = status == "False" && waits("a") && waits("b");
        refused && by_pool && unplaced && told("web", "AppReady").0 == "True"
    })
    .await;
}

#[tokio::test]
async fn older_revisions_are_gone_back_to_and_only_so_many_are_kept() {
    let cluster = cluster(&["a1"]).await;
    let mut wanted = set(json!([]));
    wanted["spec"]["revisionHistoryLimit"] = json!(2);
    cluster.create::<YurtAppSet>(wanted).await;
    let first = wait_settled(&cluster, 1).await.status.unwrap().current_revision;
    let roll_to = async |name: &'static str| {
        tweak(
            &cluster,
            json!([{"pools": ["a"], "tweaks": {
            "containerImages": [{"name": "c", "targetImage": name}]}}]),
        )
        .await;
        wait_for(cluster.api::<Deployment>(), name, |all| all.iter().all(|one| image(one) == name))
            .await;
        wait_settled(&cluster, 1).await.status.unwrap().current_revision
    };
    let second = roll_to("two").await;
    let third = roll_to("three").await;
    assert!(first != second && second != third);
    assert_eq!(roll_to("two").await, second, "the same content is the same revision");
    let number = |name: &str, all: &[ControllerRevision]| {
        let found = all.iter().find(|one| one.metadata.name.as_deref() == Some(name));
        found.map(|one| one.revision)
    };
    let all = wait_for(cluster.api::<ControllerRevision>(), "the number", |all| {
        number(&second, all) == Some(4)
    })
    .await;
    assert_eq!((number(&first, &all), number(&third, &all)), (Some(1), Some(3)));
    roll_to("four").await;
    roll_to("five").await;
    wait_for(cluster.api::<ControllerRevision>(), "two old ones and the new", |all| {
        all.len() == 3 && number(&first, all).is_none()
    })
    .await;
}

#[tokio::test]
async fn stateful_sets_are_watched_too() {
    let cluster = cluster(&["a1", "b1"]).await;
    let mut wanted = set(json!([{"pools": ["a"], "tweaks": {"replicas": 2}}]));
    let templates = &mut wanted["spec"]["workload"]["workloadTemplate"];
    let template = templates["deploymentTemplate"].take();
    *templates = json!({"statefulSetTemplate": template});
    templates["statefulSetTemplate"]["spec"]["serviceName"] = json!("web");
    cluster.create::<YurtAppSet>(wanted).await;
    wait_settled(&cluster, 2).await;
    let made = by_pool(cluster.api::<StatefulSet>()).await;
    assert_eq!(made["a"].spec.as_ref().unwrap().replicas, Some(2));
    let name = made["a"].metadata.name.clone().unwrap();
    cluster.patch::<StatefulSet>(&name, json!({"spec": {"replicas": 0}})).await;
    wait_for(cluster.api::<StatefulSet>(), "what was before", |all| {
        all.iter().all(|one| {
            one.metadata.name.as_deref() != Some(&name)
                || (one.metadata.generation == Some(3)
                    && one.spec.as_ref().unwrap().replicas == Some(2))
        })
    })
    .await;
    wait_settled(&cluster, 2).await;
    let after = by_pool(cluster.api::<StatefulSet>()).await;
    assert_eq!(after["b"].metadata.generation, Some(1), "and never written again");
}
