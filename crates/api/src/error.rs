//! What the API answers instead of an object: the error family, and its form as `metav1.Status`.
//!
//! Reasons, codes and messages are those of Kubernetes, because clients compare them.

use std::fmt;

use serde_json::{Value, json};

/// What an error is about: `plural` or `plural.group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupResource {
    /// API group, empty for the core group.
    pub group: String,
    /// Plural resource name.
    pub resource: String,
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Machine-readable kind of the fault.
    pub reason: FieldReason,
    /// Where: `spec.containers[0].image`.
    pub field: String,
    /// What, as Kubernetes says it, without the field.
    pub message: String,
}

/// Kinds of faults of a field, by their wire names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    /// Missing.
    Required,
    /// Malformed or out of range.
    Invalid,
    /// Not one of the known values.
    NotSupported,
    /// Given twice.
    Duplicate,
    /// May not be set or changed.
    Forbidden,
    /// Names something that is not there.
    NotFound,
    /// More bytes than there may be.
    TooLong,
    /// More items than there may be.
    TooMany,
    /// Of another JSON type.
    TypeInvalid,
    /// Could not be judged.
    Internal,
}

impl FieldReason {
    fn wire(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

impl FieldError {
    /// The field is missing; `why` may be empty.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message =
            if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") };
        Self { reason: FieldReason::Required, field: field.into(), message }
    }

    /// The field's value is wrong.
    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        let message = format!("Invalid value: {value}: {why}");
        Self { reason: FieldReason::Invalid, field: field.into(), message }
    }

    /// The field's value is a wrong text.
    pub fn invalid_text(field: impl Into<String>, value: &str, why: &str) -> Self {
        Self::invalid(field, &Value::from(value), why)
    }

    /// The field's value is none of those known.
    pub fn not_supported(field: impl Into<String>, value: &str, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|value| format!("{value:?}")).collect();
        let message =
            format!("Unsupported value: {value:?}: supported values: {}", known.join(", "));
        Self { reason: FieldReason::NotSupported, field: field.into(), message }
    }

    /// The value was seen before in the same list.
    pub fn duplicate(field: impl Into<String>, value: &str) -> Self {
        let message = format!("Duplicate value: {value:?}");
        Self { reason: FieldReason::Duplicate, field: field.into(), message }
    }

    /// The field may not be set (or changed) here.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self {
            reason: FieldReason::Forbidden,
            field: field.into(),
            message: format!("Forbidden: {why}"),
        }
    }
}

/// Most causes that one answer names: who reads more, and each costs memory and time.
pub const CAUSES_MAX: usize = 100;

