//! Rows of the kinds by which a cluster is governed: quotas, budgets, priorities, roles, webhooks,
//! requests of certificates.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, age, column, human_duration, integer, is_true, name, text_or, wide};
use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
};

/// Columns of ResourceQuotas.
pub const RESOURCE_QUOTA: &[Column] =
    &[NAME, column("Request", "string"), column("Limit", "string"), AGE];
/// Columns of PodDisruptionBudgets.
pub const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    column("Min Available", "string"),
    column("Max Unavailable", "string"),
    column("Allowed Disruptions", "integer"),
    AGE,
];
/// Columns of PriorityClasses.
pub const PRIORITY_CLASS: &[Column] = &[
    NAME,
    column("Value", "integer"),
    column("Global-Default", "boolean"),
    AGE,
    column("PreemptionPolicy", "string"),
];
/// Columns of RuntimeClasses.
pub const RUNTIME_CLASS: &[Column] = &[NAME, column("Handler", "string"), AGE];
/// Columns of RoleBindings and ClusterRoleBindings.
pub const ROLE_BINDING: &[Column] = &[
    NAME,
    column("Role", "string"),
    AGE,
    wide("Users", "string"),
    wide("Groups", "string"),
    wide("ServiceAccounts", "string"),
];
/// Columns of webhook configurations.
pub const WEBHOOKS: &[Column] = &[NAME, column("Webhooks", "integer"), AGE];
/// Columns of CertificateSigningRequests.
pub const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "string"),
    column("Requestor", "string"),
    column("RequestedDuration", "string"),
    column("Condition", "string"),
];

/// A ResourceQuota's row.
#[must_use]
pub fn resource_quota_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let hard = at(object, &["status", "hard"]).and_then(Value::as_object);
    for (resource, hard) in hard.into_iter().flatten() {
        let used = text_or(object, &["status", "used", resource], "0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        let list = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(text);
    }
    vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
}

/// A PodDisruptionBudget's row.
#[must_use]
pub fn disruption_budget_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |field: &str| match at(object, &["spec", field]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "N/A".to_owned(),
    };
    vec![
        name(object),
        amount("minAvailable").into(),
        amount("maxUnavailable").into(),
        integer(object, &["status", "disruptionsAllowed"]).into(),
        age(object, now),
    ]
}

/// A PriorityClass's row.
#[must_use]
pub fn priority_class_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        integer(object, &["value"]).into(),
        is_true(object, &["globalDefault"]).into(),
        age(object, now),
        text_or(object, &["preemptionPolicy"], "").into(),
    ]
}

/// A RuntimeClass's row.
#[must_use]
pub fn runtime_class_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text_or(object, &["handler"], "").into(), age(object, now)]
}

/// A RoleBinding's or ClusterRoleBinding's row.
#[must_use]
pub fn role_binding_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        text_or(object, &["roleRef", "kind"], ""),
        text_or(object, &["roleRef", "name"], "")
    );
    let subjects = |kind: &str| {
        let all = items_at(object, &["subjects"])
            .filter(|subject| text_at(subject, &["kind"]) == Some(kind))
            .map(|subject| match text_or(subject, &["namespace"], "") {
                "" => text_or(subject, &["name"], "").to_owned(),
                namespace => format!("{namespace}/{}", text_or(subject, &["name"], "")),
            });
        all.collect::<Vec<_>>().join(", ")
    };
    vec![
        name(object),
        role.into(),
        age(object, now),
        subjects("User").into(),
        subjects("Group").into(),
        subjects("ServiceAccount").into(),
    ]
}

/// A webhook configuration's row.
#[must_use]
pub fn webhooks_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items_at(object, &["webhooks"]).count().into(), age(object, now)]
}

/// A CertificateSigningRequest's row.
#[must_use]
pub fn signing_request_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let life = at(object, &["spec", "expirationSeconds"]).and_then(Value::as_i64);
    vec![
        name(object),
        age(object, now),
        text_or(object, &["spec", "signerName"], NONE).into(),
        text_or(object, &["spec", "username"], "").into(),
        life.map_or_else(|| NONE.to_owned(), human_duration).into(),
        condition(object).into(),
    ]
}

fn condition(object: &Value) -> String {
    let has = |kind: &str| {
        items_at(object, &["status", "conditions"])
            .any(|condition| text_at(condition, &["type"]) == Some(kind))
    };
    let mut text = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !text_or(object, &["status", "certificate"], "").is_empty() {
        text.push_str(",Issued");
    }
    text
}
