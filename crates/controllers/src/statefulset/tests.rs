//! Stateful sets from the first pod to the last, with pretended nodes.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    plan::{Act, Plan, Revisions},
    pod,
    view::{View, revision},
};
use crate::{kinds::pod::cached, object::Metadata};

struct World {
    set: StatefulSet,
    pods: Vec<Pod>,
    current: String,
    update: String,
    now: Timestamp,
    made: usize,
}

fn set(spec: Value) -> StatefulSet {
    let mut set = json!({"metadata": {"name": "web", "namespace": "ns", "uid": "set"}, "spec": {
        "replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}});
    set["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(set).unwrap()
}

impl World {
    fn new(spec: Value) -> Self {
        Self {
            set: set(spec),
            pods: Vec::new(),
            current: "one".to_owned(),
            update: "one".to_owned(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            made: 0,
        }
    }

    fn with<R>(&self, test: impl FnOnce(&View<'_>, &Plan<'_>) -> R) -> R {
        let view = View::new(&self.set, self.set.spec.as_ref().unwrap());
        let revisions = Revisions { current: &self.current, update: &self.update };
        let pods: Vec<_> = self.pods.iter().map(cached).collect();
        test(&view, &Plan::new(&view, revisions, &pods, self.now))
    }

    /// Does what is to be done; tells it.
    fn step(&mut self) -> Vec<String> {
        let acts = self.with(|_, plan| plan.acts());
        let mut told = Vec::new();
        for act in acts {
            let name = |pod: &Pod| pod.metadata.name.clone().unwrap();
            match act {
                Act::Create { ordinal, current } => {
                    let revision = if current { &self.current } else { &self.update };
                    let template = &self.set.spec.as_ref().unwrap().template;
                    let mut pod =
                        self.with(|view, _| pod::pod(&self.set, view, template, revision, ordinal));
                    self.made += 1;
                    pod.metadata.uid = Some(self.made.to_string());
                    told.push(format!("+{}", name(&pod)));
                    assert!(self.pods.iter().all(|known| known.metadata.name != pod.metadata.name));
                    self.pods.push(pod);
                }
                Act::Repair(..) => {}
                Act::Recreate(pod) | Act::Condemn(pod) | Act::Replace(pod) => {
                    told.push(format!("-{}", pod.metadata.name()));
                    let known = self
                        .pods
                        .iter_mut()
                        .find(|known| known.metadata.uid() == pod.metadata.uid())
                        .unwrap();
                    known.metadata.deletion_timestamp = Some(Time(self.now));
                }
            }
        }
        if self.with(|_, plan| plan.is_rolled_out()) {
            self.current.clone_from(&self.update);
        }
        told
    }

    fn find(&mut self, name: &str) -> &mut Pod {
        self.pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap()
    }

    fn ready(&mut self, name: &str) {
        let now = self.now;
        self.find(name).status = serde_json::from_value(json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": now}]}))
        .unwrap();
    }

    fn phase(&mut self, name: &str, phase: &str) {
        self.find(name).status.get_or_insert_default().phase = Some(phase.to_owned());
    }

    /// Nodes end what is deleted and start what is new.
    fn nodes(&mut self) {
        self.pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        let names: Vec<_> = self.pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        for name in names {
            if self.find(&name).status.is_none() {
                self.ready(&name);
            }
        }
    }

    /// All that is done until nothing is left to do.
    fn settle(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..100 {
            let step = self.step();
            let quiet = step.is_empty();
            told.extend(step);
            let before = self.pods.clone();
            self.nodes();
            if quiet && before == self.pods {
                break;
            }
        }
        told
    }

    fn spec(&mut self) -> &mut k8s_openapi::api::apps::v1::StatefulSetSpec {
        self.set.spec.as_mut().unwrap()
    }

    fn revisions(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self
            .pods
            .iter()
            .map(|pod| (pod.metadata.name.clone().unwrap(), revision(&cached(pod)).to_owned()))
            .collect();
        all.sort();
        all
    }
}

#[test]
fn pods_have_an_identity_and_their_own_storage() {
    let set = set(json!({"ordinals": {"start": 5}, "volumeClaimTemplates": [
        {"metadata": {"name": "data", "labels": {"l": "v"}}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]}));
    let spec = set.spec.as_ref().unwrap();
    let view = View::new(&set, spec);
    let pod = pod::pod(&set, &view, &spec.template, "web-abc", 5);
    let pod = serde_json::to_value(&pod).unwrap();
    assert_eq!(pod["metadata"]["name"], "web-5");
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "web", "controller-revision-hash": "web-abc",
            "statefulset.kubernetes.io/pod-name": "web-5", "apps.kubernetes.io/pod-index": "5"})
    );
    assert_eq!(
        (&pod["spec"]["hostname"], &pod["spec"]["subdomain"]),
        (&json!("web-5"), &json!("svc"))
    );
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-5"}}])
    );
    let claims = pod::claims(&view, spec, 5);
    assert_eq!(claims[0]["metadata"]["name"], "data-web-5");
    assert_eq!(claims[0]["metadata"]["labels"], json!({"app": "web", "l": "v"}));
    assert_eq!(claims[0]["spec"]["resources"]["requests"]["storage"], "1Gi");
}

#[test]
fn ordered_sets_grow_up_and_shrink_down() {
    let mut world = World::new(json!({}));
    assert_eq!(world.step(), ["+web-0"]);
    assert!(world.step().is_empty(), "the first is not ready");
    assert_eq!(world.settle(), ["+web-1", "+web-2"]);
    world.spec().replicas = Some(1);
    assert_eq!(world.step(), ["-web-2"]);
    assert!(world.step().is_empty(), "the last is not gone");
    assert_eq!(world.settle(), ["-web-1"]);
    world.spec().replicas = Some(2);
    world.phase("web-0", "Pending");
    assert!(world.step().is_empty(), "its predecessor is not ready");
}

#[test]
fn an_unready_pod_holds_up_the_scaling_down_of_others() {
    let mut world = World::new(json!({}));
    world.settle();
    world.spec().replicas = Some(0);
    world.phase("web-0", "Pending");
    assert!(world.step() == ["-web-2"]);
    world.nodes();
    world.phase("web-1", "Pending");
    assert!(world.step().is_empty(), "the first unhealthy one is web-0");
    world.ready("web-0");
    assert_eq!(world.step(), ["-web-1"]);
}

#[test]
fn parallel_sets_do_all_at_once() {
    let mut world = World::new(json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(world.step(), ["+web-0", "+web-1", "+web-2"]);
    world.spec().replicas = Some(0);
    assert_eq!(world.step(), ["-web-2", "-web-1", "-web-0"]);
}

#[test]
fn updates_go_from_the_top_down_to_the_partition() {
    let mut world = World::new(json!({"updateStrategy": {"type": "RollingUpdate",
        "rollingUpdate": {"partition": 1}}}));
    world.settle();
    world.update = "two".to_owned();
    assert_eq!(world.settle(), ["-web-2", "+web-2", "-web-1", "+web-1"]);
    assert_eq!(
        world.revisions().iter().map(|(_, revision)| revision.as_str()).collect::<Vec<_>>(),
        ["one", "two", "two"]
    );
    assert_eq!(world.current, "one");
    world.find("web-0").metadata.deletion_timestamp = Some(Time(world.now));
    world.nodes();
    assert_eq!(world.settle(), ["+web-0"]);
    assert_eq!(world.revisions()[0].1, "one", "below the partition the old one comes back");
    let strategy = world.spec().update_strategy.as_mut().unwrap();
    strategy.rolling_update.as_mut().unwrap().partition = Some(0);
    assert_eq!(world.settle(), ["-web-0", "+web-0"]);
    assert_eq!(world.current, "two", "rolled out");
}

#[test]
fn as_many_may_be_unavailable_as_is_said() {
    let mut world = World::new(json!({"replicas": 5, "podManagementPolicy": "Parallel",
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": "40%"}}}));
    world.settle();
    world.update = "two".to_owned();
    assert_eq!(world.step(), ["-web-4", "-web-3"]);
    assert!(world.step().is_empty());
    world.pods.retain(|pod| pod.metadata.name.as_deref() != Some("web-4"));
    assert_eq!(world.step(), ["+web-4"]);
    world.ready("web-4");
    assert_eq!(world.step(), ["-web-2"]);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = World::new(json!({"updateStrategy": {"type": "OnDelete"}}));
    world.settle();
    world.update = "two".to_owned();
    assert!(world.settle().is_empty());
    world.find("web-1").metadata.deletion_timestamp = Some(Time(world.now));
    world.nodes();
    assert_eq!(world.settle(), ["+web-1"]);
    assert_eq!(world.revisions()[1].1, "two");
}

#[test]
fn broken_pods_are_made_anew() {
    let mut world = World::new(json!({}));
    world.settle();
    world.phase("web-1", "Failed");
    assert_eq!(world.settle(), ["-web-1", "+web-1"]);
    world.phase("web-0", "Succeeded");
    assert_eq!(world.settle(), ["-web-0", "+web-0"]);
}

#[test]
fn who_is_ready_for_too_short_a_time_is_not_available() {
    let mut world = World::new(json!({"minReadySeconds": 10, "replicas": 2}));
    world.step();
    world.ready("web-0");
    assert!(world.step().is_empty());
    let counts = world.with(|_, plan| plan.counts());
    assert_eq!((counts.ready, counts.available), (1, 0));
    world.now += SignedDuration::from_secs(10);
    assert_eq!(world.step(), ["+web-1"]);
}

#[test]
fn changed_ordinals_move_the_set() {
    let mut world = World::new(json!({"replicas": 2}));
    world.settle();
    world.spec().ordinals.get_or_insert_default().start = Some(1);
    assert_eq!(world.settle(), ["+web-2", "-web-0"]);
}

proptest! {
    /// However pods come and go, an ordered set never makes a pod above one that is not there, and
    /// once left alone it has exactly the pods that it asks for, of the revision that it asks for.
    #[test]
    fn sets_converge_in_order(
        parallel: bool,
        partition in 0i32..3,
        events in prop::collection::vec((0u8..6, 0i32..5), 0..40),
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let mut world = World::new(json!({"podManagementPolicy": policy,
            "updateStrategy": {"rollingUpdate": {"partition": partition}}}));
        for (event, number) in events {
            let name = format!("web-{number}");
            let there = world.pods.iter().any(|pod| pod.metadata.name.as_deref() == Some(&name));
            match event {
                0 => world.spec().replicas = Some(number),
                1 => world.update = if number % 2 == 0 { "one" } else { "two" }.to_owned(),
                2 if there => world.phase(&name, "Failed"),
                3 if there => world.ready(&name),
                4 if there => {
                    world.pods.retain(|pod| pod.metadata.name.as_deref() != Some(name.as_str()));
                }
                _ => world.nodes(),
            }
            let before = world.pods.clone();
            let told = world.step();
            if !parallel {
                prop_assert!(told.len() <= 1, "one thing at a time: {:?}", told);
                if let Some(made) = told.first().and_then(|told| told.strip_prefix("+web-")) {
                    let ordinal: i32 = made.parse().unwrap();
                    for lower in 0..ordinal {
                        let name = format!("web-{lower}");
                        let ready = before.iter().any(|pod| {
                            pod.metadata.name.as_deref() == Some(&name)
                                && super::view::is_running_and_ready(&cached(pod))
                        });
                        prop_assert!(ready, "{} was made before {} was ready", made, name);
                    }
                }
            }
        }
        world.settle();
        let replicas = world.set.spec.as_ref().unwrap().replicas.unwrap();
        let names: Vec<_> = world.revisions().into_iter().map(|(name, _)| name).collect();
        let wanted: Vec<_> = (0..replicas).map(|ordinal| format!("web-{ordinal}")).collect();
        prop_assert_eq!(names, wanted);
        for (index, (_, revision)) in world.revisions().iter().enumerate() {
            if index >= usize::try_from(partition).unwrap() {
                prop_assert_eq!(revision, &world.update);
            }
        }
    }
}
