//! Node pools: what they give their nodes, what they say of them, who leads them.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Event, Node},
    rbac::v1::ClusterRole,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use toono_openyurt::{NodeBucket, NodePool, keys};

use crate::cluster::{Cluster, wait_for};

fn pools(cluster: &Cluster) -> Api<NodePool> {
    Api::all(cluster.client.clone())
}

async fn create(cluster: &Cluster, name: &str, spec: Value) -> NodePool {
    let pool = json!({"metadata": {"name": name}, "spec": spec});
    pools(cluster)
        .create(&PostParams::default(), &serde_json::from_value(pool).unwrap())
        .await
        .unwrap()
}

async fn change(cluster: &Cluster, name: &str, patch: Value) -> Result<NodePool, kube::Error> {
    pools(cluster).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await
}

async fn until(
    cluster: &Cluster,
    name: &str,
    what: &str,
    test: impl Fn(&NodePool) -> bool,
) -> NodePool {
    let found = wait_for(pools(cluster), what, |all| {
        all.iter().any(|pool| pool.name() == name && test(pool))
    });
    found.await.into_iter().find(|pool| pool.name() == name).unwrap()
}

async fn change_node(cluster: &Cluster, name: &str, patch: Value) {
    cluster.nodes().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    Some(node.metadata.labels.as_ref()?.get(key)?)
}

async fn has_labels(cluster: &Cluster, node: &str, expected: &[(&str, Option<&str>)]) {
    wait_for(cluster.nodes(), &format!("{node} with {expected:?}"), |nodes| {
        let node = nodes.iter().find(|one| one.metadata.name.as_deref() == Some(node)).unwrap();
        expected.iter().all(|(key, value)| label(node, key) == *value)
    })
    .await;
}

#[tokio::test]
async fn a_pool_counts_its_nodes_and_names_them() {
    let cluster = Cluster::start(&["a1", "a2", "b1"]).await;
    create(&cluster, "a", json!({})).await;
    create(&cluster, "empty", json!({"type": "Cloud"})).await;
    let told = |pool: &NodePool, ready: i32, unready: i32, nodes: &[&str]| {
        pool.status.as_ref().is_some_and(|status| {
            (status.ready_node_num, status.unready_node_num) == (ready, unready)
                && status.nodes == nodes
        })
    };
    let pool =
        until(&cluster, "a", "two ready nodes", |pool| told(pool, 2, 0, &["a1", "a2"])).await;
    assert_eq!((pool.spec.type_.as_deref(), pool.spec.leaders_wanted()), (Some("Edge"), 1));
    assert_eq!(pool.label(keys::NODE_POOL_TYPE), Some("edge"));
    until(&cluster, "empty", "no nodes", |pool| told(pool, 0, 0, &[])).await;
    cluster.set_ready("a2", "Unknown").await;
    until(&cluster, "a", "one silent node", |pool| told(pool, 1, 1, &["a1", "a2"])).await;
    pools(&cluster).delete("empty", &DeleteParams::default()).await.unwrap();
    wait_for(pools(&cluster), "the empty pool gone", |all| {
        all.iter().all(|pool| pool.name() == "a")
    })
    .await;
}

#[tokio::test]
async fn nodes_have_what_their_pool_gives_and_keep_what_is_theirs() {
    let cluster = Cluster::start(&["a1", "a2"]).await;
    change_node(&cluster, "a1", json!({"metadata": {"labels": {"own": "before"}}})).await;
    create(
        &cluster,
        "a",
        json!({"hostNetwork": true, "labels": {"region": "north", "own": "pool"},
        "taints": [{"key": "edge", "effect": "NoSchedule"}]}),
    )
    .await;
    let given = [
        ("region", Some("north")),
        ("own", Some("pool")),
        (keys::NODE_POOL_HOST_NETWORK, Some("true")),
    ];
    has_labels(&cluster, "a1", &given).await;
    has_labels(&cluster, "a2", &given).await;
    change_node(&cluster, "a2", json!({"metadata": {"labels": {"region": "by-hand"}}})).await;
    change(&cluster, "a", json!({"spec": {"labels": {"region": "south"}}})).await.unwrap();
    has_labels(&cluster, "a1", &[("region", Some("south"))]).await;
    let left = json!({"metadata": {"labels": {keys::NODE_POOL: null}}});
    change_node(&cluster, "a1", left.clone()).await;
    change_node(&cluster, "a2", left).await;
    let gone = (keys::NODE_POOL_HOST_NETWORK, None);
    has_labels(&cluster, "a1", &[("region", None), ("own", Some("before")), gone]).await;
    has_labels(&cluster, "a2", &[("region", Some("by-hand")), ("own", None), gone]).await;
    wait_for(cluster.nodes(), "no taints", |nodes| {
        nodes
            .iter()
            .all(|node| node.spec.iter().all(|spec| spec.taints.iter().flatten().count() == 0))
    })
    .await;
    let asks = json!({"metadata": {"labels": {keys::DESIRED_NODE_POOL: "a"}}});
    change_node(&cluster, "a1", asks).await;
    has_labels(&cluster, "a1", &[(keys::NODE_POOL, Some("a")), ("region", Some("south"))]).await;
}

