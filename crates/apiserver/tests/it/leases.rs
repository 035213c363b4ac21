//! Nodes' Leases: those that sessions keep, and those that are renewed in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use toono_apiserver::Liveness;

use crate::{cluster::Cluster, programs::programs};

const NAMESPACE: &str = "kube-node-lease";
const PATIENCE: Duration = Duration::from_secs(30);

/// What a fleet would know.
#[derive(Default)]
struct Known {
    heard: Mutex<HashMap<String, Timestamp>>,
    renewed: Mutex<Vec<String>>,
}

impl Liveness for Known {
    fn heard(&self, nodes: &[&str]) -> Vec<Option<Timestamp>> {
        let heard = self.heard.lock().unwrap();
        nodes.iter().map(|node| heard.get(*node).copied()).collect()
    }

    fn renewed(&self, node: &str, unseen: Duration) {
        assert_eq!(unseen, Duration::ZERO, "nobody shares the journal");
        self.renewed.lock().unwrap().push(node.to_owned());
    }
}

struct World {
    cluster: Cluster,
    known: Arc<Known>,
    nodes: Api<Node>,
    leases: Api<Lease>,
}

impl World {
    async fn start() -> Self {
        Self::of(Cluster::start().await)
    }

    fn of(cluster: Cluster) -> Self {
        let known = Arc::new(Known::default());
        cluster.api.set_liveness(known.clone());
        let (nodes, leases) =
            (Api::all(cluster.client()), Api::namespaced(cluster.client(), NAMESPACE));
        Self { cluster, known, nodes, leases }
    }

    /// Registers a Node; one with a session as the fleet does.
    async fn add_node(&self, name: &str, session: bool) -> Node {
        let annotations = session.then(|| json!({"toono.io/session-index": "7"}));
        let node = json!({"metadata": {"name": name, "annotations": annotations}});
        let node = serde_json::from_value(node).unwrap();
        self.nodes.create(&PostParams::default(), &node).await.unwrap();
        self.set_ready(name, "Unknown").await
    }

