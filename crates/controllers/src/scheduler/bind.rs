//! Writing decisions: the binding, or the condition that says why there is none.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference, PodCondition},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time},
};
use kube::api::PostParams;
use serde_json::json;
use tracing::{debug, warn};

use super::{COMPONENT, Shared, queue::Waiting};
use crate::{
    context::Context,
    error::{chain, is_already_exists, is_conflict, is_not_found},
    kinds::pod::{Pod, WatchedPod},
    patch,
    pods::{condition, uid},
    recorder::Severity,
};

/// Binds a pod that is assumed on `node`.
pub(super) async fn bind(shared: &Shared, context: &Context, waiting: Waiting, node: &str) {
    let key = &waiting.key();
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            uid: Some(uid(&waiting.pod.metadata).to_owned()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api = context.api::<WatchedPod>(&key.namespace);
    let bound: Result<Status, _> =
        api.create_subresource("binding", &key.name, &PostParams::default(), &binding).await;
    match bound {
        Ok(_) => {
            let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
            context.recorder.record(
                COMPONENT,
                &*waiting.pod,
                Severity::Normal,
                "Scheduled",
                message,
            );
        }
        Err(error) if is_not_found(&error) => {
            debug!(pod = %key.name, error = chain(&error), "gone before it was bound");
            shared.forget(&waiting);
        }
        // Another pod by now, or bound by another: the watch will tell and end the waiting.
        Err(error) if is_conflict(&error) || is_already_exists(&error) => {
            debug!(pod = %key.name, error = chain(&error), "binding refused");
            shared.try_again(waiting);
        }
        Err(error) => {
            warn!(pod = %key.name, namespace = %key.namespace, error = chain(&error), "binding failed");
            shared.try_again(waiting);
        }
    }
}

/// Tells a pod why no node fits.
pub(super) async fn refuse(context: &Context, waiting: &Waiting, reasons: &str) {
    let pod = &*waiting.pod;
    context.recorder.record(
        COMPONENT,
        pod,
        Severity::Warning,
        "FailedScheduling",
        reasons.to_owned(),
    );
    let known = condition(pod, "PodScheduled");
    let told = waiting.told.as_deref() == Some(reasons)
        || known.is_some_and(|known| known.message.as_deref() == Some(reasons));
    if told {
        return;
    }
    let key = &waiting.key();
    let api = context.api::<WatchedPod>(&key.namespace);
    let change = json!({"status": {"conditions": [unschedulable(pod, reasons)]}});
    let change = patch::on_top_of(pod, change);
    if let Err(error) = patch::merge_status_lists(&api, &key.name, &change).await {
        debug!(pod = %key.name, error = chain(&error), "condition not written");
    }
}

/// The condition. Its time is not named, and so stays, while the pod is not scheduled.
fn unschedulable(pod: &Pod, reasons: &str) -> PodCondition {
    let known = condition(pod, "PodScheduled");
    let changes = known.is_none_or(|known| &*known.status != "False");
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(reasons.to_owned()),
        last_transition_time: changes.then(|| Time(Timestamp::now())),
        ..PodCondition::default()
    }
}
