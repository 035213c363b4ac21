//! Job: pods that run to their end, as many as it takes.
//!
//! [`survey`] decides, [`track`] counts; both are pure. Here decisions are carried out: pods are
//! made and deleted, the status is written, finalizers are removed.

mod backoff;
mod facts;
mod indexes;
mod orphans;
mod policy;
mod survey;
mod template;
#[cfg(test)]
mod tests;
mod track;
pub(crate) mod ttl;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::batch::v1::{Job, JobSpec, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::core::Selector;

use crate::{
    claim::{self, selector, selects},
    context::Context,
    error::SyncError,
    expectations::Expectations,
    informer::{Change, Index, Reader},
    key::Key,
    kinds::pod::Pod,
    object::Metadata,
    patch,
    podcontrol::PodControl,
    pods::{controller_of, uid},
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};
use backoff::Record;
pub(crate) use facts::finished;
use survey::{Ending, Step, Survey, count};
use track::{Tracked, leave, seconds, set_condition};

const COMPONENT: &str = "job-controller";
/// Finalizers removed at the same time.
const MAX_IN_FLIGHT: usize = 64;

/// What is remembered of a job between two looks.
#[derive(Default)]
struct Memory {
    backoff: Record,
    /// Uids of pods whose finalizer was removed and that the cache may still show with it.
    counted: HashSet<String>,
}

/// The job controller.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    expectations: Arc<Expectations>,
    orphans: Arc<WorkQueue<Key>>,
    memory: Mutex<HashMap<Key, Memory>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        let orphans = Arc::new(WorkQueue::new());
        let expectations = Arc::new(Expectations::default());
        context.jobs.on_change({
            let (queue, expectations) = (Arc::clone(&queue), Arc::clone(&expectations));
            let orphans = Arc::clone(&orphans);
            let pods = context.pods.reader();
            move |change| {
                let Some(job) = change.latest() else { return };
                let key = Key::of(&job.metadata);
                if change.new.is_none() || finished(job).is_some() {
                    let left = pods.by(Index::Owner, uid(&job.metadata));
                    let left = left.iter().filter(|pod| facts::is_tracked(pod));
                    left.for_each(|pod| orphans.add(Key::of(&pod.metadata)));
                }
                if change.new.is_none() {
                    expectations.forget(&key);
                }
                queue.add(key);
            }
        });
        context.pods.on_change({
            let (queue, expectations) = (Arc::clone(&queue), Arc::clone(&expectations));
            let orphans = Arc::clone(&orphans);
            let jobs = context.jobs.reader();
            move |change| pod_changed(change, &jobs, &queue, &orphans, &expectations)
        });
        Self { queue, expectations, orphans, memory: Mutex::default() }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.jobs.wait_synced().await;
        context.pods.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let (this, context) = (&self, &context);
        let sync = |key: Key| async move { this.sync(context, &key).await };
        let release = |key: Key| async move { orphans::release(context, &key).await };
        tokio::join!(
            worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync),
            worker::run(COMPONENT, workers, Arc::clone(&self.orphans), release),
        );
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, key: &Key) {
        self.expectations.forget(key);
        self.memory().remove(key);
    }

    /// What is remembered, without what the cache has caught up with.
    fn remembered(&self, key: &Key, pods: &[Arc<Pod>]) -> (Record, HashSet<String>) {
        let mut memory = self.memory();
        let known = memory.entry(key.clone()).or_default();
        let held =
            |id: &String| pods.iter().any(|pod| uid(&pod.metadata) == id && facts::is_tracked(pod));
        known.counted.retain(held);
        (known.backoff, known.counted.clone())
    }

    async fn sync(&self, context: &Context, key: &Key) -> Result<Again, SyncError> {
        let job = context.jobs.get(key);
        let Some((job, spec)) = job.as_ref().and_then(|job| Some((job, job.spec.as_ref()?))) else {
            self.forget(key);
            return Ok(None);
        };
        if !facts::is_ours(spec) || finished(job).is_some() {
            self.forget(key);
            return Ok(None);
        }
        let may_manage = self.expectations.satisfied(key);
        let Some(wanted) = &spec.selector else { return Ok(None) };
        let Some(selector) = selector("Job", key, wanted)? else { return Ok(None) };
        let pods = claim::claim_with(
            context,
            &**job,
            &selector,
            &context.pods,
            Some(facts::FINALIZER),
            &|_| true,
        )
        .await?;
        let (backoff, counted) = self.remembered(key, &pods);
        let now = Timestamp::now();
        let survey = Survey::new(job, spec, pods, &counted, backoff, now);
        let work = Work { controller: self, context, key, survey: &survey, may_manage };
        work.run().await
    }
}

