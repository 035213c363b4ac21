//! Counting finished pods exactly once, although status and finalizers are written apart.
//!
//! A finished pod's uid is first written into `uncountedTerminatedPods`, then its finalizer is
//! removed, then the counter is raised and the uid taken out. Whatever is interrupted, the next
//! look at the pods tells which of these was reached.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::batch::v1::{JobCondition, JobStatus, UncountedTerminatedPods},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    facts::{is_failed, is_indexed},
    policy::{self, Failure},
    survey::{Ending, Survey, count},
};
use crate::{
    kinds::pod::Pod,
    pods::{is_ready, phase, uid},
};

/// Uids that a status holds at most: some 20 KB, and other jobs get their turn.
const MAX_UNCOUNTED: usize = 500;

/// What one look at the pods adds to the status.
pub(super) struct Tracked {
    pub(super) status: JobStatus,
    /// Pods that may go once the status is written.
    pub(super) release: Vec<Arc<Pod>>,
    /// Uids of the pods that have the finalizer.
    pub(super) held: HashSet<String>,
    /// There are more pods than one status may hold.
    pub(super) full: bool,
}

/// Adds finished pods to the status, and what the ending announces.
pub(super) fn track(
    survey: &Survey<'_>,
    mut status: JobStatus,
    ending: Option<&Ending>,
) -> Tracked {
    let held: HashSet<String> = survey
        .pods
        .iter()
        .filter(|pod| survey.uncounted(pod))
        .map(|pod| uid(&pod.metadata).to_owned())
        .collect();
    settle(&mut status, &held);
    let listed = status.uncounted_terminated_pods.take().unwrap_or_default();
    let mut succeeded = listed.succeeded.unwrap_or_default();
    let mut failed = listed.failed.unwrap_or_default();
    let mut indexes = Vec::new();
    let (mut release, mut full) = (Vec::new(), false);
    for pod in survey.pods.iter().filter(|pod| survey.uncounted(pod)) {
        if !may_go(survey, pod, ending) {
            continue;
        }
        release.push(Arc::clone(pod));
        let id = uid(&pod.metadata);
        match outcome(survey, pod, ending) {
            Some(Outcome::Index(index)) => indexes.push(index),
            Some(Outcome::Succeeded) if !succeeded.iter().any(|known| known == id) => {
                succeeded.push(id.to_owned());
            }
            Some(Outcome::Failed) if !failed.iter().any(|known| known == id) => {
                failed.push(id.to_owned());
            }
            _ => {}
        }
        if indexes.len() + succeeded.len() + failed.len() >= MAX_UNCOUNTED {
            full = true;
            break;
        }
    }
    if is_indexed(survey.spec) {
        let completed = survey.known_indexes.union(&indexes.into_iter().collect());
        status.succeeded = Some(completed.total()).filter(|total| *total > 0);
        status.completed_indexes = Some(completed.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = survey.failed_indexes.as_ref().map(ToString::to_string);
    }
    let some = |uids: Vec<String>| Some(uids).filter(|uids| !uids.is_empty());
    status.uncounted_terminated_pods =
        Some(UncountedTerminatedPods { succeeded: some(succeeded), failed: some(failed) });
    if let Some(ending) = ending {
        let type_ = if ending.succeeded { "SuccessCriteriaMet" } else { "FailureTarget" };
        set_condition(&mut status, type_, true, &ending.reason, &ending.message, survey.now);
    }
    Tracked { status, release, held, full }
}

/// Whether the pod need not be held any longer.
fn may_go(survey: &Survey<'_>, pod: &Pod, ending: Option<&Ending>) -> bool {
    let over = survey.job.metadata.deletion_timestamp.is_some() || ending.is_some();
    if over || phase(pod) == "Succeeded" {
        return true;
    }
    // A pod to be replaced is kept, as the next one takes over its count of failures.
    let awaited = |index| {
        survey.to_replace.get(&index).is_some_and(|kept| uid(&kept.metadata) == uid(&pod.metadata))
    };
    is_failed(survey.spec, pod) && !survey.valid_index(pod).is_some_and(awaited)
}

enum Outcome {
    Succeeded,
    Index(i32),
    Failed,
}

/// How the pod counts; none if it does not, or has been counted before.
fn outcome(survey: &Survey<'_>, pod: &Pod, ending: Option<&Ending>) -> Option<Outcome> {
    let indexed = is_indexed(survey.spec);
    let index = survey.valid_index(pod);
    if indexed && index.is_none() {
        return None;
    }
    if phase(pod) == "Succeeded" {
        return match index.filter(|_| indexed) {
            Some(index) => (!survey.known_indexes.contains(index)).then_some(Outcome::Index(index)),
            None => Some(Outcome::Succeeded),
        };
    }
    // When a job fails, what still runs has failed with it.
    let fails = is_failed(survey.spec, pod) || ending.is_some_and(|ending| !ending.succeeded);
    let counts = fails && policy::judge(survey.spec, pod) != Failure::Ignored;
    counts.then_some(Outcome::Failed)
}

/// Raises the counters by the listed pods that are held no longer.
pub(super) fn settle(status: &mut JobStatus, held: &HashSet<String>) {
    let Some(listed) = &mut status.uncounted_terminated_pods else { return };
    let take = |uids: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
        let Some(known) = uids else { return };
        let before = known.len();
        known.retain(|uid| held.contains(uid));
        let gone = i32::try_from(before - known.len()).unwrap_or(i32::MAX);
        if gone > 0 {
            *counter = Some(counter.unwrap_or(0).saturating_add(gone));
        }
        if known.is_empty() {
            *uids = None;
        }
    };
    take(&mut listed.succeeded, &mut status.succeeded);
    take(&mut listed.failed, &mut status.failed);
}

