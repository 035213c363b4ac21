//! `SubjectAccessReview` and its kin: may somebody do something?

use serde_json::{Value, json};
use toono_access::{Attributes, Request, ResourceRequest};
use toono_api::{
    ApiError, FieldError, FieldSelector, Resource, UserInfo,
    meta::{at, items_at, text_at},
};

use super::user_of;
use crate::server::ApiServer;

const BOTH: &str = "cannot be specified in combination with resourceAttributes";
const NEITHER: &str =
    "exactly one of nonResourceAttributes or resourceAttributes must be specified";

/// The status of a `SelfSubjectAccessReview`.
pub(super) fn of_self(
    server: &ApiServer,
    user: &UserInfo,
    resource: &Resource,
    review: &Value,
) -> Result<Value, ApiError> {
    let (spec, errors) = checked(review);
    refuse(resource, errors)?;
    Ok(decided(server, user, spec))
}

/// The status of a `SubjectAccessReview`.
pub(super) fn of_other(
    server: &ApiServer,
    resource: &Resource,
    review: &Value,
) -> Result<Value, ApiError> {
    let (spec, mut errors) = checked(review);
    errors.extend(unnamed(spec));
    refuse(resource, errors)?;
    Ok(decided(server, &user_of(spec), spec))
}

/// The status of a `LocalSubjectAccessReview`.
pub(super) fn of_other_in(
    server: &ApiServer,
    resource: &Resource,
    namespace: &str,
    review: &Value,
) -> Result<Value, ApiError> {
    let (spec, mut errors) = checked(review);
    errors.extend(unnamed(spec));
    if let Some(attributes) = given(spec, "resourceAttributes") {
        let asked = text_at(attributes, &["namespace"]).unwrap_or_default();
        if asked != namespace {
            errors.push(FieldError::invalid_text(
                "spec.resourceAttributes.namespace",
                asked,
                "must match metadata.namespace",
            ));
        }
    }
    if let Some(attributes) = given(spec, "nonResourceAttributes") {
        let field = "spec.nonResourceAttributes";
        errors.push(FieldError::invalid(field, attributes, "disallowed on this kind of request"));
    }
    refuse(resource, errors)?;
    Ok(decided(server, &user_of(spec), spec))
}

fn given<'v>(spec: &'v Value, field: &str) -> Option<&'v Value> {
    spec.get(field).filter(|value| !value.is_null())
}

/// What is asked, and what is wrong with the question.
fn checked(review: &Value) -> (&Value, Vec<FieldError>) {
    let spec = at(review, &["spec"]).unwrap_or(&Value::Null);
    let (resource, path) =
        (given(spec, "resourceAttributes"), given(spec, "nonResourceAttributes"));
    let error = match (resource, path) {
        (Some(_), Some(path)) => {
            Some(FieldError::invalid("spec.nonResourceAttributes", path, BOTH))
        }
        (None, None) => Some(FieldError::invalid("spec.resourceAttributes", &Value::Null, NEITHER)),
        _ => None,
    };
    (spec, error.into_iter().collect())
}

fn unnamed(spec: &Value) -> Option<FieldError> {
    let named = text_at(spec, &["user"]).is_some_and(|user| !user.is_empty())
        || items_at(spec, &["groups"]).next().is_some();
    let why = "at least one of user or group must be specified";
    (!named).then(|| FieldError::invalid_text("spec.user", "", why))
}

fn refuse(resource: &Resource, causes: Vec<FieldError>) -> Result<(), ApiError> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid {
        kind: resource.kind.to_string(),
        group: resource.group.to_string(),
        name: String::new(),
        causes,
    })
}

fn decided(server: &ApiServer, user: &UserInfo, spec: &Value) -> Value {
    let asked = given(spec, "resourceAttributes");
    let attributes = asked.or_else(|| given(spec, "nonResourceAttributes")).unwrap_or(&Value::Null);
    let text = |field| text_at(attributes, &[field]).unwrap_or_default();
    let selector = asked.and_then(selector);
    let request = match asked {
        None => Request::NonResource { path: text("path") },
        Some(_) => {
            let request = ResourceRequest {
                api_group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
                selector: None,
            };
            Request::Resource(ResourceRequest { selector: selector.as_ref(), ..request })
        }
    };
    let decision = server.inner.gate.decide(&Attributes { user, verb: text("verb"), request });
    let mut status = json!({"allowed": decision.is_allowed()});
    if !decision.reason().is_empty() {
        crate::encode::set(&mut status, "reason", decision.reason());
    }
    status
}

/// The field selector of a review, which is either as a query has it or taken apart.
fn selector(attributes: &Value) -> Option<FieldSelector> {
    let raw = text_at(attributes, &["fieldSelector", "rawSelector"]).unwrap_or_default();
    if !raw.is_empty() {
        return crate::access::any_selector(raw);
    }
    let mut terms = Vec::new();
    for requirement in items_at(attributes, &["fieldSelector", "requirements"]) {
        let sign = match text_at(requirement, &["operator"])? {
            "In" => "=",
            "NotIn" => "!=",
            // One that is not understood restricts nothing, as in Kubernetes.
            _ => continue,
        };
        let (field, mut values) =
            (text_at(requirement, &["key"])?, items_at(requirement, &["values"]));
        let (Some(value), None) = (values.next().and_then(Value::as_str), values.next()) else {
            continue;
        };
        terms.push(format!("{field}{sign}{value}"));
    }
    crate::access::any_selector(&terms.join(",")).filter(|selector| !selector.is_everything())
}