/// The causes that an answer names; where there are more, which nobody counts, the last says so.
#[must_use]
pub fn bounded(mut causes: Vec<FieldError>) -> Vec<FieldError> {
    if causes.len() > CAUSES_MAX {
        causes.truncate(CAUSES_MAX);
        if let Some(last) = causes.last_mut() {
            last.reason = FieldReason::TooMany;
            last.message = "Too many: this and more errors are not told".to_owned();
        }
    }
    causes
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Everything that the API may refuse a request with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 404 for an object.
    #[error("{resource} {name:?} not found")]
    NotFound {
        /// Of which resource.
        resource: GroupResource,
        /// The object that is not there.
        name: String,
    },
    /// 404 for a path.
    #[error("the server could not find the requested resource")]
    UnknownPath,
    /// 409: the name is taken.
    #[error("{resource} {name:?} already exists")]
    AlreadyExists {
        /// Of which resource.
        resource: GroupResource,
        /// The name that is taken.
        name: String,
    },
    /// 409: the object is not in the state that the request builds on.
    #[error("Operation cannot be fulfilled on {resource} {name:?}: {why}")]
    Conflict {
        /// Of which resource.
        resource: GroupResource,
        /// The object.
        name: String,
        /// What differs.
        why: String,
    },
    /// 409: what is applied is owned by others, with other values.
    #[error("{message}")]
    ApplyConflict {
        /// Who owns what.
        message: String,
        /// The same as `metav1.StatusCause`s.
        causes: Vec<Value>,
    },
    /// 422: the object breaks rules.
    #[error("{} {name:?} is invalid: {}", kind_group(.kind, .group), causes_text(.causes))]
    Invalid {
        /// Kind of the object.
        kind: String,
        /// API group of the object.
        group: String,
        /// Name of the object.
        name: String,
        /// Every rule that it breaks.
        causes: Vec<FieldError>,
    },
    /// 400.
    #[error("{0}")]
    BadRequest(String),
    /// 401.
    #[error("Unauthorized")]
    Unauthorized,
    /// 403 for a resource.
    #[error("{}{} is forbidden: {why}", .resource, quoted(.name))]
    Forbidden {
        /// Of which resource.
        resource: GroupResource,
        /// The object, if one was named.
        name: String,
        /// Who may not do what.
        why: String,
    },
    /// 403 for a path that is no resource.
    #[error("forbidden: {0}")]
    ForbiddenPath(String),
    /// A refusal in the words of another program, with its code and reason.
    #[error("{message}")]
    Denied {
        /// The HTTP status code.
        code: u16,
        /// The machine-readable reason.
        reason: String,
        /// Why.
        message: String,
    },
    /// 405.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// 406.
    #[error("only the following media types are accepted: {0}")]
    NotAcceptable(String),
    /// 410 for a revision that was compacted away.
    #[error("{0}")]
    Expired(String),
    /// 410 in the middle of a list, which may go on with what there is now.
    #[error("{message}")]
    ExpiredContinue {
        /// What it means to go on.
        message: String,
        /// How to.
        continue_token: String,
    },
    /// 413.
    #[error("Request entity too large: limit is {limit_bytes}")]
    TooLarge {
        /// Most bytes that are read.
        limit_bytes: usize,
    },
    /// 415.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// 429.
    #[error("{message}")]
    TooManyRequests {
        /// Of what there are too many.
        message: String,
        /// When to try again.
        retry_after_seconds: u32,
    },
    /// 429: a pod may not go since its disruption budget has nothing left.
    #[error("Cannot evict pod as it would violate the pod's disruption budget.")]
    BudgetExceeded {
        /// Which budget, and what it needs.
        cause: String,
        /// When to try again; 0 when nobody knows.
        retry_after_seconds: u32,
    },
    /// 500.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// 500 without a reason: what Kubernetes answers when an object has not the shape of its kind.
    #[error("{0}")]
    Untyped(String),
    /// 503.
    #[error("{0}")]
    Unavailable(String),
    /// 504: the work took too long.
    #[error("{0}")]
    Timeout(String),
    /// 504: the asked-for revision is not there yet. Clients know it by its cause, and list anew.
    #[error("Timeout: Too large resource version: {asked}, current: {newest}")]
    RevisionTooLarge {
        /// The revision asked for.
        asked: u64,
        /// The newest that there is.
        newest: u64,
    },
}

fn kind_group(kind: &str, group: &str) -> String {
    if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") }
}

fn quoted(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" {name:?}") }
}

fn causes_text(causes: &[FieldError]) -> String {
    match causes {
        [one] => one.to_string(),
        many => {
            let texts: Vec<String> = many.iter().map(ToString::to_string).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}

impl ApiError {
    /// A conflict because the object has moved on since it was read.
    #[must_use]
    pub fn modified(resource: GroupResource, name: &str) -> Self {
        Self::Conflict {
            resource,
            name: name.to_owned(),
            why: "the object has been modified; please apply your changes to the latest version \
                  and try again"
                .to_owned(),
        }
    }

    /// A revision that is no longer kept.
    #[must_use]
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::Expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code_and_reason().0
    }

    /// The machine-readable reason (`metav1.StatusReason`).
    #[must_use]
    pub fn reason(&self) -> &str {
        self.code_and_reason().1
    }

    fn code_and_reason(&self) -> (u16, &str) {
        match self {
            Self::Denied { code, reason, .. } => (*code, reason),
            Self::NotFound { .. } | Self::UnknownPath => (404, "NotFound"),
            Self::AlreadyExists { .. } => (409, "AlreadyExists"),
            Self::Conflict { .. } | Self::ApplyConflict { .. } => (409, "Conflict"),
            Self::Invalid { .. } => (422, "Invalid"),
            Self::BadRequest(_) => (400, "BadRequest"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden { .. } | Self::ForbiddenPath(_) => (403, "Forbidden"),
            Self::MethodNotAllowed => (405, "MethodNotAllowed"),
            Self::NotAcceptable(_) => (406, "NotAcceptable"),
            Self::Expired(_) | Self::ExpiredContinue { .. } => (410, "Expired"),
            Self::TooLarge { .. } => (413, "RequestEntityTooLarge"),
            Self::UnsupportedMediaType(_) => (415, "UnsupportedMediaType"),
            Self::TooManyRequests { .. } | Self::BudgetExceeded { .. } => (429, "TooManyRequests"),
            Self::Internal(_) => (500, "InternalError"),
            Self::Untyped(_) => (500, ""),
            Self::Unavailable(_) => (503, "ServiceUnavailable"),
            Self::Timeout(_) | Self::RevisionTooLarge { .. } => (504, "Timeout"),
        }
    }

    /// The error as a `metav1.Status` object.
    #[must_use]
    pub fn to_status(&self) -> Value {
        let metadata = match self {
            Self::ExpiredContinue { continue_token, .. } => json!({"continue": continue_token}),
            _ => json!({}),
        };
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.to_string(),
            "reason": self.reason(),
            "details": self.details(),
            "code": self.code(),
        })
    }

    fn details(&self) -> Value {
        match self {
            Self::NotFound { resource, name }
            | Self::AlreadyExists { resource, name }
            | Self::Conflict { resource, name, .. }
            | Self::Forbidden { resource, name, .. } => details_of(resource, name),
            Self::Invalid { kind, group, name, causes } => {
                let causes: Vec<Value> = causes
                    .iter()
                    .map(|cause| {
                        json!({"reason": cause.reason.wire(), "message": cause.message,
                               "field": cause.field})
                    })
                    .collect();
                json!({"name": name, "group": group, "kind": kind, "causes": causes})
            }
            Self::ApplyConflict { causes, .. } => json!({"causes": causes}),
            Self::BudgetExceeded { cause, retry_after_seconds } => {
                let cause = json!({"reason": "DisruptionBudget", "message": cause});
                let mut details = json!({"causes": [cause]});
                if let Some(fields) = details.as_object_mut().filter(|_| *retry_after_seconds > 0) {
                    fields.insert("retryAfterSeconds".into(), (*retry_after_seconds).into());
                }
                details
            }
            Self::TooManyRequests { retry_after_seconds, .. } => {
                json!({"retryAfterSeconds": retry_after_seconds})
            }
            Self::RevisionTooLarge { .. } => {
                let cause = json!({"reason": "ResourceVersionTooLarge",
                                   "message": "Too large resource version"});
                json!({"causes": [cause], "retryAfterSeconds": 1})
            }
            _ => json!({}),
        }
    }
}

