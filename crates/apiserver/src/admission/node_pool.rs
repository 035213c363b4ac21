//! A node leaves its pool before it joins another one. Moved at once, it would have the work and the settings of two
//! pools while nobody sees it in both; so its label is set and taken away, and never exchanged.

use serde_json::Value;
use toono_api::{ApiError, FieldError, kinds::core::NODE, meta::text_at};

use super::{Operation, Review};

const LABEL: &str = "apps.openyurt.io/nodepool";

/// Whether the node stays in its pool, leaves it, or joins one.
///
/// # Errors
/// The refusal.
pub(super) fn validate(review: &Review<'_>, node: &Value) -> Result<(), ApiError> {
    if review.operation != Operation::Update || !review.resource.is(&NODE) {
        return Ok(());
    }
    let pool = |node| text_at(node, &["metadata", "labels", LABEL]).filter(|pool| !pool.is_empty());
    let (Some(old), Some(new)) = (review.old.and_then(pool), pool(node)) else { return Ok(()) };
    if old == new {
        return Ok(());
    }
    let why = format!(
        "the node is in pool {old:?} and leaves it before it joins another: take the label away first \
         (kubectl label node {} {LABEL}-)",
        review.name
    );
    Err(ApiError::Invalid {
        kind: review.resource.kind.to_string(),
        group: review.resource.group.to_string(),
        name: review.name.to_owned(),
        causes: vec![FieldError::invalid_text(format!("metadata.labels[{LABEL}]"), new, &why)],
    })
}
