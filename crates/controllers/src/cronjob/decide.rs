//! What a cron job is to do now. Pure: the cron job, its jobs and the time in, a decision out.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::schedule::Schedule;
use crate::{
    job::finished,
    pods::{created, uid},
    recorder::Severity,
};

/// More missed times than this are a sign of a wrong clock, and are told.
const MANY_MISSED: usize = 100;
/// Timers may be early; a look before its time would be for nothing.
const SLACK: Duration = Duration::from_millis(100);

/// Something to tell.
pub(super) type Telling = (Severity, &'static str, String);

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) status: CronJobStatus,
    pub(super) tell: Vec<Telling>,
    /// Jobs beyond the limits of the history.
    pub(super) forget: Vec<Arc<Job>>,
    /// Running jobs that make way for a new one.
    pub(super) replace: Vec<ObjectReference>,
    /// The time that a job is to be made for.
    pub(super) start: Option<Timestamp>,
    pub(super) again: Option<Duration>,
}

/// `gone` are the uids of active jobs that the API does not have any more.
pub(super) fn decide(
    cron: &CronJob,
    spec: &CronJobSpec,
    jobs: &[Arc<Job>],
    gone: &HashSet<String>,
    now: Timestamp,
) -> Decision {
    let mut decision =
        Decision { status: cron.status.clone().unwrap_or_default(), ..Decision::default() };
    decision.observe(jobs, gone);
    decision.forget = beyond_history(spec, jobs);
    if cron.metadata.deletion_timestamp.is_none() {
        decision.schedule(cron, spec, now);
    }
    if decision.status.active.as_ref().is_some_and(Vec::is_empty) {
        decision.status.active = None;
    }
    decision
}

/// The name of the job for a scheduled time; it keeps two from being made.
pub(super) fn job_name(cron: &CronJob, scheduled: Timestamp) -> String {
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", scheduled.as_second() / 60)
}

/// The time zone of the schedule.
pub(super) fn zone(spec: &CronJobSpec) -> Result<TimeZone, String> {
    match spec.time_zone.as_deref() {
        None | Some("") => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name)
            .map_err(|_| format!("invalid timeZone: {name:?}: unknown time zone {name}")),
    }
}

/// How long from now to the next scheduled time.
pub(super) fn until_next(schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Duration> {
    let next = schedule.next(now, zone)?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default() + SLACK)
}

impl Decision {
    fn tell(&mut self, severity: Severity, reason: &'static str, message: String) {
        self.tell.push((severity, reason, message));
    }

    /// Takes over what the jobs say.
    fn observe(&mut self, jobs: &[Arc<Job>], gone: &HashSet<String>) {
        for job in jobs {
            let name = job.metadata.name.as_deref().unwrap_or_default();
            let active = self.status.active.get_or_insert_default();
            let listed =
                active.iter().any(|known| known.uid.as_deref() == Some(uid(&job.metadata)));
            let end = finished(job);
            match end {
                None if !listed => {
                    let message =
                        format!("Saw a job that the controller did not create or forgot: {name}");
                    self.tell(Severity::Warning, "UnexpectedJob", message);
                }
                Some(end) if listed => {
                    active.retain(|known| known.uid.as_deref() != Some(uid(&job.metadata)));
                    let message = format!("Saw completed job: {name}, condition: {}", end.type_);
                    self.tell(Severity::Normal, "SawCompletedJob", message);
                }
                _ => {}
            }
            let succeeded = end.is_some_and(|end| end.type_ == "Complete");
            let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
            let last = self.status.last_successful_time.as_ref();
            if let Some(time) = completed.filter(|_| succeeded)
                && last.is_none_or(|last| last.0 < time.0)
            {
                self.status.last_successful_time = Some(time);
            }
        }
        let missing =
            |known: &ObjectReference| known.uid.as_ref().is_some_and(|uid| gone.contains(uid));
        let mut active = self.status.active.take().unwrap_or_default();
        for job in active.iter().filter(|known| missing(known)) {
            let name = job.name.as_deref().unwrap_or_default();
            let message = format!("Active job went missing: {name}");
            self.tell(Severity::Normal, "MissingJob", message);
        }
        active.retain(|known| !missing(known));
        self.status.active = Some(active);
    }