#[tokio::test]
async fn a_pool_that_has_nodes_is_not_deleted_and_says_why() {
    let cluster = Cluster::start(&["a1"]).await;
    create(&cluster, "a", json!({})).await;
    until(&cluster, "a", "its finalizer", |pool| pool.metadata.finalizers.is_some()).await;
    pools(&cluster).delete("a", &DeleteParams::default()).await.unwrap();
    until(&cluster, "a", "the reason", |pool| {
        let conditions = pool.status.iter().flat_map(|status| &status.conditions);
        conditions
            .into_iter()
            .any(|one| one.message.as_deref().is_some_and(|why| why.contains("a1")))
    })
    .await;
    wait_for(cluster.api::<Event>(), "the event", |events| {
        events.iter().any(|event| event.reason.as_deref() == Some("PoolNotEmpty"))
    })
    .await;
    change_node(&cluster, "a1", json!({"metadata": {"labels": {keys::NODE_POOL: null}}})).await;
    wait_for(pools(&cluster), "no pool", <[_]>::is_empty).await;
}

async fn leads(cluster: &Cluster, expected: &[&str]) {
    let pool = until(cluster, "a", &format!("leaders {expected:?}"), |pool| {
        pool.status.as_ref().is_some_and(|status| {
            let names: Vec<&str> =
                status.leader_endpoints.iter().map(|leader| leader.node_name.as_str()).collect();
            names == expected && status.leader_num == Some(i32::try_from(expected.len()).unwrap())
        })
    })
    .await;
    let ends: Vec<String> = pool
        .status
        .iter()
        .flat_map(|status| &status.leader_endpoints)
        .map(|leader| format!("{}/{}", leader.node_name, leader.address))
        .collect();
    let data = json!({"leaders": ends.join(","), "interconnectivity": "true",
        "enable-leader-election": "true",
        "pool-scoped-metadata": "/v1/services,discovery.k8s.io/v1/endpointslices"});
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
    wait_for(maps, "the leaders' ConfigMap", |maps| {
        maps.iter().any(|map| {
            map.metadata.name.as_deref() == Some("leader-hub-a") && json!(map.data) == data
        })
    })
    .await;
}

fn is_led(pool: &NodePool, expected: &str) -> bool {
    let mut conditions = pool.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|one| one.type_ == "LeaderReady" && one.status == expected)
}

#[tokio::test]
async fn a_pool_that_cannot_give_what_it_says_holds_up_no_other() {
    let cluster = Cluster::start(&["a1", "b1"]).await;
    create(&cluster, "a", json!({"labels": {"no key!": "north"}})).await;
    create(&cluster, "b", json!({"labels": {"region": "south"}})).await;
    has_labels(&cluster, "b1", &[("region", Some("south"))]).await;
    wait_for(cluster.api::<Event>(), "the pool's event", |events| {
        events.iter().any(|event| {
            let why = event.message.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("InvalidAttributes")
                && event.involved_object.name.as_deref() == Some("a")
                && why.contains("a1")
        })
    })
    .await;
    let good = json!({"spec": {"labels": {"no key!": null, "region": "north"}}});
    change(&cluster, "a", good).await.unwrap();
    has_labels(&cluster, "a1", &[("region", Some("north"))]).await;
}

