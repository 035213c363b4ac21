//! What a replica set says of itself.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;

use crate::{
    context::Context,
    error::{SyncError, chain},
    key::Key,
    kinds::pod::Pod,
    patch::{self, omit_zero},
    pods::{is_available, is_ready},
};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The numbers of a replica set's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) replicas: i32,
    pub(super) fully_labeled: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
}

impl Numbers {
    pub(super) fn count(replica_set: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> Self {
        let spec = replica_set.spec.as_ref();
        let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let template =
            spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
        let fully_labeled = |pod: &Pod| {
            template
                .into_iter()
                .flatten()
                .all(|(key, value)| pod.metadata.label(key) == Some(value.as_str()))
        };
        let count = |test: &dyn Fn(&Pod) -> bool| {
            i32::try_from(pods.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
        };
        Self {
            replicas: count(&|_| true),
            fully_labeled: count(&fully_labeled),
            ready: count(&is_ready),
            available: count(&|pod| is_available(pod, min_ready, now)),
        }
    }

    fn read(replica_set: &ReplicaSet) -> Self {
        let status = replica_set.status.clone().unwrap_or_default();
        Self {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
        }
    }
}

/// Writes the status if it differs from what is there.
pub(super) async fn write(
    context: &Context,
    replica_set: &ReplicaSet,
    numbers: &Numbers,
    failure: Option<&SyncError>,
) -> Result<(), SyncError> {
    let status = replica_set.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let new_conditions = with_failure(replica_set, &conditions, failure);
    let observed = status.and_then(|status| status.observed_generation);
    let unchanged = Numbers::read(replica_set) == *numbers
        && observed == replica_set.metadata.generation
        && new_conditions == conditions;
    if unchanged {
        return Ok(());
    }
    let key = Key::of(&replica_set.metadata);
    let change = json!({"status": {
        "replicas": numbers.replicas,
        "fullyLabeledReplicas": omit_zero(numbers.fully_labeled),
        "readyReplicas": omit_zero(numbers.ready),
        "availableReplicas": omit_zero(numbers.available),
        "observedGeneration": replica_set.metadata.generation,
        "conditions": Some(new_conditions).filter(|all| !all.is_empty()),
    }});
    let change = patch::on_top_of(replica_set, change);
    let written =
        patch::merge_status(&context.api::<ReplicaSet>(&key.namespace), &key.name, &change).await;
    written.map(drop).map_err(SyncError::api("update the status of", "ReplicaSet", &key))
}

fn with_failure(
    replica_set: &ReplicaSet,
    conditions: &[ReplicaSetCondition],
    failure: Option<&SyncError>,
) -> Vec<ReplicaSetCondition> {
    let (known, mut others): (Vec<_>, Vec<_>) =
        conditions.iter().cloned().partition(|condition| condition.type_ == REPLICA_FAILURE);
    let Some(failure) = failure else { return others };
    let wanted = replica_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let present = replica_set.status.as_ref().map_or(0, |status| status.replicas);
    let condition = known.into_iter().next().unwrap_or_else(|| ReplicaSetCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: "True".to_owned(),
        reason: Some(if present < wanted { "FailedCreate" } else { "FailedDelete" }.to_owned()),
        message: Some(chain(failure)),
        last_transition_time: Some(Time(Timestamp::now())),
    });
    others.push(condition);
    others
}
