//! What a daemon set says of itself.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use serde_json::json;

use super::{Daemons, Work, leaving, nodes::Eligibility, update::is_current};
use crate::{
    error::SyncError,
    patch::{self, omit_zero},
    pods::{is_available, is_ready},
};

pub(super) fn count(work: &Work<'_>, daemons: &Daemons, now: Timestamp) -> DaemonSetStatus {
    let min_ready = work.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let (mut updated, mut available) = (0, 0);
    let mut status =
        DaemonSetStatus { observed_generation: work.set.metadata.generation, ..Default::default() };
    for (eligibility, pods) in daemons.nodes.values() {
        let present = pods.iter().find(|pod| !leaving(pod));
        if *eligibility != Eligibility::Yes {
            status.number_misscheduled +=
                i32::from(*eligibility == Eligibility::No && present.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(first) = present else { continue };
        status.current_number_scheduled += 1;
        // With two daemons during a surge the one that serves counts.
        let serving =
            pods.iter().filter(|pod| !leaving(pod)).find(|pod| is_ready(pod)).unwrap_or(first);
        status.number_ready += i32::from(is_ready(serving));
        available += i32::from(is_available(serving, min_ready, now));
        let newest = pods.iter().rfind(|pod| !leaving(pod)).unwrap_or(first);
        updated += i32::from(is_current(newest, work.hash));
    }
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    status
}

/// Whether daemons are ready but not yet available.
pub(super) fn is_settling(status: &DaemonSetStatus) -> bool {
    status.number_ready != status.number_available.unwrap_or(0)
}

/// Writes the status if it changed; says whether daemons are ready but not yet available.
pub(super) async fn write(
    work: &Work<'_>,
    daemons: &Daemons,
    now: Timestamp,
) -> Result<bool, SyncError> {
    let new = count(work, daemons, now);
    let settling = is_settling(&new);
    let old = work.set.status.clone().unwrap_or_default();
    let numbers = |status: &DaemonSetStatus| {
        [
            status.current_number_scheduled,
            status.desired_number_scheduled,
            status.number_misscheduled,
            status.number_ready,
            status.number_available.unwrap_or(0),
            status.number_unavailable.unwrap_or(0),
            status.updated_number_scheduled.unwrap_or(0),
        ]
    };
    if numbers(&old) == numbers(&new) && old.observed_generation == new.observed_generation {
        return Ok(settling);
    }
    let change = json!({"status": {
        "currentNumberScheduled": new.current_number_scheduled,
        "desiredNumberScheduled": new.desired_number_scheduled,
        "numberMisscheduled": new.number_misscheduled,
        "numberReady": new.number_ready,
        "numberAvailable": omit_zero(new.number_available.unwrap_or(0)),
        "numberUnavailable": omit_zero(new.number_unavailable.unwrap_or(0)),
        "updatedNumberScheduled": omit_zero(new.updated_number_scheduled.unwrap_or(0)),
        "observedGeneration": new.observed_generation,
    }});
    let change = patch::on_top_of(work.set, change);
    let api = work.context.api::<DaemonSet>(&work.key.namespace);
    patch::merge_status(&api, &work.key.name, &change).await.map_err(SyncError::api(
        "update the status of",
        "DaemonSet",
        work.key,
    ))?;
    Ok(settling)
}