    async fn set_ready(&self, name: &str, ready: &str) -> Node {
        let status = json!({"status": {"conditions": [
            {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "2026-01-01T00:00:00Z"},
            {"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}});
        let patch = Patch::Merge(&status);
        self.nodes.patch_status(name, &PatchParams::default(), &patch).await.unwrap()
    }

    async fn label_node(&self, name: &str, value: &str) {
        let labels = json!({"metadata": {"labels": {"a": value}}});
        self.nodes.patch(name, &PatchParams::default(), &Patch::Merge(&labels)).await.unwrap();
    }

    /// A Lease as a kubelet makes it.
    async fn add_lease(&self, name: &str) -> Result<Lease, kube::Error> {
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name,
            "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}});
        self.leases.create(&as_kubelet(), &serde_json::from_value(lease).unwrap()).await
    }

    /// Renews it as a kubelet does: what it was answered, with a new time.
    async fn renew(&self, lease: &Lease, time: &str) -> Result<Lease, kube::Error> {
        let mut renewed = lease.clone();
        renewed.spec.as_mut().unwrap().renew_time = Some(MicroTime(time.parse().unwrap()));
        self.leases.replace(lease.metadata.name.as_deref().unwrap(), &as_kubelet(), &renewed).await
    }

    async fn watch(&self, since: &str) -> Watch {
        let events = self.leases.watch(&WatchParams::default(), since).await.unwrap();
        Watch { events: events.boxed(), revision: since.parse().unwrap() }
    }

    async fn list(&self) -> (Vec<Lease>, String) {
        let list = self.leases.list(&ListParams::default()).await.unwrap();
        (list.items, list.metadata.resource_version.unwrap())
    }
}

fn as_kubelet() -> PostParams {
    PostParams { field_manager: Some("kubelet".to_owned()), ..PostParams::default() }
}

fn renew_time(lease: &Lease) -> String {
    lease.spec.as_ref().unwrap().renew_time.as_ref().unwrap().0.to_string()
}

fn version(lease: &Lease) -> u64 {
    lease.metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

fn code(answer: Result<impl Sized, kube::Error>) -> u16 {
    match answer {
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => unreachable!("{error}"),
        Ok(_) => 200,
    }
}

/// A watch whose revisions only grow.
struct Watch {
    events: BoxStream<'static, Result<WatchEvent<Lease>, kube::Error>>,
    revision: u64,
}

impl Watch {
    async fn next(&mut self) -> (&'static str, Lease) {
        let event = tokio::time::timeout(PATIENCE, self.events.try_next()).await.expect("an event");
        let (kind, lease) = match event.unwrap().expect("the watch goes on") {
            WatchEvent::Added(lease) => ("ADDED", lease),
            WatchEvent::Modified(lease) => ("MODIFIED", lease),
            WatchEvent::Deleted(lease) => ("DELETED", lease),
            other => unreachable!("{other:?}"),
        };
        assert!(version(&lease) > self.revision, "{} after {}", version(&lease), self.revision);
        self.revision = version(&lease);
        (kind, lease)
    }
}

#[tokio::test]
async fn a_session_keeps_a_lease_that_nobody_writes() {
    let world = World::start().await;
    let node = world.add_node("edge-1", true).await;
    world.add_node("stock", false).await;
    let revision = world.cluster.api.store().revision();
    let unheard = world.leases.get("edge-1").await.unwrap();
    assert_eq!(renew_time(&unheard), "2026-01-01T00:00:00Z", "as the node's status says");
    let heard: Timestamp = "2026-02-03T04:05:06.789012345Z".parse().unwrap();
    world.known.heard.lock().unwrap().insert("edge-1".to_owned(), heard);

    let lease = world.leases.get("edge-1").await.unwrap();
    assert_eq!(world.list().await.0, std::slice::from_ref(&lease));
    assert_eq!(renew_time(&lease), "2026-02-03T04:05:06.789012Z");
    assert_eq!(lease.metadata.resource_version, node.metadata.resource_version);
    assert_eq!(lease.metadata.creation_timestamp, node.metadata.creation_timestamp);
    assert_eq!(lease.metadata.uid, unheard.metadata.uid);
    assert_ne!(lease.metadata.uid, node.metadata.uid);
    let owner = lease.metadata.owner_references.as_ref().unwrap().first().unwrap();
    assert_eq!(
        (&*owner.kind, &*owner.name, Some(&owner.uid)),
        ("Node", "edge-1", node.metadata.uid.as_ref())
    );
    let spec = lease.spec.as_ref().unwrap();
    assert_eq!(
        (spec.holder_identity.as_deref(), spec.lease_duration_seconds),
        (Some("edge-1"), Some(40))
    );

    // Who renews it anyway is heard; nothing of all this is written.
    let renewed = world.renew(&lease, "2026-02-03T04:05:07Z").await.unwrap();
    assert_eq!(renew_time(&renewed), "2026-02-03T04:05:07Z");
    assert_eq!(*world.known.renewed.lock().unwrap(), ["edge-1"]);
    assert_eq!(code(world.add_lease("edge-1").await), 409);
    assert_eq!(code(world.leases.delete("edge-1", &DeleteParams::default()).await), 403);
    world.leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert_eq!(world.cluster.api.store().revision(), revision);

    for selector in ["toono.io/lease!=session", "a=b"] {
        let none = world.leases.list(&ListParams::default().labels(selector)).await.unwrap();
        assert!(none.items.is_empty(), "{selector}");
    }
    for program in programs() {
        let k = async |args: &[&str]| world.cluster.kubectl(program, args).await;
        let listed = k(&["get", "lease", "-n", NAMESPACE, "--no-headers"]).await;
        let words: Vec<_> = listed.split_whitespace().take(2).collect();
        assert_eq!(words, ["edge-1", "edge-1"], "{listed}");
        let yaml = k(&["get", "node", "edge-1", "-o", "yaml"]).await;
        assert!(yaml.contains("lastHeartbeatTime: \"2026-02-03T04:05:06Z\""), "{yaml}");
        assert!(yaml.contains("lastHeartbeatTime: \"2026-01-01T00:00:00Z\""), "of others: {yaml}");
        let all = k(&[
            "get",
            "nodes",
            "-o",
            "jsonpath={.items[*].status.conditions[1].lastHeartbeatTime}",
        ])
        .await;
        assert_eq!(all, "2026-02-03T04:05:06Z 2026-01-01T00:00:00Z");
    }
    world.cluster.stop().await;
}

#[tokio::test]
async fn a_watch_sees_changes_of_readiness_and_not_renewals() {
    let world = World::start().await;
    let (_, since) = world.list().await;
    let mut watch = world.watch(&since).await;
    let added = world.add_node("edge-1", true).await;
    let (kind, first) = watch.next().await;
    assert_eq!((kind, first.metadata.name.as_deref()), ("ADDED", Some("edge-1")));
    assert_eq!(watch.next().await.0, "MODIFIED", "it has a Ready condition now");
    assert_eq!(watch.revision.to_string(), added.metadata.resource_version.unwrap());

    world.label_node("edge-1", "x").await;
    world.renew(&world.leases.get("edge-1").await.unwrap(), "2026-02-03T04:05:07Z").await.unwrap();
    let ready = world.set_ready("edge-1", "True").await;
    let (kind, lease) = watch.next().await;
    assert_eq!(
        (kind, lease.metadata.resource_version),
        ("MODIFIED", ready.metadata.resource_version)
    );

    // What a client adds makes it an object of its own, until that is deleted.
    let labels = json!({"metadata": {"labels": {"mine": "1"}}});
    let patch = Patch::Merge(&labels);
    let own = world.leases.patch("edge-1", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(own.metadata.uid, first.metadata.uid);
    assert_eq!(watch.next().await, ("MODIFIED", own.clone()));
    world.set_ready("edge-1", "False").await;
    world.leases.delete("edge-1", &DeleteParams::default()).await.unwrap();
    let (kind, again) = watch.next().await;
    assert_eq!((kind, &again.metadata.uid), ("MODIFIED", &first.metadata.uid));
    assert_eq!(again.metadata.labels.unwrap().get("mine"), None);

    world.nodes.delete("edge-1", &DeleteParams::default()).await.unwrap();
    let (kind, gone) = watch.next().await;
    assert_eq!((kind, gone.metadata.uid), ("DELETED", first.metadata.uid));
    assert!(world.leases.get_opt("edge-1").await.unwrap().is_none());
    world.cluster.stop().await;
}

#[tokio::test]
async fn renewals_stay_in_memory_and_all_else_is_written() {
    let world = World::start().await;
    world.add_node("stock", false).await;
    let made = world.add_lease("stock").await.unwrap();
    let revision = world.cluster.api.store().revision();
    let mut lease = made.clone();
    for second in 1..=5 {
        let time = format!("2026-01-01T00:00:0{second}Z");
        lease = world.renew(&lease, &time).await.unwrap();
        assert_eq!(renew_time(&lease), time);
        assert_eq!(world.leases.get("stock").await.unwrap(), lease);
        assert_eq!(world.list().await.0, [lease.clone()]);
    }
    assert_eq!(world.cluster.api.store().revision(), revision, "nothing was written");
    assert_eq!(lease.metadata.managed_fields, made.metadata.managed_fields);
    // The same time again is the newest all the same.
    let back = world.renew(&lease, "2026-01-01T00:00:00Z").await.unwrap();
    assert_eq!(world.leases.get("stock").await.unwrap(), back);

    // Another's write takes the newest time along, and makes the version that a kubelet has the old one.
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let patch = Patch::Merge(&labels);
    let lease = world.renew(&lease, "2026-01-01T00:00:06Z").await.unwrap();
    let labelled = world.leases.patch("stock", &PatchParams::default(), &patch).await.unwrap();
    assert!(world.cluster.api.store().revision() > revision);
    assert_eq!(renew_time(&labelled), "2026-01-01T00:00:06Z");
    assert_eq!(code(world.renew(&lease, "2026-01-01T00:00:07Z").await), 409);
    let lease = world.renew(&labelled, "2026-01-01T00:00:08Z").await.unwrap();

    // Everyone was heard by each of them: those in memory at once, those that were written by the store.
    let told = async {
        while world.known.renewed.lock().unwrap().len() < 8 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(world.known.renewed.lock().unwrap().iter().all(|node| node == "stock"));

    // After a restart it may tell an older time, but what the kubelet has is still the present version.
    // Clients in the process are the server.
    let World { cluster, nodes, leases, known } = world;
    drop((nodes, leases, known));
    let world = World::of(cluster.restart().await);
    let after = world.leases.get("stock").await.unwrap();
    assert_eq!(renew_time(&after), "2026-01-01T00:00:06Z");
    assert_eq!(after.metadata.resource_version, lease.metadata.resource_version);
    world.renew(&lease, "2026-01-01T00:00:09Z").await.unwrap();
    let taken_over = json!({"spec": {"holderIdentity": "other"}});
    let patch = Patch::Merge(&taken_over);
    let other = world.leases.patch("stock", &PatchParams::default(), &patch).await.unwrap();
    assert_ne!(other.metadata.resource_version, lease.metadata.resource_version);
    assert_eq!(renew_time(&other), "2026-01-01T00:00:09Z");
    // A candidate's Lease of another namespace is written each time.
    let leases: Api<Lease> = Api::default_namespaced(world.cluster.client());
    let lease = json!({"metadata": {"name": "leader"}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
    let lease =
        leases.create(&as_kubelet(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    let mut renewed = lease.clone();
    renewed.spec.as_mut().unwrap().renew_time =
        Some(MicroTime("2026-01-01T00:00:01Z".parse().unwrap()));
    let renewed = leases.replace("leader", &as_kubelet(), &renewed).await.unwrap();
    assert!(version(&renewed) > version(&lease));
    world.cluster.stop().await;
}

/// The Leases as a client keeps them that lists once and then watches.
struct Informer {
    watch: Watch,
    leases: BTreeMap<String, Value>,
}

/// What is the same however a Lease was come by.
fn gist(lease: &Lease) -> Value {
    json!([lease.metadata.uid, lease.metadata.labels, lease.spec.as_ref().unwrap().holder_identity])
}

fn name_of(lease: &Lease) -> String {
    lease.metadata.name.clone().unwrap()
}

impl Informer {
    async fn start(world: &World) -> Self {
        let (items, revision) = world.list().await;
        let leases = items.iter().map(|lease| (name_of(lease), gist(lease))).collect();
        Self { watch: world.watch(&revision).await, leases }
    }

    /// Takes events up to a revision.
    async fn catch_up(&mut self, last: &Lease) {
        while self.watch.revision < version(last) {
            let (kind, lease) = self.watch.next().await;
            let known = self.leases.remove(&name_of(&lease));
            assert_eq!(known.is_some(), kind != "ADDED", "{kind} {lease:?} with {known:?}");
            if kind != "DELETED" {
                self.leases.insert(name_of(&lease), gist(&lease));
            }
        }
    }
}

#[tokio::test]
async fn who_lists_and_watches_knows_what_who_lists_again_knows() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::start().await;
    let mut informers = vec![Informer::start(&world).await];
    for round in 0..400_u32 {
        let name = format!("n{}", random.u8(..6));
        let ready = ["True", "False", "Unknown"][random.usize(..3)];
        let delete = DeleteParams::default();
        let labels = json!({"metadata": {"labels": {"round": round.to_string()}}});
        let patch = Patch::Merge(&labels);
        let there = world.nodes.get_opt(&name).await.unwrap().is_some();
        match random.u8(..9) {
            0 if !there => drop(world.add_node(&name, random.bool()).await),
            1 if there => drop(world.nodes.delete(&name, &delete).await.unwrap()),
            2 | 3 if there => drop(world.set_ready(&name, ready).await),
            4 if there => world.label_node(&name, &round.to_string()).await,
            5 => drop(world.add_lease(&name).await),
            6 => drop(world.leases.delete(&name, &delete).await),
            7 => drop(world.leases.patch(&name, &PatchParams::default(), &patch).await),
            8 => {
                if let Some(lease) = world.leases.get_opt(&name).await.unwrap() {
                    world.renew(&lease, &format!("2026-01-01T00:00:00.{round:06}Z")).await.unwrap();
                }
            }
            _ => {}
        }
        if round % 40 == 0 {
            informers.push(Informer::start(&world).await);
        }
    }
    // Seen last by everyone: its event is the end of theirs.
    let last = world.add_lease("last").await.unwrap();
    let (items, _) = world.list().await;
    let listed: BTreeMap<_, _> = items.iter().map(|lease| (name_of(lease), gist(lease))).collect();
    for informer in &mut informers {
        informer.catch_up(&last).await;
        assert_eq!(informer.leases, listed);
    }
    world.cluster.stop().await;
}

#[tokio::test]
async fn pages_hold_both_kinds_of_leases_in_one_order() {
    let world = World::start().await;
    let (elsewhere, later) =
        (Api::<Lease>::default_namespaced(world.cluster.client()), "zz-after-all");
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.cluster.client());
    let namespace = json!({"metadata": {"name": later}});
    let namespace = serde_json::from_value(namespace).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let lease = |name: &str| serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    elsewhere.create(&PostParams::default(), &lease("first")).await.unwrap();
    let after: Api<Lease> = Api::namespaced(world.cluster.client(), later);
    after.create(&PostParams::default(), &lease("last")).await.unwrap();
    let mut expected = vec!["first".to_owned()];
    for number in 0..12 {
        let name = format!("n{number:02}");
        // A third has neither, a third a Lease of its own, a third one that its session keeps.
        world.add_node(&name, number % 3 == 0).await;
        if number % 3 == 1 {
            world.add_lease(&name).await.unwrap();
        }
        if number % 3 < 2 {
            expected.push(name);
        }
    }
    expected.push("last".to_owned());
    let all: Api<Lease> = Api::all(world.cluster.client());
    for limit in 1..=12 {
        let (mut names, mut token) = (Vec::new(), None);
        loop {
            let params =
                ListParams { limit: Some(limit), continue_token: token, ..ListParams::default() };
            let page = all.list(&params).await.unwrap();
            assert!(page.items.len() <= usize::try_from(limit).unwrap());
            names.extend(page.items.iter().map(name_of));
            token = page.metadata.continue_.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        assert_eq!(names, expected, "in pages of {limit}");
    }
    world.cluster.stop().await;
}
