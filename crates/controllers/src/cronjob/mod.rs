//! CronJob: a job at each time of a schedule.
//!
//! [`mod@decide`] says what is to be done; here it is done.

mod decide;
mod schedule;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams, Preconditions},
};

use crate::{
    claim::controller_reference,
    context::Context,
    error::{SyncError, is_already_exists, is_namespace_terminating, is_not_found},
    informer::{Change, Index},
    job::finished,
    key::Key,
    patch,
    pods::{controller_of, uid},
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};
use decide::{Decision, decide, job_name, until_next, zone};
use schedule::Schedule;

const COMPONENT: &str = "cronjob-controller";
/// Tells the time that a job was made for, in the time zone of the schedule.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The cron job controller.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.cron_jobs.on_change({
            let queue = Arc::clone(&queue);
            move |change| cron_job_changed(change, &queue)
        });
        context.jobs.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                for job in change.old.iter().chain(&change.new) {
                    let owner = controller_of(&job.metadata);
                    if let Some(owner) = owner.filter(|owner| owner.kind == "CronJob") {
                        let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
                        queue.add(Key::new(namespace, &owner.name));
                    }
                }
            }
        });
        Self { queue }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.cron_jobs.wait_synced().await;
        context.jobs.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let context = &context;
        let sync = |key: Key| async move { sync(context, &key).await };
        worker::run(COMPONENT, workers, self.queue, sync).await;
    }
}

fn cron_job_changed(change: &Change<CronJob>, queue: &WorkQueue<Key>) {
    let Some(new) = &change.new else { return };
    let key = Key::of(&new.metadata);
    let timing = |cron: &CronJob| {
        let spec = cron.spec.as_ref()?;
        Some((spec.schedule.clone(), spec.time_zone.clone()))
    };
    let retimed = change.old.as_ref().is_some_and(|old| timing(old) != timing(new));
    // Times of a new schedule that passed before it was set are not caught up with.
    let wait = new.spec.as_ref().filter(|_| retimed).and_then(|spec| {
        let schedule = Schedule::parse(&spec.schedule).ok()?;
        until_next(&schedule, &zone(spec).ok()?, Timestamp::now())
    });
    match wait {
        Some(wait) => queue.add_after(key, wait),
        None => queue.add(key),
    }
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(cron) = context.cron_jobs.get(key) else { return Ok(None) };
    let jobs = context.jobs.by(Index::Owner, uid(&cron.metadata));
    let Some(cron) = up_to_date(context, key, cron, &jobs).await? else { return Ok(None) };
    let Some(spec) = cron.spec.as_ref() else { return Ok(None) };
    let gone = gone(context, key, &cron, &jobs).await?;
    let decision = decide(&cron, spec, &jobs, &gone, Timestamp::now());
    let work = Work { context, key, cron: &cron, api: context.api(&key.namespace) };
    work.run(decision).await
}

/// The cron job; read anew if it does not know of a job that runs, as the cache may be old.
async fn up_to_date(
    context: &Context,
    key: &Key,
    cron: Arc<CronJob>,
    jobs: &[Arc<Job>],
) -> Result<Option<Arc<CronJob>>, SyncError> {
    let active = cron.status.iter().flat_map(|status| status.active.iter().flatten());
    let known: HashSet<&str> = active.filter_map(|job| job.uid.as_deref()).collect();
    let unknown = |job: &Arc<Job>| finished(job).is_none() && !known.contains(uid(&job.metadata));
    if !jobs.iter().any(unknown) {
        return Ok(Some(cron));
    }
    let api: Api<CronJob> = context.api(&key.namespace);
    let fresh = api.get_opt(&key.name).await.map_err(SyncError::api("get", "CronJob", key))?;
    Ok(fresh.filter(|fresh| uid(&fresh.metadata) == uid(&cron.metadata)).map(Arc::new))
}

/// Uids of active jobs that are no more; the cache may only not have them yet.
async fn gone(
    context: &Context,
    key: &Key,
    cron: &CronJob,
    jobs: &[Arc<Job>],
) -> Result<HashSet<String>, SyncError> {
    let api: Api<Job> = context.api(&key.namespace);
    let mut gone = HashSet::new();
    for active in cron.status.iter().flat_map(|status| status.active.iter().flatten()) {
        let (Some(name), Some(id)) = (&active.name, &active.uid) else { continue };
        if jobs.iter().any(|job| uid(&job.metadata) == id) {
            continue;
        }
        let job = api.get_opt(name).await.map_err(SyncError::api("get", "Job", key))?;
        if job.is_none_or(|job| uid(&job.metadata) != id) {
            gone.insert(id.clone());
        }
    }
    Ok(gone)
}

