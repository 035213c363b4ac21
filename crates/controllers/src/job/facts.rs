//! What a job's spec and its pods say, read once and with Kubernetes' defaults.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};

pub(super) use crate::kinds::pod::{INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES};
use crate::{
    kinds::{pod::Pod, status::ContainerReport},
    object::{Claimable, Metadata},
    pods::{condition, phase},
};

/// Holds a pod until the job has counted it.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The controller that a job without `managedBy` belongs to: this one.
const OURSELVES: &str = "kubernetes.io/job-controller";
/// Kubernetes' default for `backoffLimit`.
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

pub(super) fn is_ours(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_none_or(|manager| manager == OURSELVES)
}

pub(super) fn parallelism(spec: &JobSpec) -> i32 {
    spec.parallelism.unwrap_or(1)
}

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

pub(super) fn backoff_limit(spec: &JobSpec) -> i32 {
    // With a limit per index there is none for the job unless it is given.
    let default =
        if spec.backoff_limit_per_index.is_some() { i32::MAX } else { DEFAULT_BACKOFF_LIMIT };
    spec.backoff_limit.unwrap_or(default)
}

/// A pod that is being deleted is replaced only when it has ended.
pub(super) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// A condition of this type, if it holds.
pub(super) fn true_condition<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The condition by which a job ended.
pub(crate) fn finished(job: &Job) -> Option<&JobCondition> {
    true_condition(job, "Complete").or_else(|| true_condition(job, "Failed"))
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// It is being deleted and has not ended yet.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.is_leaving() && !crate::pods::is_finished(pod)
}

/// It counts as a failure. A pod that is being deleted does too unless the job waits for its end:
/// a pod whose node is gone may never reach that.
pub(super) fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.is_leaving() && !replaces_only_failed(spec),
    }
}

fn annotated(pod: &Pod, name: &str) -> Option<i32> {
    let value = pod.metadata.annotation(name)?;
    value.parse().ok().filter(|number| *number >= 0)
}

/// The pod's completion index, whether or not the job still has it.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    annotated(pod, INDEX)
}

/// How often the pod's predecessors of the same index failed: those that count, those that do not.
pub(super) fn index_failures(pod: &Pod) -> (i32, i32) {
    let number = |name| annotated(pod, name).unwrap_or(0);
    (number(INDEX_FAILURES), number(INDEX_IGNORED_FAILURES))
}

/// When a finished pod finished: by its containers, else by its readiness, else by its deletion.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    by_containers(pod)
        .or_else(|| {
            condition(pod, "Ready").filter(|ready| &*ready.status == "False")?;
            pod.ready_changed()
        })
        .or_else(|| {
            let deletion = pod.metadata.deletion()?;
            deletion.at.checked_sub(SignedDuration::from_secs(deletion.grace_seconds)).ok()
        })
        .or_else(|| pod.metadata.created())
        .unwrap_or_default()
}

fn by_containers(pod: &Pod) -> Option<Timestamp> {
    let report = pod.report();
    let sidecar = |container: &&ContainerReport| {
        pod.template().sidecars.iter().any(|sidecar| sidecar.name == container.name)
    };
    let sidecars = report.init_containers.iter().filter(sidecar);
    let ends: Option<Vec<Timestamp>> = report
        .containers
        .iter()
        .chain(sidecars)
        .map(|container| container.terminated.as_ref()?.at)
        .collect();
    ends?.into_iter().max()
}
