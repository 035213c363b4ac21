//! Admission webhooks: other programs that change and judge writes.
//!
//! Which of them are asked is decided in `matching`, what they are sent and what they answer in
//! `exchange`, how they are reached in `call`. This owns the order, and what a failure means.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>

mod call;
mod conditions;
mod exchange;
mod matching;

use std::sync::Arc;

use futures::future::join_all;
use serde_json::Value;
use toono_api::{
    ApiError,
    kinds::admission::{MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION},
    meta::items_at,
};
use toono_store::Store;

use self::{
    exchange::{Answer, Refusal},
    matching::Webhook,
};
use super::Review;
use crate::{encode, remembered::Remembered};

/// Asks the mutating webhooks one after another, in the order of their configurations' names. One that
/// wants to see what later ones changed is asked once more.
pub(super) async fn mutate(
    review: &Review<'_>,
    object: &mut Value,
) -> Result<Vec<String>, ApiError> {
    let webhooks = asked_about(review, &review.server.inner.webhooks.mutating)?;
    let mut warnings = Vec::new();
    let mut asked = Vec::new();
    for (at, webhook) in webhooks.iter().enumerate() {
        if !webhook.is_asked(review, object)? {
            continue;
        }
        let before = object.clone();
        ask_to_change(webhook, review, object, &mut warnings).await?;
        asked.push((at, before != *object));
    }
    let last_change = asked.iter().rev().find(|(_, changed)| *changed).map(|(at, _)| *at);
    for (at, _) in &asked {
        let Some(webhook) = webhooks.get(*at) else { continue };
        let sees_later_changes = last_change.is_some_and(|last| last > *at);
        if webhook.wants_reinvocation() && sees_later_changes && webhook.is_asked(review, object)? {
            ask_to_change(webhook, review, object, &mut warnings).await?;
        }
    }
    Ok(warnings)
}

/// Asks the validating webhooks, all at once.
pub(super) async fn validate(review: &Review<'_>, object: &Value) -> Result<Vec<String>, ApiError> {
    let webhooks = asked_about(review, &review.server.inner.webhooks.validating)?;
    let mut asked = Vec::new();
    for webhook in webhooks.iter() {
        if webhook.is_asked(review, object)? {
            asked.push(webhook);
        }
    }
    let answers = asked.iter().map(|webhook| ask(webhook, review, object));
    let mut warnings = Vec::new();
    for answer in join_all(answers).await {
        warnings.extend(answer?.map(|answer| answer.warnings).unwrap_or_default());
    }
    Ok(warnings)
}

async fn ask_to_change(
    webhook: &Webhook,
    review: &Review<'_>,
    object: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let Some(answer) = ask(webhook, review, object).await? else { return Ok(()) };
    warnings.extend(answer.warnings);
    let Some(patch) = answer.patch else { return Ok(()) };
    let failed = |why: String| {
        ApiError::Internal(format!("failed calling webhook {:?}: {why}", webhook.name()))
    };
    let mut changed = object.clone();
    toono_apply::apply(toono_apply::PatchKind::Json, &mut changed, patch, None)
        .map_err(|error| failed(error.to_string()))?;
    // What a webhook adds is decoded and defaulted as what a client sends.
    let decoded = review.resource.behaviour.decode(changed);
    *object = decoded.map_err(|error| failed(error.to_string()))?.object;
    review.resource.behaviour.default(object);
    Ok(())
}

/// The webhook's answer; none if it failed and may be ignored.
async fn ask(
    webhook: &Webhook,
    review: &Review<'_>,
    object: &Value,
) -> Result<Option<Answer>, ApiError> {
    if review.dry_run && !webhook.is_free_of_side_effects() {
        let name = webhook.name();
        return Err(ApiError::BadRequest(format!(
            "admission webhook {name:?} does not support dry run"
        )));
    }
    match exchange::exchange(webhook, review, object).await {
        Ok(answer) => Ok(Some(answer)),
        Err(Refusal::Denied(error)) => Err(error),
        Err(Refusal::Failed(why)) if webhook.failures_are_ignored() => {
            tracing::warn!(webhook = webhook.name(), why, "a webhook failed and was ignored");
            Ok(None)
        }
        Err(Refusal::Failed(why)) => {
            Err(ApiError::Internal(format!("failed calling webhook {:?}: {why}", webhook.name())))
        }
    }
}

/// The webhooks of all configurations, in the order of the configurations' names.
#[derive(Debug)]
pub(crate) struct Webhooks {
    mutating: Remembered<Vec<Webhook>>,
    validating: Remembered<Vec<Webhook>>,
}

impl Webhooks {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            mutating: Remembered::new(store, &MUTATING_WEBHOOK_CONFIGURATION),
            validating: Remembered::new(store, &VALIDATING_WEBHOOK_CONFIGURATION),
        }
    }
}

/// Those that may be asked about a write.
fn asked_about(
    review: &Review<'_>,
    configured: &Remembered<Vec<Webhook>>,
) -> Result<Arc<Vec<Webhook>>, ApiError> {
    // Webhooks cannot make the cluster refuse their own removal.
    if review.resource.group == MUTATING_WEBHOOK_CONFIGURATION.group {
        return Ok(Arc::default());
    }
    configured.get(review.server, |resource, entries| {
        let mut webhooks = Vec::new();
        for entry in entries {
            let configuration = encode::decode(resource, &entry)?;
            webhooks.extend(items_at(&configuration, &["webhooks"]).cloned().map(Webhook::new));
        }
        Ok(webhooks)
    })
}