/// A job being worked on.
struct Work<'a> {
    controller: &'a Controller,
    context: &'a Context,
    key: &'a Key,
    survey: &'a Survey<'a>,
    may_manage: bool,
}

/// What came of managing a job's pods.
struct Managed {
    status: JobStatus,
    ending: Option<Ending>,
    again: Again,
    result: Result<(), SyncError>,
}

impl Work<'_> {
    async fn run(&self) -> Result<Again, SyncError> {
        let managed = self.manage().await;
        let finished = self.count_pods(managed.status, managed.ending).await?;
        managed.result?;
        if finished {
            return Ok(None);
        }
        let deadline = self.survey.until_deadline().filter(|left| !left.is_zero());
        Ok(managed.again.into_iter().chain(deadline).min())
    }

    fn control(&self) -> PodControl<'_, Job> {
        PodControl {
            context: self.context,
            expectations: &self.controller.expectations,
            component: COMPONENT,
            owner: self.survey.job,
            key: self.key,
        }
    }

    async fn manage(&self) -> Managed {
        let mut status = self.survey.current_status();
        let active = &self.survey.active;
        if let Some(ending) = self.survey.ending() {
            let result = self.control().delete(active).await;
            let all = result.is_ok()
                && self.may_manage
                && active.len() <= crate::podcontrol::MAX_PODS_AT_ONCE;
            if result.is_ok() {
                leave(&mut status, active);
            }
            // What the cache does not show yet may still have to be deleted.
            return Managed { status, ending: Some(ending).filter(|_| all), again: None, result };
        }
        let (mut again, mut result) = (None, Ok(()));
        let manages = self.may_manage && self.survey.job.metadata.deletion_timestamp.is_none();
        if manages {
            match self.survey.step() {
                Step::Nothing => {}
                Step::Wait(pause) => again = Some(pause),
                Step::Create(indexes) => {
                    let number = count(&indexes);
                    result = self.create(indexes).await;
                    if result.is_ok() {
                        status.active = Some(status.active.unwrap_or(0) + number);
                    }
                }
                Step::Delete(pods) => {
                    result = self.delete(&pods).await;
                    if result.is_ok() {
                        leave(&mut status, &pods);
                    }
                }
            }
        }
        let ending = self.survey.completion(status.active.unwrap_or(0));
        if ending.is_none() && manages {
            self.tell_suspension(&mut status);
        }
        Managed { status, ending, again, result }
    }

    async fn create(&self, indexes: Vec<Option<i32>>) -> Result<(), SyncError> {
        let Survey { job, spec, to_replace, .. } = self.survey;
        let pods = indexes.into_iter().map(|index| {
            let before = index.and_then(|index| to_replace.get(&index));
            template::pod(job, spec, index, before.map(|pod| &**pod))
        });
        self.control().create(pods.collect()).await
    }

    /// Deletes pods without counting them as failures: their finalizer goes first.
    async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), SyncError> {
        self.release(pods).await.1?;
        self.control().delete(pods).await
    }

    /// Says so when the job is suspended or resumed.
    fn tell_suspension(&self, status: &mut JobStatus) {
        let suspended = facts::is_suspended(self.survey.spec);
        let (reason, message, event) = if suspended {
            ("JobSuspended", "Job suspended", "Suspended")
        } else {
            ("JobResumed", "Job resumed", "Resumed")
        };
        let now = self.survey.now;
        if set_condition(status, "Suspended", suspended, reason, message, now) {
            self.tell(Severity::Normal, event, message.to_owned());
            if !suspended {
                // The deadline is about the time that the job runs without a break.
                status.start_time = Some(Time(seconds(now)));
            }
        }
    }

    /// Counts finished pods and ends the job if it is over; tells whether it ended.
    async fn count_pods(
        &self,
        status: JobStatus,
        ending: Option<Ending>,
    ) -> Result<bool, SyncError> {
        let Tracked { status, release, mut held, full } =
            track::track(self.survey, status, ending.as_ref());
        let mut job = self.write(self.survey.job, &status).await?;
        if let Some(memory) = self.controller.memory().get_mut(self.key) {
            memory.backoff = self.survey.backoff;
        }
        let (released, result) = self.release(&release).await;
        held.retain(|id| !released.contains(id));
        let mut status = status;
        track::settle(&mut status, &held);
        let finished = match &ending {
            Some(ending) if result.is_ok() && !full => {
                track::finish(&mut status, ending, self.survey.now)
            }
            _ => false,
        };
        job = self.write(&job, &status).await?;
        if let Some(ending) = ending.filter(|_| finished) {
            self.tell_end(&job, &ending);
        }
        result.map(|()| finished)
    }

    fn tell_end(&self, job: &Job, ending: &Ending) {
        if !ending.succeeded {
            // Events' reasons are names of the program; these are all that a job fails by.
            let reason = FAILURES.into_iter().find(|known| *known == ending.reason);
            self.tell(Severity::Warning, reason.unwrap_or("Failed"), ending.message.clone());
            return;
        }
        let completions = self.survey.spec.completions;
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded);
        if completions.is_some() && succeeded > completions {
            let message = "Too many succeeded pods running after completion count reached";
            self.tell(Severity::Warning, "TooManySucceededPods", message.to_owned());
        }
        self.tell(Severity::Normal, "Completed", "Job completed".to_owned());
    }

    /// Writes the status where it differs from that of `job`; answers with the job as it then is.
    async fn write(&self, job: &Job, status: &JobStatus) -> Result<Job, SyncError> {
        if job.status.as_ref() == Some(status) {
            return Ok(job.clone());
        }
        let api = self.context.api::<Job>(&self.key.namespace);
        patch::write_status(&api, job, job.status.as_ref(), status).await.map_err(SyncError::api(
            "update the status of",
            "Job",
            self.key,
        ))
    }

    /// Removes the finalizer of pods; answers with the uids of those that have it no longer.
    async fn release(&self, pods: &[Arc<Pod>]) -> (Vec<String>, Result<(), SyncError>) {
        let removals = pods.iter().cloned().map(|pod| self.release_one(pod));
        let outcomes: Vec<_> =
            stream::iter(removals).buffer_unordered(MAX_IN_FLIGHT).collect().await;
        let mut result = Ok(());
        let mut released = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok(id) => released.push(id),
                Err(error) => result = Err(error),
            }
        }
        if let Some(memory) = self.controller.memory().get_mut(self.key) {
            memory.counted.extend(released.iter().cloned());
        }
        (released, result)
    }

    async fn release_one(&self, pod: Arc<Pod>) -> Result<String, SyncError> {
        orphans::remove_finalizer(self.context, &pod).await.map(|()| uid(&pod.metadata).to_owned())
    }

    fn tell(&self, severity: Severity, reason: &'static str, message: String) {
        self.context.recorder.record(COMPONENT, self.survey.job, severity, reason, message);
    }
}

