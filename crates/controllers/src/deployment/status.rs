//! What a deployment says of itself: numbers, availability, progress and its deadline.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use serde_json::{Value, json};

use super::{
    conditions::{
        self, AVAILABLE, NEW_AVAILABLE, PAUSED, PROGRESSING, REPLICA_FAILURE, REPLICA_SET_UPDATED,
        RESUMED, TIMED_OUT,
    },
    rollout::Rollout,
    sets::{self, limits, wanted},
};
use crate::{
    error::SyncError,
    patch::{self, omit_zero},
    worker::Again,
};

/// How much later than the deadline a stuck rollout is looked at again.
const AFTER_DEADLINE: Duration = Duration::from_secs(1);

/// Whether progress has a deadline; the largest number means none.
pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deadline(deployment).is_some()
}

fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment
        .spec
        .as_ref()?
        .progress_deadline_seconds
        .filter(|seconds| *seconds != i32::MAX)?;
    Some(SignedDuration::from_secs(seconds.into()))
}

impl Rollout<'_> {
    pub(super) fn conditions(&self) -> &[DeploymentCondition] {
        let status = self.deployment.status.as_ref();
        status.and_then(|status| status.conditions.as_deref()).unwrap_or_default()
    }

    /// All wanted replicas are of the new template and available.
    pub(super) fn is_complete(&self) -> bool {
        complete(&self.deployment, &self.count())
    }

    /// Writes numbers and availability, and leaves progress alone.
    pub(super) async fn write_plain_status(&mut self) -> Result<(), SyncError> {
        let status = self.count();
        self.write_if_changed(status).await
    }

    /// Writes the whole status; says when to look again for the deadline.
    pub(super) async fn write_status(&mut self) -> Result<Again, SyncError> {
        let mut status = self.count();
        self.judge_progress(&mut status);
        self.copy_replica_failure(&mut status);
        let again = self.until_deadline(&status);
        self.write_if_changed(status).await?;
        Ok(again)
    }

    /// Notes in the progress condition that the rollout was paused or goes on, so that the
    /// deadline does not count the pause.
    pub(super) async fn note_pausing(&mut self) -> Result<(), SyncError> {
        let reason = conditions::reason(self.conditions(), PROGRESSING);
        if !has_deadline(&self.deployment) || reason == TIMED_OUT {
            return Ok(());
        }
        let paused = self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        let (reason, message) = match (paused, reason == PAUSED) {
            (true, false) => (PAUSED, "Deployment is paused"),
            (false, true) => (RESUMED, "Deployment is resumed"),
            _ => return Ok(()),
        };
        self.set_condition(conditions::condition(
            PROGRESSING,
            "Unknown",
            reason,
            message.to_owned(),
        ))
        .await
    }

    /// Sets one condition at once.
    pub(super) async fn set_condition(
        &mut self,
        condition: DeploymentCondition,
    ) -> Result<(), SyncError> {
        let mut all = self.conditions().to_vec();
        conditions::set(&mut all, condition);
        if all == self.conditions() {
            return Ok(());
        }
        self.patch_status(json!({"status": {"conditions": all}})).await
    }

    pub(super) async fn patch_status(&mut self, change: Value) -> Result<(), SyncError> {
        let api = self.context.api(&self.key.namespace);
        let change = patch::on_top_of(&self.deployment, change);
        self.deployment = patch::merge_status(&api, &self.key.name, &change)
            .await
            .map_err(SyncError::api("update the status of", "Deployment", &self.key))?;
        Ok(())
    }

    fn count(&self) -> DeploymentStatus {
        let available = self.sum(sets::available);
        let mut conditions = self.conditions().to_vec();
        let limits = limits(&self.deployment);
        let (status, reason, message) = if available >= limits.fewest() {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            (
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        conditions::set(
            &mut conditions,
            conditions::condition(AVAILABLE, status, reason, message.to_owned()),
        );
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: Some(self.sum(sets::actual)),
            updated_replicas: Some(self.new.as_ref().map_or(0, |set| sets::actual(set))),
            ready_replicas: Some(self.sum(sets::ready)),
            available_replicas: Some(available),
            unavailable_replicas: Some((self.sum(sets::replicas) - available).max(0)),
            collision_count: self
                .deployment
                .status
                .as_ref()
                .and_then(|status| status.collision_count),
            conditions: Some(conditions),
            terminating_replicas: None,
        }
    }

    fn judge_progress(&self, status: &mut DeploymentStatus) {
        let conditions = status.conditions.get_or_insert_default();
        if !has_deadline(&self.deployment) {
            conditions::remove(conditions, PROGRESSING);
            return;
        }
        let current = conditions::find(self.conditions(), PROGRESSING).cloned();
        let was_complete = status.replicas == status.updated_replicas
            && current
                .as_ref()
                .is_some_and(|current| current.reason.as_deref() == Some(NEW_AVAILABLE));
        if was_complete {
            return;
        }
        let subject = match self.new.as_ref().and_then(|set| set.metadata.name.as_deref()) {
            Some(name) => format!("ReplicaSet \"{name}\""),
            None => format!("Deployment \"{}\"", self.key.name),
        };
        let progress = |status, reason, message: &str| {
            conditions::condition(PROGRESSING, status, reason, format!("{subject} {message}"))
        };
        if complete(&self.deployment, status) {
            let conditions = status.conditions.get_or_insert_default();
            conditions::set(
                conditions,
                progress("True", NEW_AVAILABLE, "has successfully progressed."),
            );
        } else if self.progressed(status) {
            let mut new = progress("True", REPLICA_SET_UPDATED, "is progressing.");
            if let Some(current) = current.filter(|current| current.status == "True") {
                new.last_transition_time = current.last_transition_time;
            }
            let conditions = status.conditions.get_or_insert_default();
            // Replaced even if only the time changes: the deadline counts from it.
            conditions::remove(conditions, PROGRESSING);
            conditions.push(new);
        } else if self.timed_out(current.as_ref()) {
            let conditions = status.conditions.get_or_insert_default();
            conditions::set(conditions, progress("False", TIMED_OUT, "has timed out progressing."));
        }
    }

    fn progressed(&self, new: &DeploymentStatus) -> bool {
        let old = self.deployment.status.clone().unwrap_or_default();
        let number = |number: Option<i32>| number.unwrap_or(0);
        let outdated =
            |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
        number(new.updated_replicas) > number(old.updated_replicas)
            || outdated(new) < outdated(&old)
            || number(new.ready_replicas) > number(old.ready_replicas)
            || number(new.available_replicas) > number(old.available_replicas)
    }

    fn timed_out(&self, current: Option<&DeploymentCondition>) -> bool {
        let (Some(deadline), Some(current)) = (deadline(&self.deployment), current) else {
            return false;
        };
        match current.reason.as_deref() {
            Some(NEW_AVAILABLE) => false,
            Some(TIMED_OUT) => true,
            _ => {
                let since = current.last_update_time.as_ref().map(|time| time.0);
                since.is_some_and(|since| Timestamp::now().duration_since(since) > deadline)
            }
        }
    }

    fn until_deadline(&self, status: &DeploymentStatus) -> Again {
        let deadline = deadline(&self.deployment)?;
        let current =
            conditions::find(status.conditions.as_deref().unwrap_or_default(), PROGRESSING)?;
        let settled = matches!(current.reason.as_deref(), Some(NEW_AVAILABLE | TIMED_OUT));
        if settled || complete(&self.deployment, status) {
            return None;
        }
        let since = current.last_update_time.as_ref()?.0;
        let left = deadline - Timestamp::now().duration_since(since);
        Some(Duration::try_from(left).unwrap_or_default() + AFTER_DEADLINE)
    }

    fn copy_replica_failure(&self, status: &mut DeploymentStatus) {
        let conditions = status.conditions.get_or_insert_default();
        let failure = self.new.iter().chain(&self.old).find_map(|set| {
            let all = set.status.as_ref()?.conditions.as_ref()?;
            all.iter().find(|condition| condition.type_ == REPLICA_FAILURE).cloned()
        });
        match failure {
            Some(failure) => {
                let message = failure.message.unwrap_or_default();
                let reason = failure.reason.unwrap_or_default();
                conditions::set(
                    conditions,
                    conditions::condition(REPLICA_FAILURE, &failure.status, &reason, message),
                );
            }
            None => conditions::remove(conditions, REPLICA_FAILURE),
        }
    }

    async fn write_if_changed(&mut self, status: DeploymentStatus) -> Result<(), SyncError> {
        let known = self.deployment.status.clone().unwrap_or_default();
        let numbers = |status: &DeploymentStatus| {
            [
                status.replicas,
                status.updated_replicas,
                status.ready_replicas,
                status.available_replicas,
                status.unavailable_replicas,
            ]
            .map(|number| number.unwrap_or(0))
        };
        let same = numbers(&known) == numbers(&status)
            && known.observed_generation == status.observed_generation
            && known.conditions.unwrap_or_default()
                == status.conditions.clone().unwrap_or_default();
        if same {
            return Ok(());
        }
        let [replicas, updated, ready, available, unavailable] = numbers(&status).map(omit_zero);
        let change = json!({"status": {
            "observedGeneration": status.observed_generation,
            "replicas": replicas,
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": available,
            "unavailableReplicas": unavailable,
            "conditions": status.conditions,
        }});
        self.patch_status(change).await
    }
}

fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas]
        .into_iter()
        .all(|number| number.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}
