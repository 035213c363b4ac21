//! Jobs from the first pod to the last, with a pretended API and pretended nodes.

use std::{collections::HashSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobStatus},
        core::v1::Pod as WholePod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    backoff::Record,
    facts::{self, FINALIZER},
    survey::{Step, Survey},
    template, track,
};
use crate::{
    kinds::pod::{Pod, cached},
    pods::{is_active, uid},
};

/// Where a sync is killed, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    No,
    BeforeStatus,
    BeforeRelease,
    BeforeCounting,
}

struct World {
    job: Job,
    pods: Vec<WholePod>,
    backoff: Record,
    now: Timestamp,
    made: usize,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut job = json!({"metadata": {"name": "j", "namespace": "ns", "uid": "j"}, "spec": {
            "template": {"metadata": {"labels": {"job-name": "j"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}});
        job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Self {
            job: serde_json::from_value(job).unwrap(),
            pods: Vec::new(),
            backoff: Record::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            made: 0,
        }
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn condition(&self, type_: &str) -> Option<String> {
        facts::true_condition(&self.job, type_)
            .map(|condition| condition.reason.clone().unwrap_or_default())
    }

    fn active(&self) -> Vec<usize> {
        (0..self.pods.len()).filter(|index| is_active(&cached(&self.pods[*index]))).collect()
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Ends a running pod as a node would tell it.
    fn end(&mut self, index: usize, exit_code: i32) {
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        let status = json!({"phase": phase, "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": exit_code, "finishedAt": self.now}}}]});
        self.pods[index].status = serde_json::from_value(status).unwrap();
    }

    fn sync(&mut self, killed: Killed) -> Option<Duration> {
        if facts::finished(&self.job).is_some() {
            return None;
        }
        let job = self.job.clone();
        let spec = job.spec.as_ref().unwrap();
        let pods: Vec<_> = self.pods.iter().map(cached).collect();
        let nothing = HashSet::new();
        let survey = Survey::new(&job, spec, pods, &nothing, self.backoff, self.now);
        let mut status = survey.current_status();
        let (mut wait, mut ending) = (None, survey.ending());
        if ending.is_some() {
            track::leave(&mut status, &survey.active);
            survey.active.iter().for_each(|pod| self.delete(pod, false));
        } else {
            match survey.step() {
                Step::Nothing => {}
                Step::Wait(pause) => wait = Some(pause),
                Step::Create(indexes) => {
                    status.active =
                        Some(status.active.unwrap_or(0) + i32::try_from(indexes.len()).unwrap());
                    for index in indexes {
                        let before = index.and_then(|index| survey.to_replace.get(&index));
                        self.create(template::pod(&job, spec, index, before.map(|pod| &**pod)));
                    }
                }
                Step::Delete(pods) => {
                    track::leave(&mut status, &pods);
                    pods.iter().for_each(|pod| self.delete(pod, true));
                }
            }
            ending = survey.completion(status.active.unwrap_or(0));
        }
        if killed == Killed::BeforeStatus {
            return wait;
        }
        let mut tracked = track::track(&survey, status, ending.as_ref());
        self.job.status = Some(tracked.status.clone());
        self.backoff = survey.backoff;
        if killed == Killed::BeforeRelease {
            return wait;
        }
        for pod in &tracked.release {
            self.release(pod);
            tracked.held.remove(uid(&pod.metadata));
        }
        self.collect();
        if killed == Killed::BeforeCounting {
            return wait;
        }
        track::settle(&mut tracked.status, &tracked.held);
        if let Some(ending) = ending.filter(|_| !tracked.full) {
            track::finish(&mut tracked.status, &ending, self.now);
        }
        self.job.status = Some(tracked.status);
        wait
    }

    fn create(&mut self, mut pod: WholePod) {
        self.made += 1;
        pod.metadata.uid = Some(format!("pod-{:04}", self.made));
        pod.metadata.creation_timestamp = Some(Time(self.now));
        self.pods.push(pod);
    }

    fn find(&mut self, pod: &Pod) -> Option<&mut WholePod> {
        self.pods.iter_mut().find(|known| uid(&known.metadata) == uid(&pod.metadata))
    }

    fn release(&mut self, pod: &Pod) {
        if let Some(pod) = self.find(pod) {
            pod.metadata.finalizers.get_or_insert_default().retain(|name| name != FINALIZER);
        }
    }

    fn delete(&mut self, pod: &Pod, release: bool) {
        let now = Time(self.now);
        if release {
            self.release(pod);
        }
        if let Some(pod) = self.find(pod) {
            pod.metadata.deletion_timestamp = Some(now);
        }
        self.collect();
    }