fn details_of(resource: &GroupResource, name: &str) -> Value {
    let mut details = serde_json::Map::new();
    if !name.is_empty() {
        details.insert("name".into(), name.into());
    }
    if !resource.group.is_empty() {
        details.insert("group".into(), resource.group.clone().into());
    }
    details.insert("kind".into(), resource.resource.clone().into());
    Value::Object(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployments() -> GroupResource {
        GroupResource { group: "apps".into(), resource: "deployments".into() }
    }

    #[test]
    fn a_revision_of_the_future_is_known_by_its_cause() {
        let status = ApiError::RevisionTooLarge { asked: 9, newest: 3 }.to_status();
        assert_eq!(status["message"], "Timeout: Too large resource version: 9, current: 3");
        assert_eq!((&status["code"], &status["reason"]), (&json!(504), &json!("Timeout")));
        assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    }

    #[test]
    fn of_many_causes_the_last_says_how_many_more_there_are() {
        let causes = |count: usize| {
            (0..count).map(|at| FieldError::required(format!("a[{at}]"), "")).collect::<Vec<_>>()
        };
        assert_eq!(bounded(causes(CAUSES_MAX)), causes(CAUSES_MAX));
        let told = bounded(causes(CAUSES_MAX + 7));
        assert_eq!(told.len(), CAUSES_MAX);
        assert_eq!(
            told.last().unwrap().to_string(),
            "a[99]: Too many: this and more errors are not told"
        );
    }

    #[test]
    fn messages_are_those_that_clients_know() {
        let pods = GroupResource { group: String::new(), resource: "pods".into() };
        let table = [
            (
                ApiError::NotFound { resource: pods.clone(), name: "x".into() },
                404,
                "pods \"x\" not found",
            ),
            (
                ApiError::AlreadyExists { resource: deployments(), name: "x".into() },
                409,
                "deployments.apps \"x\" already exists",
            ),
            (
                ApiError::modified(deployments(), "x"),
                409,
                "Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (
                ApiError::Forbidden { resource: pods, name: String::new(), why: "no".into() },
                403,
                "pods is forbidden: no",
            ),
            (
                ApiError::Invalid {
                    kind: "Deployment".into(),
                    group: "apps".into(),
                    name: "x".into(),
                    causes: vec![FieldError::required("spec.selector", "")],
                },
                422,
                "Deployment.apps \"x\" is invalid: spec.selector: Required value",
            ),
        ];
        for (error, code, message) in table {
            assert_eq!(error.code(), code);
            assert_eq!(error.to_string(), message);
            assert_eq!(error.to_status()["message"], message);
        }
    }
}
