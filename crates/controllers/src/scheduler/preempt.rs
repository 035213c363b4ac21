//! Making room for a pod that fits nowhere: less important pods are marked and deleted, and the node
//! that they leave is kept for it.
//!
//! While it waits for them it counts on that node already (it is *nominated*), so that nothing
//! less important takes the room. It may still go elsewhere.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::PodCondition, policy::v1::PodDisruptionBudget},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Preconditions},
};
use serde_json::json;
use toono_placement::{Budget, PodKey, Preemption, Requirement};
use tracing::{debug, warn};

use super::{COMPONENT, Shared, queue::Waiting};
use crate::{
    context::Context,
    error::{chain, is_not_found},
    key::Key,
    kinds::pod::{Pod, WatchedPod},
    object::Metadata,
    patch,
    pods::uid,
    recorder::Severity,
};

/// Where a pod is to go once others have left.
pub(super) struct Nomination {
    pub(super) node: Box<str>,
    pub(super) victims: Vec<PodKey>,
}

/// Frees a node for the pod, if pushing out less important pods can.
pub(super) async fn make_room(shared: &Shared, context: &Context, waiting: &Waiting) {
    if !shared.state().wants_room(waiting) {
        return;
    }
    let budgets = match budgets(context).await {
        Ok(budgets) => budgets,
        Err(error) => return warn!(error = chain(&error), "no preemption: budgets are unknown"),
    };
    let Some(Preemption { node, victims }) = shared.state().nominate(waiting, &budgets) else {
        return;
    };
    for victim in &victims {
        let key = Key::new(&victim.namespace, &victim.name);
        if let Some(pod) = context.pods.get(&key) {
            push_out(context, waiting, &pod, &node).await;
        }
    }
    let key = &waiting.key();
    let api = context.api::<WatchedPod>(&key.namespace);
    let change = json!({"metadata": {"uid": uid(&waiting.pod.metadata)},
        "status": {"nominatedNodeName": node}});
    if let Err(error) = patch::merge_status_lists(&api, &key.name, &change).await {
        debug!(pod = %key.name, error = chain(&error), "nomination not written");
    }
}

async fn budgets(context: &Context) -> Result<Vec<Budget>, kube::Error> {
    let api = Api::<PodDisruptionBudget>::all(context.client.clone());
    let list = api.list(&ListParams::default()).await?;
    let budget = |budget: PodDisruptionBudget| {
        let selector = budget.spec?.selector?;
        Some(Budget {
            namespace: budget.metadata.namespace?.into(),
            selector: Requirement::of_selector(&selector),
            allowed: budget.status.map_or(0, |status| status.disruptions_allowed),
        })
    };
    Ok(list.items.into_iter().filter_map(budget).collect())
}

/// Says on a pod why it has to go, and deletes it; one that is leaving already only goes on.
async fn push_out(context: &Context, waiting: &Waiting, victim: &Arc<Pod>, node: &str) {
    if victim.metadata.is_leaving() {
        return;
    }
    let key = victim.metadata.key();
    let api = context.api::<WatchedPod>(&key.namespace);
    let mark = PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("PreemptionByScheduler".to_owned()),
        message: Some(format!("{COMPONENT}: preempting to accommodate a higher priority pod")),
        last_transition_time: Some(Time(Timestamp::now())),
        ..PodCondition::default()
    };
    let only_this = victim.metadata.uid().to_owned();
    let change = json!({"metadata": {"uid": only_this}, "status": {"conditions": [mark]}});
    if let Err(error) = patch::merge_status_lists(&api, &key.name, &change).await {
        debug!(pod = %key.name, error = chain(&error), "not marked as a victim");
    }
    let only_this = Preconditions { uid: Some(only_this), ..Preconditions::default() };
    match api.delete(&key.name, &DeleteParams::default().preconditions(only_this)).await {
        Ok(_) => {
            let message = format!("Preempted by pod {} on node {node}", uid(&waiting.pod.metadata));
            context.recorder.record(COMPONENT, &**victim, Severity::Normal, "Preempted", message);
        }
        Err(error) if is_not_found(&error) => {}
        Err(error) => warn!(pod = %key.name, error = chain(&error), "not preempted"),
    }
}
