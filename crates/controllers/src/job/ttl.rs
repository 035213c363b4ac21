//! Jobs that are over are deleted `ttlSecondsAfterFinished` later.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};

use super::facts::finished;
use crate::{
    context::Context,
    error::{SyncError, is_conflict, is_not_found},
    key::Key,
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "ttl-after-finished-controller";

/// Deletes finished jobs in time.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.jobs.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(job) = change.new.as_ref().filter(|job| expires(job).is_some()) {
                    queue.add(Key::of(&job.metadata));
                }
            }
        });
        Self { queue }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let workers = context.config.concurrent_syncs;
        let context = &context;
        let sync = |key: Key| async move { sync(context, &key).await };
        worker::run(COMPONENT, workers, self.queue, sync).await;
    }
}

/// When a job's time is over; none if it has none or has not finished.
fn expires(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let end = finished(job)?.last_transition_time.as_ref()?.0;
    let leaving = job.metadata.deletion_timestamp.is_some();
    end.checked_add(SignedDuration::from_secs(ttl.into())).ok().filter(|_| !leaving)
}

fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    expires(job).map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default())
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(job) = context.jobs.get(key) else { return Ok(None) };
    match left(&job, Timestamp::now()) {
        None => return Ok(None),
        Some(left) if !left.is_zero() => return Ok(Some(left)),
        Some(_) => {}
    }
    // The cache may be old, and somebody may have given the job more time.
    let api: Api<Job> = context.api(&key.namespace);
    let fresh = api.get_opt(&key.name).await.map_err(SyncError::api("get", "Job", key))?;
    let Some(fresh) = fresh else { return Ok(None) };
    match left(&fresh, Timestamp::now()) {
        None => return Ok(None),
        Some(left) if !left.is_zero() => return Ok(Some(left)),
        Some(_) => {}
    }
    let only_this = Preconditions {
        uid: fresh.metadata.uid.clone(),
        resource_version: fresh.metadata.resource_version.clone(),
    };
    let params = DeleteParams::foreground().preconditions(only_this);
    match api.delete(&key.name, &params).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) if is_conflict(&error) => Ok(Some(Duration::from_secs(1))),
        Err(error) => Err(SyncError::api("delete", "Job", key)(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn time_runs_from_the_end() {
        let job = |ttl, conditions| -> Job {
            serde_json::from_value(json!({"metadata": {}, "spec": {
                "template": {}, "ttlSecondsAfterFinished": ttl}, "status": {"conditions": conditions}}))
            .unwrap()
        };
        let failed = json!([{"type": "Failed", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let now = "2026-01-01T00:00:04Z".parse().unwrap();
        assert_eq!(left(&job(json!(10), failed.clone()), now), Some(Duration::from_secs(6)));
        assert_eq!(left(&job(json!(0), failed.clone()), now), Some(Duration::ZERO));
        assert_eq!(left(&job(json!(null), failed), now), None);
        assert_eq!(left(&job(json!(0), json!([])), now), None);
    }
}