    /// Deleted pods that nothing holds are gone; pretended nodes need no grace.
    fn collect(&mut self) {
        self.pods.retain(|pod| {
            pod.metadata.deletion_timestamp.is_none() || facts::is_tracked(&cached(pod))
        });
        for pod in &mut self.pods {
            if facts::is_terminating(&cached(pod)) {
                pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            self.sync(Killed::No);
        }
    }

    /// Lets `count` pods end, the oldest first.
    fn end_some(&mut self, count: usize, exit_code: i32) {
        for index in self.active().into_iter().take(count) {
            self.end(index, exit_code);
        }
        self.settle();
    }
}

#[test]
fn as_many_as_parallelism_until_all_completions_are_there() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 3}));
    world.settle();
    assert_eq!((world.active().len(), world.status().active), (2, Some(2)));
    world.end_some(2, 0);
    assert_eq!((world.active().len(), world.status().succeeded), (1, Some(2)));
    world.end_some(1, 0);
    let status = world.status();
    assert_eq!((status.active, status.succeeded, status.failed), (None, Some(3), None));
    assert_eq!(world.condition("SuccessCriteriaMet").as_deref(), Some("CompletionsReached"));
    assert_eq!(world.condition("Complete").as_deref(), Some("CompletionsReached"));
    assert!(status.completion_time.is_some() && world.made == 3);
    assert!(world.pods.iter().all(|pod| !facts::is_tracked(&cached(pod))), "pods are let go");
}

#[test]
fn without_completions_one_success_ends_it() {
    let mut world = World::new(json!({"parallelism": 3}));
    world.settle();
    world.end_some(1, 0);
    assert_eq!((world.active().len(), world.made), (2, 3), "no more pods, but those go on");
    world.end_some(2, 1);
    assert!(world.condition("Complete").is_some());
}

#[test]
fn failures_are_retried_later_and_later_up_to_the_limit() {
    let mut world = World::new(json!({"completions": 1, "backoffLimit": 2}));
    for (attempt, pause) in [(1, 10), (2, 20)] {
        world.settle();
        assert_eq!(world.made, attempt);
        world.end_some(1, 1);
        assert_eq!(world.sync(Killed::No), Some(Duration::from_secs(pause)));
        assert_eq!(
            (world.active().len(), world.status().failed),
            (0, Some(i32::try_from(attempt).unwrap()))
        );
        world.pass(i64::try_from(pause).unwrap());
    }
    world.settle();
    world.end_some(1, 1);
    assert_eq!(world.condition("FailureTarget").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(world.condition("Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!((world.made, world.status().failed), (3, Some(3)));
}

#[test]
fn a_deadline_ends_what_runs() {
    let mut world = World::new(json!({"parallelism": 2, "activeDeadlineSeconds": 5}));
    world.settle();
    world.pass(5);
    world.settle();
    assert_eq!(world.condition("Failed").as_deref(), Some("DeadlineExceeded"));
    assert_eq!((world.status().failed, world.active().len()), (Some(2), 0));
}

#[test]
fn suspended_jobs_have_no_pods_and_lose_none() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 4}));
    world.settle();
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.settle();
    let status = world.status();
    assert_eq!((world.pods.len(), status.active, status.failed), (0, None, None));
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!(world.active().len(), 2);
}

#[test]
fn each_index_succeeds_once() {
    let mut world =
        World::new(json!({"parallelism": 3, "completions": 5, "completionMode": "Indexed"}));
    world.settle();
    let index = |pod: &WholePod| facts::index_of(&cached(pod)).unwrap();
    assert_eq!(world.pods.iter().map(index).collect::<Vec<_>>(), [0, 1, 2]);
    let pod = serde_json::to_value(&world.pods[2]).unwrap();
    assert_eq!(pod["spec"]["hostname"], "j-2");
    assert!(pod["metadata"]["name"].as_str().unwrap().starts_with("j-2-"));
    assert_eq!(pod["metadata"]["labels"][facts::INDEX], "2");
    assert_eq!(
        pod["spec"]["containers"][0]["env"],
        json!([{"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {
            "fieldPath": format!("metadata.labels['{}']", facts::INDEX)}}}])
    );
    world.end(1, 1);
    world.end(2, 0);
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("2"));
    world.pass(10);
    world.settle();
    let mut active: Vec<_> = world.active().iter().map(|pod| index(&world.pods[*pod])).collect();
    active.sort_unstable();
    assert_eq!(active, [0, 1, 3], "the failed one is tried again");
    world.end_some(3, 0);
    world.end_some(1, 0);
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-4"));
    assert!(world.condition("Complete").is_some());
}