/// The reasons by which a job fails.
const FAILURES: [&str; 5] = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "PodFailurePolicy",
    "MaxFailedIndexesExceeded",
    "FailedIndexes",
];

/// The job that a pod's reference means, if that very one still exists.
fn referenced(jobs: &Reader<Job>, pod: &Pod) -> Option<Arc<Job>> {
    let reference = controller_of(&pod.metadata).filter(|reference| reference.kind == "Job")?;
    let key = Key::new(pod.metadata.namespace(), &reference.name);
    jobs.get(&key).filter(|job| uid(&job.metadata) == reference.uid)
}

fn pod_changed(
    change: &Change<Pod>,
    jobs: &Reader<Job>,
    queue: &WorkQueue<Key>,
    orphans: &WorkQueue<Key>,
    expectations: &Expectations,
) {
    let leaving = |pod: &Pod| pod.metadata.is_leaving();
    let old_owner = change.old.as_ref().and_then(|pod| referenced(jobs, pod));
    let new_owner = change.new.as_ref().and_then(|pod| referenced(jobs, pod));
    if let Some(pod) = &change.new
        && facts::is_tracked(pod)
        && new_owner.as_ref().is_none_or(|job| finished(job).is_some())
    {
        orphans.add(Key::of(&pod.metadata));
    }
    let new_owner = new_owner.map(|job| Key::of(&job.metadata));
    if let Some(pod) = &change.new
        && let Some(owner) = &new_owner
    {
        if change.old.is_none() {
            expectations.creation_observed(owner);
        }
        if leaving(pod) {
            expectations.deletion_observed(owner, &Key::of(&pod.metadata));
        }
        queue.add(owner.clone());
    }
    let old_owner = old_owner.map(|job| Key::of(&job.metadata));
    if let Some(pod) = &change.old
        && let Some(owner) = old_owner.filter(|owner| Some(owner) != new_owner.as_ref())
    {
        expectations.deletion_observed(&owner, &Key::of(&pod.metadata));
        queue.add(owner);
    }
    if let Some(pod) = &change.new
        && controller_of(&pod.metadata).is_none()
        && !leaving(pod)
    {
        offer(pod, jobs, queue);
    }
}

/// A matching orphan may be adopted.
fn offer(pod: &Pod, jobs: &Reader<Job>, queue: &WorkQueue<Key>) {
    for job in jobs.by(Index::Namespace, pod.metadata.namespace()) {
        let spec: Option<&JobSpec> = job.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.clone());
        let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
        if selector.is_some_and(|selector| !selector.selects_all() && selects(&selector, pod)) {
            queue.add(Key::of(&job.metadata));
        }
    }
}
