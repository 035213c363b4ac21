//! Which options of a list and of a watch go together. What they mean is decided in `list` and `watch`.
//!
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>

use toono_api::{ApiError, FieldError};

use crate::query::Query;

const MATCH: &str = "resourceVersionMatch";
const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// Refuses options of a list that contradict each other.
pub(super) fn validate_list(query: &Query) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    if let Some(matching) = query.text(MATCH) {
        let version = query.text("resourceVersion");
        if version.is_none() {
            causes.push(FieldError::forbidden(
                MATCH,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        causes.extend(with_continue(query));
        if !matches!(matching, EXACT | NOT_OLDER_THAN) {
            causes.push(FieldError::not_supported(MATCH, matching, &[EXACT, NOT_OLDER_THAN, ""]));
        }
        if (matching, version) == (EXACT, Some("0")) {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(FieldError::forbidden(MATCH, why));
        }
    }
    if query.text("sendInitialEvents").is_some() {
        let why = "sendInitialEvents is forbidden for list";
        causes.push(FieldError::forbidden("sendInitialEvents", why));
    }
    refuse(causes)
}

/// Refuses options of a watch that contradict each other.
pub(super) fn validate_watch(query: &Query) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    let initial = query.text("sendInitialEvents").is_some();
    let matching = query.text(MATCH);
    if initial && matching != Some(NOT_OLDER_THAN) {
        causes.push(FieldError::forbidden(
            MATCH,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if let Some(matching) = matching {
        if !initial {
            causes.push(FieldError::forbidden(
                MATCH,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if matching != NOT_OLDER_THAN {
            causes.push(FieldError::not_supported(MATCH, matching, &[NOT_OLDER_THAN]));
        }
        causes.extend(with_continue(query));
    }
    refuse(causes)
}

fn with_continue(query: &Query) -> Option<FieldError> {
    query.text("continue").map(|_| {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        FieldError::forbidden(MATCH, why)
    })
}

fn refuse(causes: Vec<FieldError>) -> Result<(), ApiError> {
    if causes.is_empty() {
        return Ok(());
    }
    let (kind, group) = ("ListOptions".to_owned(), "meta.k8s.io".to_owned());
    Err(ApiError::Invalid { kind, group, name: String::new(), causes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(validate: fn(&Query) -> Result<(), ApiError>, query: &str) -> Vec<(String, String)> {
        match validate(&Query::parse(Some(query))) {
            Ok(()) => Vec::new(),
            Err(error) => {
                assert_eq!((error.code(), error.reason()), (422, "Invalid"));
                let status = error.to_status();
                let causes = status["details"]["causes"].as_array().unwrap();
                let text = |cause: &serde_json::Value, part: &str| {
                    cause[part].as_str().unwrap().to_owned()
                };
                causes.iter().map(|cause| (text(cause, "field"), text(cause, "message"))).collect()
            }
        }
    }

    fn causes(validate: fn(&Query) -> Result<(), ApiError>, query: &str) -> usize {
        refused(validate, query).len()
    }

    #[test]
    fn lists() {
        for fine in ["", "resourceVersion=5&resourceVersionMatch=Exact", "resourceVersion=0"] {
            assert_eq!(causes(validate_list, fine), 0, "{fine}");
        }
        for (query, count) in [
            ("resourceVersionMatch=Exact", 1),
            ("resourceVersionMatch=Exact&resourceVersion=0", 1),
            ("resourceVersionMatch=exact&resourceVersion=7", 1),
            ("resourceVersionMatch=Exact&continue=x", 2),
            ("sendInitialEvents=false", 1),
        ] {
            assert_eq!(causes(validate_list, query), count, "{query}");
        }
        let [(field, why)] = &refused(validate_list, "sendInitialEvents=true")[..] else {
            panic!("not one cause");
        };
        assert_eq!(field, "sendInitialEvents");
        assert_eq!(why, "Forbidden: sendInitialEvents is forbidden for list");
    }

    #[test]
    fn watches() {
        for fine in ["resourceVersion=5", "sendInitialEvents=1&resourceVersionMatch=NotOlderThan"] {
            assert_eq!(causes(validate_watch, fine), 0, "{fine}");
        }
        for (query, count) in [
            ("sendInitialEvents=true", 1),
            ("resourceVersionMatch=NotOlderThan", 1),
            ("resourceVersionMatch=Exact", 2),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x", 1),
        ] {
            assert_eq!(causes(validate_watch, query), count, "{query}");
        }
    }
}
