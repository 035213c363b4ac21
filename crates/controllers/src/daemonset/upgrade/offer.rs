//! What is written on a pod for an upgrade: the condition that people and OpenYurt's tools look at, and the offer
//! that its node goes by.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::Api;
use serde_json::{Value, json};
use toono_wire::upgrade::{self, Offer};

use crate::{
    context::Context,
    error::{SyncError, is_conflict, is_not_found},
    key::Key,
    kinds::pod::{Pod, WatchedPod},
    object::Metadata,
    patch,
    pods::condition,
};

/// What a template offers.
pub(crate) fn of_template(template: &PodTemplateSpec, revision: &str) -> Offer {
    let spec = template.spec.clone().unwrap_or_default();
    let containers = spec.init_containers.into_iter().flatten().chain(spec.containers);
    let mut images: Vec<String> = Vec::new();
    for image in containers.filter_map(|container| container.image) {
        if !images.contains(&image) {
            images.push(image);
        }
    }
    let secrets = spec.image_pull_secrets.into_iter().flatten().map(|secret| secret.name);
    Offer {
        revision: revision.to_owned(),
        images,
        image_pull_secrets: secrets.collect(),
        manifest: None,
    }
}

/// Whether a pod shows that this is offered to it.
pub(crate) fn is_made(pod: &Pod, text: &str) -> bool {
    is_needed(pod) == Some(true) && pod.metadata.annotation(upgrade::OFFER) == Some(text)
}

/// Whether a pod shows that it is of the newest revision.
pub(crate) fn is_withdrawn(pod: &Pod) -> bool {
    is_needed(pod) == Some(false) && !has_notes(pod)
}

/// What is on a pod for one upgrade, and nothing to the next.
const NOTES: [&str; 3] = [upgrade::OFFER, upgrade::APPROVED, upgrade::PULL];

fn is_needed(pod: &Pod) -> Option<bool> {
    condition(pod, upgrade::NEEDED).map(|needed| &*needed.status == "True")
}

/// Offers, in place of what was offered before, and of what was said of that. With `approved` nobody is waited
/// for, and nobody is to be told.
pub(crate) async fn make(
    context: &Context,
    pod: Arc<Pod>,
    offer: &Offer,
    approved: bool,
) -> Result<(), SyncError> {
    if !approved && is_needed(&pod) != Some(true) {
        let message = format!("revision {} waits for an approval", offer.revision);
        write_condition(context, &pod, true, &message).await?;
    }
    let answer = if approved { json!(offer.revision) } else { Value::Null };
    // Last, for it is what tells that all is written.
    let notes = json!({upgrade::OFFER: offer.to_text(), upgrade::APPROVED: answer,
        upgrade::PULL: null});
    write_notes(context, &pod, notes).await
}

/// There is nothing to offer (any more).
pub(crate) async fn withdraw(context: &Context, pod: Arc<Pod>) -> Result<(), SyncError> {
    if is_needed(&pod) != Some(false) {
        write_condition(context, &pod, false, "the pod is of the newest revision").await?;
    }
    if !has_notes(&pod) {
        return Ok(());
    }
    let none: serde_json::Map<_, _> =
        NOTES.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    write_notes(context, &pod, none.into()).await
}

fn has_notes(pod: &Pod) -> bool {
    NOTES.iter().any(|name| pod.metadata.annotation(name).is_some())
}

async fn write_condition(
    context: &Context,
    pod: &Pod,
    holds: bool,
    message: &str,
) -> Result<(), SyncError> {
    let (status, reason) = if holds { ("True", "UpgradeOffered") } else { ("False", "UpToDate") };
    let condition = json!({"type": upgrade::NEEDED, "status": status, "reason": reason,
        "message": message, "lastTransitionTime": Timestamp::now()});
    let change = json!({"metadata": {"uid": pod.metadata.uid()},
        "status": {"conditions": [condition]}});
    let key = pod.metadata.key();
    let pods: Api<WatchedPod> = context.api(&key.namespace);
    let written = patch::merge_status_lists(&pods, &key.name, &change).await;
    settle(written, "set a condition of", &key)
}

async fn write_notes(context: &Context, pod: &Pod, notes: Value) -> Result<(), SyncError> {
    let change = json!({"metadata": {"uid": pod.metadata.uid(), "annotations": notes}});
    let key = pod.metadata.key();
    let pods: Api<WatchedPod> = context.api(&key.namespace);
    settle(patch::merge(&pods, &key.name, &change).await, "annotate", &key)
}

/// A pod that is gone, or another of its name, is looked at when the cache shows it.
fn settle(
    written: Result<WatchedPod, kube::Error>,
    verb: &'static str,
    key: &Key,
) -> Result<(), SyncError> {
    match written {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(SyncError::api(verb, "Pod", key)(error)),
    }
}
