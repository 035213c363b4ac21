//! Whether a webhook is asked about a write: rules, selectors, conditions.

use serde_json::Value;
use toono_api::{
    ApiError, LabelSelector, kinds,
    meta::{at, items_at, text_at},
};

use super::{
    super::{Operation, Review},
    conditions,
};
use crate::{encode, server::key};

/// One webhook of a configuration.
#[derive(Debug)]
pub(super) struct Webhook(Value);

impl Webhook {
    pub(super) fn new(webhook: Value) -> Self {
        Self(webhook)
    }

    pub(super) fn name(&self) -> &str {
        text_at(&self.0, &["name"]).unwrap_or_default()
    }

    pub(super) fn spec(&self) -> &Value {
        &self.0
    }

    pub(super) fn failures_are_ignored(&self) -> bool {
        text_at(&self.0, &["failurePolicy"]) == Some("Ignore")
    }

    pub(super) fn wants_reinvocation(&self) -> bool {
        text_at(&self.0, &["reinvocationPolicy"]) == Some("IfNeeded")
    }

    pub(super) fn is_free_of_side_effects(&self) -> bool {
        matches!(text_at(&self.0, &["sideEffects"]), Some("None" | "NoneOnDryRun"))
    }

    /// Whether it is asked about this write.
    ///
    /// # Errors
    /// When a condition cannot be evaluated and the webhook's failures are not ignored.
    pub(super) fn is_asked(&self, review: &Review<'_>, object: &Value) -> Result<bool, ApiError> {
        let selected = items_at(&self.0, &["rules"]).any(|rule| is_ruled(rule, review))
            && self.selects_namespace(review)?
            && self.selects_object(review, object);
        if !selected {
            return Ok(false);
        }
        conditions::hold(self, review, object)
    }

    fn selects_namespace(&self, review: &Review<'_>) -> Result<bool, ApiError> {
        let selector = selector(at(&self.0, &["namespaceSelector"]));
        if selector.is_everything() {
            return Ok(true);
        }
        let is_namespace = review.resource.is(&kinds::core::NAMESPACE);
        let name = if is_namespace { review.name } else { review.namespace };
        // Objects of the cluster have no namespace that could be left out.
        if name.is_empty() {
            return Ok(true);
        }
        let resource = review.server.built_in(&kinds::core::NAMESPACE);
        let entry = review.server.current(&key(&resource, "", name))?;
        let namespace = match entry {
            Some(entry) => encode::decode(&resource, &entry)?,
            None => Value::Null,
        };
        Ok(selector.matches(|label| text_at(&namespace, &["metadata", "labels", label])))
    }

    /// Either the new or the old object.
    fn selects_object(&self, review: &Review<'_>, object: &Value) -> bool {
        let selector = selector(at(&self.0, &["objectSelector"]));
        let selects = |object: &Value| {
            selector.matches(|label| text_at(object, &["metadata", "labels", label]))
        };
        selector.is_everything() || selects(object) || review.old.is_some_and(selects)
    }
}

fn selector(object: Option<&Value>) -> LabelSelector {
    // The kind's rules refused what cannot be read.
    object
        .and_then(|object| LabelSelector::from_object(object).ok())
        .unwrap_or_else(|| LabelSelector::parse("").unwrap_or_default())
}

fn is_ruled(rule: &Value, review: &Review<'_>) -> bool {
    let resource = review.resource;
    let has = |field: &str, wanted: &str| {
        items_at(rule, &[field]).filter_map(Value::as_str).any(|one| one == "*" || one == wanted)
    };
    let scope = match text_at(rule, &["scope"]) {
        Some("Namespaced") => resource.namespaced,
        Some("Cluster") => !resource.namespaced,
        _ => true,
    };
    scope
        && has("operations", operation(review.operation))
        && has("apiGroups", &resource.group)
        && has("apiVersions", &resource.version)
        && items_at(rule, &["resources"])
            .filter_map(Value::as_str)
            .any(|pattern| covers(pattern, &resource.plural, review.subresource))
}

/// Whether `pods`, `pods/status`, `pods/*`, `*/status`, `*` or `*/*` means the resource.
fn covers(pattern: &str, plural: &str, subresource: &str) -> bool {
    let (resource, below) = pattern.split_once('/').unwrap_or((pattern, ""));
    let all = pattern == "*/*";
    all || ((resource == "*" || resource == plural) && (below == "*" || below == subresource))
}

/// As rules and reviews name it.
pub(super) fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn patterns_mean_what_kubernetes_says() {
        for (pattern, resource, below, covered) in [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("pods/status", "pods", "status", true),
            ("pods/*", "pods", "status", true),
            ("pods/*", "pods", "", true),
            ("*", "pods", "", true),
            ("*", "pods", "status", false),
            ("*/status", "pods", "status", true),
            ("*/*", "nodes", "status", true),
            ("*/*", "nodes", "", true),
            ("nodes", "pods", "", false),
        ] {
            assert_eq!(covers(pattern, resource, below), covered, "{pattern} {resource}/{below}");
        }
    }
}