#[test]
fn indexes_fail_one_by_one() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 2,
        "completionMode": "Indexed", "backoffLimitPerIndex": 1}));
    world.settle();
    world.end(0, 1);
    world.settle();
    assert_eq!(world.active().len(), 1, "its pause is not over");
    world.pass(10);
    world.settle();
    let again = world.pods.last().unwrap();
    assert_eq!(again.metadata.annotations.as_ref().unwrap()[facts::INDEX_FAILURES], "1");
    let again = world.pods.len() - 1;
    world.end(again, 1);
    world.settle();
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0"));
    assert_eq!(world.active().len(), 1, "the other index goes on");
    world.end_some(1, 0);
    assert_eq!(world.condition("Failed").as_deref(), Some("FailedIndexes"));
    assert_eq!(world.status().completed_indexes.as_deref(), Some("1"));
}

#[test]
fn policies_say_what_a_failure_means() {
    let rules = json!({"podFailurePolicy": {"rules": [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "NotIn", "values": [1]}},
    ]}, "backoffLimit": 0});
    let mut world = World::new(rules);
    world.settle();
    world.end_some(1, 7);
    assert_eq!((world.status().failed, world.condition("FailureTarget")), (None, None));
    world.pass(60);
    world.settle();
    world.end_some(1, 42);
    assert_eq!(world.condition("Failed").as_deref(), Some("PodFailurePolicy"));
    let failed = facts::finished(&world.job).unwrap().message.clone().unwrap();
    assert!(
        failed.starts_with("Container c for pod ns/j-")
            && failed.ends_with(" failed with exit code 42 matching FailJob rule at index 1"),
        "{failed}"
    );
    let mut world = World::new(json!({"parallelism": 3, "completions": 3,
        "completionMode": "Indexed", "successPolicy": {"rules": [
            {"succeededIndexes": "2", "succeededCount": 1}]}}));
    world.settle();
    world.end(2, 0);
    world.settle();
    assert_eq!(world.condition("Complete").as_deref(), Some("SuccessPolicy"));
    let status = world.status();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(1), None, None));
}

#[test]
fn restarts_of_containers_count_where_pods_do_not_fail() {
    let mut world = World::new(json!({"backoffLimit": 2}));
    let spec = world.job.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    spec.restart_policy = Some("OnFailure".to_owned());
    world.settle();
    let restarted = |count: i32| {
        serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{"name": "c",
            "image": "", "imageID": "", "ready": true, "restartCount": count}]}))
        .unwrap()
    };
    world.pods[0].status = restarted(1);
    world.settle();
    assert_eq!(world.condition("Failed"), None);
    world.pods[0].status = restarted(2);
    world.settle();
    assert_eq!(world.condition("Failed").as_deref(), Some("BackoffLimitExceeded"));
}

fn killed() -> impl Strategy<Value = Killed> {
    prop::sample::select(vec![
        Killed::No,
        Killed::BeforeStatus,
        Killed::BeforeRelease,
        Killed::BeforeCounting,
    ])
}

proptest! {
    /// However syncs are cut off, each pod is counted once, never more pods run than may, and the
    /// job ends as its pods did.
    #[test]
    fn pods_are_counted_once(
        indexed: bool,
        parallelism in 1i32..5,
        completions in 1i32..8,
        events in prop::collection::vec((killed(), 0usize..5, prop::bool::weighted(0.25)), 0..40),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut world = World::new(json!({"parallelism": parallelism, "completions": completions,
            "completionMode": mode, "backoffLimit": 3}));
        let (mut succeeded, mut failed) = (0, 0);
        for (killed, pod, fails) in events {
            world.sync(killed);
            prop_assert!(world.active().len() <= usize::try_from(parallelism).unwrap());
            if let Some(index) = world.active().get(pod).copied() {
                world.end(index, i32::from(fails));
                if fails { failed += 1 } else { succeeded += 1 }
            }
            world.pass(700);
        }
        world.settle();
        let status = world.status();
        prop_assert_eq!(status.succeeded.unwrap_or(0), succeeded);
        if failed > 3 {
            let reason = world.condition("Failed");
            prop_assert_eq!(reason.as_deref(), Some("BackoffLimitExceeded"));
            prop_assert!(status.failed >= Some(failed) && status.failed <= Some(failed + parallelism));
        } else {
            prop_assert_eq!(status.failed.unwrap_or(0), failed);
            prop_assert_eq!(world.condition("Complete").is_some(), succeeded == completions);
        }
        if indexed {
            let indexes = super::indexes::Indexes::parse(
                status.completed_indexes.as_deref().unwrap_or_default(), completions);
            prop_assert_eq!(indexes.total(), succeeded);
        }
    }
}