    fn schedule(&mut self, cron: &CronJob, spec: &CronJobSpec, now: Timestamp) {
        let zone = match zone(spec) {
            Ok(zone) => zone,
            Err(message) => return self.tell(Severity::Warning, "UnknownTimeZone", message),
        };
        if spec.suspend == Some(true) {
            return;
        }
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                return self.tell(Severity::Warning, "UnparseableSchedule", message);
            }
        };
        self.again = until_next(&schedule, &zone, now);
        let Some((scheduled, missed)) = self.most_recent(cron, spec, &schedule, &zone, now) else {
            return;
        };
        if missed > MANY_MISSED {
            let message = "too many missed start times. Set or decrease \
                           .spec.startingDeadlineSeconds or check clock skew";
            self.tell(Severity::Warning, "TooManyMissedTimes", message.to_owned());
        }
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if deadline.is_some_and(|deadline| now.duration_since(scheduled) > deadline) {
            let at = scheduled.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let message = format!("Missed scheduled time to start a job: {at}");
            return self.tell(Severity::Warning, "MissSchedule", message);
        }
        if self.is_done(cron, scheduled) {
            return;
        }
        let active = self.status.active.clone().unwrap_or_default();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and \
                               concurrency policy is Forbid";
                return self.tell(Severity::Normal, "JobAlreadyActive", message.to_owned());
            }
            Some("Replace") => {
                self.replace = active;
                self.status.active = None;
            }
            _ => {}
        }
        self.start = Some(scheduled);
    }

    /// The last time at or before now that nothing was started for, and how many there were.
    fn most_recent(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        schedule: &Schedule,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Option<(Timestamp, usize)> {
        let last = self.status.last_schedule_time.as_ref().map(|Time(time)| *time);
        let mut since = last.or_else(|| created(&cron.metadata))?;
        if let Some(deadline) = spec.starting_deadline_seconds {
            let earliest = now.checked_sub(SignedDuration::from_secs(deadline)).ok()?;
            // A time exactly at the deadline is still in time.
            since = since.max(earliest.checked_sub(SignedDuration::from_nanos(1)).ok()?);
        }
        let mut recent = schedule.next(since, zone).filter(|first| *first <= now)?;
        let mut missed = 1;
        while let Some(next) = schedule.next(recent, zone).filter(|next| *next <= now) {
            missed += 1;
            if missed > MANY_MISSED {
                return Some((latest(schedule, zone, recent, now), missed));
            }
            recent = next;
        }
        Some((recent, missed))
    }

    fn is_done(&self, cron: &CronJob, scheduled: Timestamp) -> bool {
        let name = job_name(cron, scheduled);
        let active = self.status.active.iter().flatten();
        let running = active.into_iter().any(|job| job.name.as_deref() == Some(&name));
        let last = self.status.last_schedule_time.as_ref();
        running || last.is_some_and(|last| last.0 == scheduled)
    }

    /// A job was made, or was there already.
    pub(super) fn started(&mut self, reference: ObjectReference, scheduled: Timestamp) {
        let active = self.status.active.get_or_insert_default();
        if !active.iter().any(|known| known.uid == reference.uid) {
            active.push(reference);
        }
        self.status.last_schedule_time = Some(Time(scheduled));
    }
}

/// The last time of the schedule at or before now. Looks back farther and farther, as a schedule
/// can be asked for its next time only.
fn latest(schedule: &Schedule, zone: &TimeZone, known: Timestamp, now: Timestamp) -> Timestamp {
    let mut back = SignedDuration::from_secs(60);
    let mut recent = known;
    while let Ok(from) = now.checked_sub(back) {
        if from <= known {
            break;
        }
        if let Some(found) = schedule.next(from, zone).filter(|found| *found <= now) {
            recent = found;
            break;
        }
        back = back.saturating_mul(2);
    }
    while let Some(next) = schedule.next(recent, zone).filter(|next| *next <= now) {
        recent = next;
    }
    recent
}

/// The oldest finished jobs beyond the limits.
fn beyond_history(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ];
    let mut beyond = Vec::new();
    for (end, limit) in limits {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let ended = |job: &&Arc<Job>| {
            job.metadata.deletion_timestamp.is_none()
                && finished(job).is_some_and(|condition| condition.type_ == end)
        };
        let mut jobs: Vec<_> = jobs.iter().filter(ended).cloned().collect();
        let started = |job: &Job| job.status.as_ref()?.start_time.as_ref().map(|time| time.0);
        // One that never started is the youngest.
        jobs.sort_by_key(|job| (started(job).is_none(), started(job), job.metadata.name.clone()));
        let excess = jobs.len().saturating_sub(limit);
        beyond.extend(jobs.into_iter().take(excess));
    }
    beyond
}
