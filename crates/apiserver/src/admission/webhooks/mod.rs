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

use futures::future::join_all;
use serde_json::Value;
use toono_api::{ApiError, BuiltIn, kinds, meta::items_at};
use toono_mvcc::Prefix;

use self::{
    exchange::{Answer, Refusal},
    matching::Webhook,
};
use super::Review;
use crate::{encode, server::expired};

/// Asks the mutating webhooks one after another, in the order of their configurations' names. One that
/// wants to see what later ones changed is asked once more.
pub(super) async fn mutate(
    review: &Review<'_>,
    object: &mut Value,
) -> Result<Vec<String>, ApiError> {
    let webhooks = webhooks(review, &kinds::admission::MUTATING_WEBHOOK_CONFIGURATION)?;
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
    let webhooks = webhooks(review, &kinds::admission::VALIDATING_WEBHOOK_CONFIGURATION)?;
    let mut asked = Vec::new();
    for webhook in &webhooks {
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

/// The webhooks of all configurations of a kind, in the order of the configurations' names.
fn webhooks(review: &Review<'_>, kind: &'static BuiltIn) -> Result<Vec<Webhook>, ApiError> {
    // Webhooks cannot make the cluster refuse their own removal.
    if review.resource.group == kind.group {
        return Ok(Vec::new());
    }
    let server = review.server;
    let resource = server.built_in(kind);
    let prefix = Prefix::resource(&resource.stored_group, &resource.stored_plural);
    let page = server.inner.store.list(&prefix, server.revision(), None, usize::MAX);
    let mut webhooks = Vec::new();
    for entry in page.map_err(expired)?.entries {
        let configuration = encode::decode(&resource, &entry)?;
        webhooks.extend(items_at(&configuration, &["webhooks"]).cloned().map(Webhook::new));
    }
    Ok(webhooks)
}
