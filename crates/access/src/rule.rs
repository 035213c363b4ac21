//! Whether one rule of a role allows one request, by Kubernetes' semantics.
//!
//! A star stands for everything only where it is the whole text, as `*/subresource`, or at the end of a
//! URL. `pods/*` is no pattern: it grants nothing.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::attributes::{Attributes, Request, ResourceRequest};

const ALL: &str = "*";

/// Whether the rule allows the request.
pub(crate) fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    any_or_all(&rule.verbs, attributes.verb)
        && match &attributes.request {
            Request::Resource(request) => allows_resource(rule, request),
            Request::NonResource { path } => {
                list(&rule.non_resource_urls).iter().any(|pattern| url_matches(pattern, path))
            }
        }
}

fn allows_resource(rule: &PolicyRule, request: &ResourceRequest<'_>) -> bool {
    let names = list(&rule.resource_names);
    any_or_all(list(&rule.api_groups), request.api_group)
        && list(&rule.resources).iter().any(|pattern| resource_matches(pattern, request))
        && (names.is_empty() || names.iter().any(|name| name == request.name))
}

fn resource_matches(pattern: &str, request: &ResourceRequest<'_>) -> bool {
    if pattern == ALL {
        return true;
    }
    match (pattern.split_once('/'), request.subresource) {
        (None, "") => pattern == request.resource,
        (Some((resource, below)), subresource) if !subresource.is_empty() => {
            below == subresource && (resource == ALL || resource == request.resource)
        }
        _ => false,
    }
}

/// Whether a URL pattern covers a path, or another pattern.
pub(crate) fn url_matches(pattern: &str, path: &str) -> bool {
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

/// Whether the list holds the text or the star.
pub(crate) fn any_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

/// An absent list is an empty one.
pub(crate) fn list(field: &Option<Vec<String>>) -> &[String] {
    field.as_deref().unwrap_or_default()
}