/// A cron job being worked on.
struct Work<'a> {
    context: &'a Context,
    key: &'a Key,
    cron: &'a CronJob,
    api: Api<Job>,
}

impl Work<'_> {
    async fn run(&self, mut decision: Decision) -> Result<Again, SyncError> {
        for (severity, reason, message) in std::mem::take(&mut decision.tell) {
            self.tell(severity, reason, message);
        }
        for job in &decision.forget {
            self.delete(job.metadata.name.as_deref().unwrap_or_default(), uid(&job.metadata))
                .await?;
        }
        for job in &decision.replace {
            let (name, uid) = (job.name.as_deref(), job.uid.as_deref());
            self.delete(name.unwrap_or_default(), uid.unwrap_or_default()).await?;
        }
        let started = match decision.start {
            Some(scheduled) => self.start(&mut decision, scheduled).await,
            None => Ok(()),
        };
        let status = self.cron.status.clone().unwrap_or_default();
        if decision.status != status {
            let api = self.context.api::<CronJob>(&self.key.namespace);
            patch::write_status(&api, self.cron, Some(&status), &decision.status)
                .await
                .map_err(SyncError::api("update the status of", "CronJob", self.key))?;
        }
        started?;
        Ok(decision.again)
    }

    async fn start(&self, decision: &mut Decision, scheduled: Timestamp) -> Result<(), SyncError> {
        let job = self.job(scheduled);
        let name = job.metadata.name.clone().unwrap_or_default();
        let made = match self.api.create(&PostParams::default(), &job).await {
            Ok(made) => {
                self.tell(Severity::Normal, "SuccessfulCreate", format!("Created job {name}"));
                made
            }
            Err(error) if is_already_exists(&error) => {
                // Made before, but the status could not be written then.
                let known = self.api.get_opt(&name).await;
                let known = known.map_err(SyncError::api("get", "Job", self.key))?;
                let ours = |job: &Job| {
                    let owner = controller_of(&job.metadata);
                    owner.is_some_and(|owner| owner.uid == uid(&self.cron.metadata))
                };
                match known.filter(ours) {
                    Some(known) if finished(&known).is_none() => known,
                    _ => return Ok(()),
                }
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating job: {error}");
                    self.tell(Severity::Warning, "FailedCreate", message);
                }
                return Err(SyncError::api("create a job of", "CronJob", self.key)(error));
            }
        };
        decision.started(reference(&made), scheduled);
        Ok(())
    }

    fn job(&self, scheduled: Timestamp) -> Job {
        let spec = self.cron.spec.clone().unwrap_or_default();
        let zone = zone(&spec).unwrap_or(jiff::tz::TimeZone::UTC);
        let template = spec.job_template.metadata.unwrap_or_default();
        let mut annotations = template.annotations.unwrap_or_default();
        let local = scheduled.to_zoned(zone);
        let offset = local.offset();
        let time = if offset.is_zero() {
            scheduled.to_string()
        } else {
            scheduled.display_with_offset(offset).to_string()
        };
        annotations.insert(SCHEDULED.to_owned(), time);
        Job {
            metadata: ObjectMeta {
                name: Some(job_name(self.cron, scheduled)),
                namespace: Some(self.key.namespace.to_string()),
                labels: template.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference(self.cron)]),
                ..ObjectMeta::default()
            },
            spec: spec.job_template.spec,
            status: None,
        }
    }

    async fn delete(&self, name: &str, uid: &str) -> Result<(), SyncError> {
        let only_this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::background().preconditions(only_this);
        match self.api.delete(name, &params).await {
            Ok(_) => {
                let message = format!("Deleted job {name}");
                self.tell(Severity::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                self.tell(Severity::Warning, "FailedDelete", format!("Deleted job: {error}"));
                Err(SyncError::api("delete a job of", "CronJob", self.key)(error))
            }
        }
    }

    fn tell(&self, severity: Severity, reason: &'static str, message: String) {
        self.context.recorder.record(COMPONENT, self.cron, severity, reason, message);
    }
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some(Job::api_version(&()).into_owned()),
        kind: Some(Job::kind(&()).into_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}
