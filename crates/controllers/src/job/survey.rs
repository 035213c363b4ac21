//! What there is of a job and what follows from it: whether it has ended, which pods to make and
//! which to delete. Pure: job, pods and time in, decisions out.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::batch::v1::{Job, JobSpec, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    backoff::{self, Record},
    facts::{
        backoff_limit, finished_at, index_failures, index_of, is_failed, is_indexed, is_suspended,
        is_terminating, is_tracked, parallelism, replaces_only_failed, true_condition,
    },
    indexes::Indexes,
    policy::{self, Failure},
    track::seconds,
};
use crate::{
    kinds::pod::Pod,
    object::Metadata,
    podcontrol::MAX_PODS_AT_ONCE,
    pods::{is_active, is_ready, phase, uid},
    replicaset::ranking,
};

/// How a job ends, or has begun to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) succeeded: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Ending {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { succeeded: false, reason: reason.to_owned(), message: message.into() }
    }
}

/// What to do about a job's pods.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Nothing,
    /// Make a pod for each index, or without one.
    Create(Vec<Option<i32>>),
    /// Delete these; they are no failures.
    Delete(Vec<Arc<Pod>>),
    /// Pods are missing, but not before so long.
    Wait(Duration),
}

/// A job and its pods.
pub(super) struct Survey<'a> {
    pub(super) spec: &'a JobSpec,
    pub(super) job: &'a Job,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) active: Vec<Arc<Pod>>,
    pub(super) now: Timestamp,
    pub(super) terminating: i32,
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Succeeded indexes as the status has them.
    pub(super) known_indexes: Indexes,
    pub(super) succeeded_indexes: Indexes,
    /// Only with a limit per index.
    pub(super) failed_indexes: Option<Indexes>,
    /// By index the failed pod whose failures the next pod of that index has to take over.
    pub(super) to_replace: BTreeMap<i32, Arc<Pod>>,
    pub(super) backoff: Record,
    /// Pods whose finalizer was removed, though the cache may still show it.
    counted: &'a HashSet<String>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(
        job: &'a Job,
        spec: &'a JobSpec,
        mut pods: Vec<Arc<Pod>>,
        counted: &'a HashSet<String>,
        backoff: Record,
        now: Timestamp,
    ) -> Self {
        pods.sort_by_key(|pod| (index_of(pod), finished_at(pod), pod.metadata.key()));
        let active = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        let terminating = count(pods.iter().filter(|pod| is_terminating(pod)));
        let mut survey = Self {
            spec,
            job,
            pods,
            active,
            now,
            terminating,
            succeeded: 0,
            failed: 0,
            known_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            to_replace: BTreeMap::new(),
            backoff,
            counted,
        };
        survey.count_finished();
        if is_indexed(spec) {
            survey.count_indexes();
        }
        survey
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    /// Whether the pod is still to be counted.
    pub(super) fn uncounted(&self, pod: &Pod) -> bool {
        is_tracked(pod) && !self.counted.contains(uid(&pod.metadata))
    }

    /// The pod's index, if the job has it.
    pub(super) fn valid_index(&self, pod: &Pod) -> Option<i32> {
        index_of(pod).filter(|index| *index < self.spec.completions.unwrap_or(0))
    }

    fn counts(&self, pod: &Pod) -> bool {
        !is_indexed(self.spec) || self.valid_index(pod).is_some()
    }

    fn count_finished(&mut self) {
        let status = self.status();
        let listed = status.uncounted_terminated_pods.unwrap_or_default();
        let (succeeded, failed) =
            (listed.succeeded.unwrap_or_default(), listed.failed.unwrap_or_default());
        let new = |listed: &[String], test: &dyn Fn(&Pod) -> bool| -> Vec<Arc<Pod>> {
            let new = self.pods.iter().filter(|pod| {
                self.uncounted(pod)
                    && !listed.iter().any(|known| known == uid(&pod.metadata))
                    && self.counts(pod)
                    && test(pod)
            });
            new.cloned().collect()
        };
        let new_succeeded = new(&succeeded, &|pod| phase(pod) == "Succeeded");
        let new_failed = new(&failed, &|pod| is_failed(self.spec, pod));
        let counted =
            new_failed.iter().filter(|pod| policy::judge(self.spec, pod) != Failure::Ignored);
        self.succeeded = status.succeeded.unwrap_or(0) + count(&new_succeeded) + count(&succeeded);
        self.failed = status.failed.unwrap_or(0) + count(counted) + count(&failed);
        self.backoff = self.backoff.with(&new_succeeded, &new_failed);
    }

    fn count_indexes(&mut self) {
        let completions = self.spec.completions.unwrap_or(0);
        let status = self.status();
        let known = status.completed_indexes.unwrap_or_default();
        self.known_indexes = Indexes::parse(&known, completions);
        let succeeded = self.pods.iter().filter(|pod| phase(pod) == "Succeeded" && is_tracked(pod));
        let new: Indexes = succeeded.filter_map(|pod| self.valid_index(pod)).collect();
        self.succeeded_indexes = self.known_indexes.union(&new);
        self.succeeded = self.succeeded_indexes.total();
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let known = Indexes::parse(&status.failed_indexes.unwrap_or_default(), completions);
        let failed = self.pods.iter().filter(|pod| is_tracked(pod) && self.fails_index(pod, limit));
        let new: Indexes = failed.filter_map(|pod| self.valid_index(pod)).collect();
        self.failed_indexes = Some(known.union(&new));
        self.to_replace = self.find_to_replace();
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        is_failed(self.spec, pod)
            && match policy::judge(self.spec, pod) {
                Failure::FailsIndex => true,
                Failure::Ignored => false,
                Failure::Counts | Failure::FailsJob(_) => index_failures(pod).0 >= limit,
            }
    }

    fn find_to_replace(&self) -> BTreeMap<i32, Arc<Pod>> {
        let active = indexes(&self.active);
        let failed = self.failed_indexes.clone().unwrap_or_default();
        let done = self.succeeded_indexes.union(&failed).union(&active);
        let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| self.uncounted(pod) && is_failed(self.spec, pod)) {
            let Some(index) = self.valid_index(pod).filter(|index| !done.contains(*index)) else {
                continue;
            };
            let rank = |pod: &Pod| {
                let (counted, ignored) = index_failures(pod);
                (counted.saturating_add(ignored), finished_at(pod))
            };
            if last.get(&index).is_none_or(|known| rank(known) <= rank(pod)) {
                last.insert(index, Arc::clone(pod));
            }
        }
        last
    }

    /// The status but for what finished pods add to it.
    pub(super) fn current_status(&self) -> JobStatus {
        let mut status = self.status();
        if status.start_time.is_none() && !is_suspended(self.spec) {
            status.start_time = Some(Time(seconds(self.now)));
        }
        status.active = Some(count(&self.active)).filter(|number| *number > 0);
        status.ready = Some(count(self.active.iter().filter(|pod| is_ready(pod))));
        status.terminating = Some(self.terminating);
        status
    }

    /// How the job ends although pods may be active: by what was announced before, by failures, by
    /// its deadline, by its success policy.
    pub(super) fn ending(&self) -> Option<Ending> {
        for (announced, succeeded) in [("SuccessCriteriaMet", true), ("FailureTarget", false)] {
            if let Some(condition) = true_condition(self.job, announced) {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                return Some(Ending {
                    succeeded,
                    reason: text(&condition.reason),
                    message: text(&condition.message),
                });
            }
        }
        self.failure().or_else(|| {
            let message = is_indexed(self.spec)
                .then(|| policy::met(self.spec, &self.succeeded_indexes))
                .flatten()?;
            Some(Ending { succeeded: true, reason: "SuccessPolicy".to_owned(), message })
        })
    }

    fn failure(&self) -> Option<Ending> {
        let failed = self.pods.iter().filter(|pod| is_failed(self.spec, pod));
        let by_policy = failed.filter_map(|pod| match policy::judge(self.spec, pod) {
            Failure::FailsJob(message) => Some(message),
            _ => None,
        });
        if let Some(message) = by_policy.into_iter().next() {
            return Some(Ending::failure("PodFailurePolicy", message));
        }
        if self.failed > backoff_limit(self.spec) || self.restarts_exceed_limit() {
            let message = "Job has reached the specified backoff limit";
            return Some(Ending::failure("BackoffLimitExceeded", message));
        }
        if self.until_deadline().is_some_and(|left| left.is_zero()) {
            let message = "Job was active longer than specified deadline";
            return Some(Ending::failure("DeadlineExceeded", message));
        }
        let failed = self.failed_indexes.as_ref().map_or(0, Indexes::total);
        if self.spec.max_failed_indexes.is_some_and(|limit| failed > limit) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Ending::failure("MaxFailedIndexesExceeded", message));
        }
        let completions = self.spec.completions.unwrap_or(0);
        let over = failed > 0 && failed.saturating_add(self.succeeded) >= completions;
        over.then(|| Ending::failure("FailedIndexes", "Job has failed indexes"))
    }

    /// With `restartPolicy: OnFailure` it is containers that fail, not pods.
    fn restarts_exceed_limit(&self) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let restarts = self
            .pods
            .iter()
            .filter(|pod| matches!(phase(pod), "Pending" | "Running"))
            .flat_map(|pod| pod.report().init_containers.iter().chain(&pod.report().containers))
            .fold(0_i32, |sum, container| sum.saturating_add(container.restarts));
        restarts >= backoff_limit(self.spec).max(1)
    }

    /// What is left of `activeDeadlineSeconds`.
    pub(super) fn until_deadline(&self) -> Option<Duration> {
        let deadline = self.spec.active_deadline_seconds.filter(|_| !is_suspended(self.spec))?;
        let started = self.job.status.as_ref()?.start_time.as_ref()?.0;
        let ends = started.checked_add(SignedDuration::from_secs(deadline)).ok()?;
        Some(Duration::try_from(ends.duration_since(self.now)).unwrap_or_default())
    }

    /// Whether the job is done once no pod but `active` ones is left.
    pub(super) fn completion(&self, active: i32) -> Option<Ending> {
        let done = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        (done && active == 0).then(|| Ending {
            succeeded: true,
            reason: "CompletionsReached".to_owned(),
            message: "Reached expected number of succeeded pods".to_owned(),
        })
    }

    /// What to do next about the pods of a job that has not ended. Pods are either deleted or made,
    /// never both at once.
    pub(super) fn step(&self) -> Step {
        if is_suspended(self.spec) {
            return deletion(self.active.clone());
        }
        let active = count(&self.active);
        let parallelism = parallelism(self.spec);
        let wanted = match self.spec.completions {
            None if self.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded).min(parallelism).max(0),
        };
        let excess = usize::try_from(active - wanted).unwrap_or(0);
        let surplus = self.surplus(excess);
        if !surplus.is_empty() {
            return deletion(surplus);
        }
        let leaving = if replaces_only_failed(self.spec) { self.terminating } else { 0 };
        match usize::try_from(wanted - leaving - active) {
            Ok(missing) if missing > 0 => self.creation(missing.min(MAX_PODS_AT_ONCE)),
            _ => Step::Nothing,
        }
    }

    /// Pods without a valid index, all but one of each index, and of the others as many as are too
    /// many.
    fn surplus(&self, excess: usize) -> Vec<Arc<Pod>> {
        let first = |pods: Vec<Arc<Pod>>, number| ranking::to_delete(pods, number, self.now, |_| 0);
        if !is_indexed(self.spec) {
            return if excess == 0 { Vec::new() } else { first(self.active.clone(), excess) };
        }
        let mut surplus = Vec::new();
        let mut by_index: BTreeMap<i32, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in &self.active {
            match self.valid_index(pod) {
                Some(index) => by_index.entry(index).or_default().push(Arc::clone(pod)),
                None => surplus.push(Arc::clone(pod)),
            }
        }
        let mut left = Vec::new();
        for pods in by_index.into_values() {
            let doomed = first(pods.clone(), pods.len() - 1);
            let stays = |pod: &&Arc<Pod>| !doomed.iter().any(|doomed| Arc::ptr_eq(doomed, pod));
            left.extend(pods.iter().find(stays).cloned());
            surplus.extend(doomed.into_iter().take(pods.len() - 1));
        }
        let more = excess.saturating_sub(surplus.len());
        if more > 0 {
            surplus.extend(first(left, more));
        }
        surplus
    }

    fn creation(&self, missing: usize) -> Step {
        if self.failed_indexes.is_none() {
            let wait = self.backoff.remaining(self.now);
            if !wait.is_zero() {
                return Step::Wait(wait);
            }
        }
        if !is_indexed(self.spec) {
            return Step::Create(vec![None; missing]);
        }
        let mut taken = self.succeeded_indexes.union(&indexes(&self.active));
        if replaces_only_failed(self.spec) {
            taken = taken.union(&indexes(self.pods.iter().filter(|pod| is_terminating(pod))));
        }
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        let pending = taken.first_missing(missing, self.spec.completions.unwrap_or(0));
        let wait = |index: &i32| {
            self.to_replace.get(index).map_or(Duration::ZERO, |pod| {
                let (counted, ignored) = index_failures(pod);
                let failures = counted.saturating_add(ignored).saturating_add(1);
                backoff::remaining(failures, finished_at(pod), self.now)
            })
        };
        let (now, later): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|index| wait(index).is_zero());
        if now.is_empty() {
            return later.iter().map(wait).min().map_or(Step::Nothing, Step::Wait);
        }
        Step::Create(now.into_iter().map(Some).collect())
    }
}

fn deletion(mut pods: Vec<Arc<Pod>>) -> Step {
    pods.truncate(MAX_PODS_AT_ONCE);
    if pods.is_empty() { Step::Nothing } else { Step::Delete(pods) }
}

fn indexes<'p>(pods: impl IntoIterator<Item = &'p Arc<Pod>>) -> Indexes {
    pods.into_iter().filter_map(|pod| index_of(pod)).collect()
}

pub(super) fn count<T>(items: impl IntoIterator<Item = T>) -> i32 {
    i32::try_from(items.into_iter().count()).unwrap_or(i32::MAX)
}
