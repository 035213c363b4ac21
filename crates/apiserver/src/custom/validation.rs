//! What a CustomResourceDefinition may say, in Kubernetes' words.

mod spec;
mod version;

use serde_json::Value;
use toono_api::{
    FieldError,
    meta::{at, items_at, text_at},
};

use super::view::View;

/// The annotation that groups of the Kubernetes project need.
const APPROVED: &str = "api-approved.kubernetes.io";

/// Everything that is wrong with a definition, and with its change if there is an `old` one.
pub(super) fn definition(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let view = View(object);
    let mut errors = Vec::new();
    let name = format!("{}.{}", view.plural(), view.group());
    if view.name() != name {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid_text("metadata.name", view.name(), why));
    }
    errors.extend(spec::check(view, old));
    errors.extend(spec::names(view.accepted(), "status.acceptedNames"));
    errors.extend(stored_versions(object));
    errors.extend(approval(object, old));
    if at(object, &["spec", "preserveUnknownFields"]) == Some(&Value::Bool(true)) {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                   spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", &true.into(), why));
    }
    if let Some(old) = old {
        errors.extend(change(view, View(old)));
    }
    errors
}

/// Every version in which there may be objects stays, and the storage version is one of them.
fn stored_versions(object: &Value) -> Vec<FieldError> {
    let field = "status.storedVersions";
    let stored: Vec<&str> =
        items_at(object, &["status", "storedVersions"]).filter_map(Value::as_str).collect();
    let value = Value::from(stored.clone());
    if stored.is_empty() {
        return vec![FieldError::invalid(field, &value, "must have at least one stored version")];
    }
    let mut errors = Vec::new();
    let storage = View(object).storage_version();
    if !storage.is_empty() && !stored.contains(&storage) {
        let why = format!("must have the storage version {storage}");
        errors.push(FieldError::invalid(field, &value, &why));
    }
    for (index, stored) in stored.iter().enumerate() {
        let mut versions = View(object).versions();
        if !versions.any(|version| text_at(version, &["name"]) == Some(stored)) {
            let why = format!(
                "missing from spec.versions; {stored} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {stored} and \
                 removes {stored} from status.storedVersions"
            );
            errors.push(FieldError::invalid_text(format!("{field}[{index}]"), stored, &why));
        }
    }
    errors
}

/// Kinds of the project's own groups have to be approved by it.
fn approval(object: &Value, old: Option<&Value>) -> Option<FieldError> {
    let group = View(object).group();
    let protected = ["k8s.io", "kubernetes.io"].into_iter().any(|domain| {
        group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    let given = |object| text_at(object, &["metadata", "annotations", APPROVED]);
    if !protected || old.is_some_and(|old| given(old) == given(object)) {
        return None;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    match given(object).unwrap_or_default() {
        "" => {
            let why = format!(
                "protected groups must have approval annotation {APPROVED:?}, see \
                 https://github.com/kubernetes/enhancements/pull/1111"
            );
            Some(FieldError::required(field, &why))
        }
        text if text.starts_with("unapproved") => None,
        text => match text.parse::<http::Uri>() {
            Ok(url) if url.host().is_some() && url.scheme().is_some() => None,
            _ => {
                let why = format!(
                    "protected groups must have approval annotation {APPROVED:?} with either a URL or \
                     a reason starting with \"unapproved\", see \
                     https://github.com/kubernetes/enhancements/pull/1111"
                );
                Some(FieldError::invalid_text(field, text, &why))
            }
        },
    }
}

/// What stays as it is: the name always, what objects are kept by once there may be some.
fn change(new: View<'_>, old: View<'_>) -> Vec<FieldError> {
    let paths: &[&[&str]] = if old.is_established() {
        &[
            &["spec", "scope"],
            &["spec", "names", "kind"],
            &["spec", "group"],
            &["spec", "names", "plural"],
        ]
    } else {
        &[&["spec", "group"], &["spec", "names", "plural"]]
    };
    let differs = |path: &&&[&str]| at(new.0, path) != at(old.0, path);
    let error = |path: &&[&str]| {
        let value = at(new.0, path).unwrap_or(&Value::Null);
        FieldError::invalid(path.join("."), value, "field is immutable")
    };
    paths.iter().filter(differs).map(error).collect()
}