#[tokio::test]
async fn leaders_are_elected_among_ready_nodes_and_replaced() {
    let cluster = Cluster::start(&["a1", "a2", "a3"]).await;
    for name in ["a1", "a2", "a3"] {
        let address = format!("10.0.0.{}", &name[1..]);
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        let nodes = cluster.nodes();
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }
    cluster.set_ready("a3", "Unknown").await;
    create(
        &cluster,
        "a",
        json!({"enableLeaderElection": true, "interConnectivity": true,
        "leaderReplicas": 2, "leaderElectionStrategy": "random"}),
    )
    .await;
    leads(&cluster, &["a1", "a2"]).await;
    let pool = until(&cluster, "a", "true leaders", |pool| is_led(pool, "True")).await;
    assert!(pool.status.unwrap().leader_last_elected_time.is_some());
    cluster.set_ready("a3", "True").await;
    cluster.set_ready("a1", "Unknown").await;
    leads(&cluster, &["a2", "a3"]).await;
    let mark = json!({"spec": {"leaderElectionStrategy": "mark",
        "leaderNodeLabelSelector": {"kubernetes.io/hostname": "a3"}}});
    change(&cluster, "a", mark).await.unwrap();
    leads(&cluster, &["a3"]).await;
    until(&cluster, "a", "too few leaders", |pool| is_led(pool, "False")).await;
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    let shared = json!({"spec": {"poolScopeMetadata": [
        {"group": "discovery.k8s.io", "version": "v1", "resource": "endpoints"}]}});
    change(&cluster, "a", shared).await.unwrap();
    wait_for(roles, "the leaders' role", |roles| {
        roles.iter().any(|role| {
            role.metadata.name.as_deref() == Some(keys::HUB_LEADER_ROLE)
                && json!(role.rules) == json!([
                    {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
                    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpoints", "endpointslices"],
                     "verbs": ["list", "watch"]}])
        })
    })
    .await;
    // What no pool shares any more, no leader may read any more.
    change(&cluster, "a", json!({"spec": {"poolScopeMetadata": []}})).await.unwrap();
    wait_for(Api::<ClusterRole>::all(cluster.client.clone()), "a smaller role", |roles| {
        let named =
            |role: &&ClusterRole| role.metadata.name.as_deref() == Some(keys::HUB_LEADER_ROLE);
        !json!(roles.iter().find(named)).to_string().contains("\"endpoints\"")
    })
    .await;
    change(&cluster, "a", json!({"spec": {"enableLeaderElection": false}})).await.unwrap();
    until(&cluster, "a", "no leaders", |pool| {
        pool.status.as_ref().is_some_and(|status| status.leader_endpoints.is_empty())
    })
    .await;
    for name in ["a1", "a2", "a3"] {
        change_node(&cluster, name, json!({"metadata": {"labels": {keys::NODE_POOL: null}}})).await;
    }
    pools(&cluster).delete("a", &DeleteParams::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
    wait_for(maps, "no ConfigMap of leaders", |maps| {
        maps.iter().all(|map| map.metadata.name.as_deref() != Some("leader-hub-a"))
    })
    .await;
}

#[tokio::test]
async fn nodes_are_in_buckets() {
    let cluster = Cluster::start(&["a1", "a2"]).await;
    create(&cluster, "a", json!({})).await;
    let buckets: Api<NodeBucket> = Api::all(cluster.client.clone());
    let of = |expected: usize| {
        move |all: &[NodeBucket]| all.iter().map(|one| one.nodes.len()).eq([expected])
    };
    let first = wait_for(buckets.clone(), "two nodes in a bucket", of(2)).await;
    cluster.add_node("a3").await;
    let then = wait_for(buckets, "three nodes in it", of(3)).await;
    assert_eq!(first[0].metadata.uid, then[0].metadata.uid);
}

#[tokio::test]
async fn versions_of_a_pool_say_the_same_and_rules_hold() {
    let cluster = Cluster::start(&[]).await;
    let of = |version: &str| -> Api<DynamicObject> {
        let kind = ApiResource {
            group: "apps.openyurt.io".to_owned(),
            version: version.to_owned(),
            api_version: format!("apps.openyurt.io/{version}"),
            kind: "NodePool".to_owned(),
            plural: "nodepools".to_owned(),
        };
        Api::all_with(cluster.client.clone(), &kind)
    };
    let old = json!({"apiVersion": "apps.openyurt.io/v1alpha1", "kind": "NodePool", "metadata": {"name": "old"},
        "spec": {"type": "Cloud", "selector": {"matchLabels": {"apps.openyurt.io/nodepool": "old"}}}});
    let made =
        of("v1alpha1").create(&PostParams::default(), &serde_json::from_value(old).unwrap()).await;
    let spec = made.unwrap().data["spec"].clone();
    for version in ["v1beta1", "v1beta2"] {
        assert_eq!(of(version).get("old").await.unwrap().data["spec"], spec, "{version}");
    }
    for selector in [
        json!({"matchLabels": {"apps.openyurt.io/nodepool": "old"}}),
        json!({"matchLabels": {"area": "east"}}),
        json!({"matchExpressions": [{"key": "area", "operator": "Exists"}]}),
    ] {
        let wide = json!({"apiVersion": "apps.openyurt.io/v1alpha1", "kind": "NodePool",
            "metadata": {"name": "wide"}, "spec": {"selector": selector}});
        let wide = serde_json::from_value(wide).unwrap();
        let refused = of("v1alpha1").create(&PostParams::default(), &wide).await.unwrap_err();
        let told = "nodes are in a pool by their label apps.openyurt.io/nodepool alone";
        assert!(refused.to_string().contains(told), "pools that overlap: {refused}");
    }
    assert_eq!(of("v1beta2").list(&ListParams::default()).await.unwrap().items.len(), 1);
    for (patch, why) in [
        (json!({"spec": {"type": "Edge"}}), "the type of a pool cannot be changed"),
        (json!({"spec": {"hostNetwork": true}}), "hostNetwork of a pool cannot be changed"),
        (
            json!({"spec": {"interConnectivity": true}}),
            "interConnectivity of a pool cannot be changed",
        ),
        (json!({"spec": {"leaderElectionStrategy": "best"}}), "leaderElectionStrategy"),
        (json!({"spec": {"taints": [{"key": "k", "effect": "Never"}]}}), "taints"),
    ] {
        let error = change(&cluster, "old", patch).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
