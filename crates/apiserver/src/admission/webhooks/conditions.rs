//! `matchConditions`: expressions in CEL that must all be true for a webhook to be asked.

use serde_json::{Value, json};
use toono_api::{
    ApiError,
    meta::{items_at, text_at},
};

use super::{super::Review, exchange, matching::Webhook};

/// Whether all conditions of a webhook hold. One that is false counts before one that fails.
pub(super) fn hold(
    webhook: &Webhook,
    review: &Review<'_>,
    object: &Value,
) -> Result<bool, ApiError> {
    let mut conditions = items_at(webhook.spec(), &["matchConditions"]).peekable();
    if conditions.peek().is_none() {
        return Ok(true);
    }
    let request = exchange::request("", review, object);
    let variables = json!({
        "object": request.get("object"),
        "oldObject": request.get("oldObject"),
        "request": request,
    });
    let Some(variables) = variables.as_object() else { return Ok(true) };
    let mut failure = None;
    for condition in conditions {
        let expression = text_at(condition, &["expression"]).unwrap_or_default();
        match toono_schema::evaluate_condition(expression, variables) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        None => Ok(true),
        Some(_) if webhook.failures_are_ignored() => Ok(false),
        Some(error) => Err(review.forbidden(&format!(
            "failed to evaluate the match conditions of webhook {:?}: {error}",
            webhook.name()
        ))),
    }
}