/// Makes the ending final if nothing is left to count or to wait for.
pub(super) fn finish(status: &mut JobStatus, ending: &Ending, now: Timestamp) -> bool {
    let listed = status.uncounted_terminated_pods.as_ref();
    let uncounted =
        listed.is_some_and(|listed| listed.succeeded.is_some() || listed.failed.is_some());
    if uncounted || status.terminating.unwrap_or(0) > 0 {
        return false;
    }
    let type_ = if ending.succeeded { "Complete" } else { "Failed" };
    set_condition(status, type_, true, &ending.reason, &ending.message, now);
    if ending.succeeded {
        status.completion_time = Some(Time(seconds(now)));
    }
    true
}

/// Sets a condition; tells whether that changed anything. A condition that never was is not set to
/// false.
pub(super) fn set_condition(
    status: &mut JobStatus,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let truth = if holds { "True" } else { "False" };
    let time = Some(Time(seconds(now)));
    let conditions = status.conditions.get_or_insert_default();
    let new = JobCondition {
        type_: type_.to_owned(),
        status: truth.to_owned(),
        reason: Some(reason.to_owned()).filter(|text| !text.is_empty()),
        message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        last_probe_time: time.clone(),
        last_transition_time: time,
    };
    let changed = match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(known) => {
            let same = known.status == new.status
                && known.reason == new.reason
                && known.message == new.message;
            if !same {
                *known = new;
            }
            !same
        }
        None if holds => {
            conditions.push(new);
            true
        }
        None => false,
    };
    if conditions.is_empty() {
        status.conditions = None;
    }
    changed
}

/// Active pods have been deleted: they are leaving now.
pub(super) fn leave(status: &mut JobStatus, pods: &[Arc<Pod>]) {
    let number = count(pods);
    let ready = count(pods.iter().filter(|pod| is_ready(pod)));
    status.active = status.active.map(|active| active - number).filter(|active| *active > 0);
    status.ready = status.ready.map(|known| known - ready);
    status.terminating = status.terminating.map(|known| known + number);
}

/// The API keeps whole seconds; a finer time would look like a change.
pub(super) fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
