//! A definition's names, scope, conversion, and its versions taken together.

use serde_json::Value;
use toono_api::{
    FieldError,
    error::FieldReason,
    meta::{at, text_at},
    names::dns_subdomain,
};

use super::version;
use crate::custom::view::{Names, View, flag};

const NAME_MAX_BYTES: usize = 63;
const LABEL_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// Why the text is not a DNS-1035 label.
pub(super) fn label(text: &str) -> Option<String> {
    if text.len() > NAME_MAX_BYTES {
        return Some(format!("must be no more than {NAME_MAX_BYTES} bytes"));
    }
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(is_inner);
    (!fits).then(|| LABEL_RULE.to_owned())
}

/// What is wrong with `spec`.
pub(super) fn check(view: View<'_>, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    errors.extend(group(view.group()));
    let scope = text_at(view.0, &["spec", "scope"]).unwrap_or_default();
    match scope {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => {
            let known = ["Cluster", "Namespaced"];
            errors.push(FieldError::not_supported("spec.scope", other, &known));
        }
    }
    errors.extend(versions(view, old));
    for field in ["plural", "singular", "kind", "listKind"] {
        if view.names().text(field).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{field}"), ""));
        }
    }
    errors.extend(names(view.names(), "spec.names"));
    errors.extend(conversion(view.0));
    errors
}

fn group(group: &str) -> Vec<FieldError> {
    let field = "spec.group";
    if group.is_empty() {
        return vec![FieldError::required(field, "")];
    }
    let wrong = dns_subdomain(group);
    if !wrong.is_empty() {
        return vec![FieldError::invalid_text(field, group, &wrong.join(","))];
    }
    if group.contains('.') {
        return Vec::new();
    }
    let why = "should be a domain with at least one dot";
    vec![FieldError::invalid_text(field, group, why)]
}

fn versions(view: View<'_>, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let names: Vec<&str> =
        view.versions().map(|version| text_at(version, &["name"]).unwrap_or_default()).collect();
    for (index, version) in view.versions().enumerate() {
        let name = names.get(index).copied().unwrap_or_default();
        let path = format!("spec.versions[{index}]");
        if let Some(why) = label(name) {
            errors.push(FieldError::invalid_text(format!("{path}.name"), name, &why));
        }
        // What was accepted once is not judged again, whatever the rules have become.
        let before = old.and_then(|old| {
            View(old).versions().find(|before| text_at(before, &["name"]) == Some(name))
        });
        if before != Some(version) {
            errors.extend(version::check(version, &path));
        }
    }
    let all = at(view.0, &["spec", "versions"]).unwrap_or(&Value::Null);
    let unique =
        names.iter().enumerate().all(|(index, name)| !names.iter().take(index).any(|n| n == name));
    if !unique {
        let why = "must contain unique version names";
        errors.push(FieldError::invalid("spec.versions", all, why));
    }
    if view.versions().filter(|version| flag(version, "storage")).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", all, why));
    }
    errors
}

/// What is wrong with names, be they asked for or accepted.
pub(super) fn names(names: Names<'_>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["plural", "singular"] {
        let name = names.text(field);
        if let Some(why) = label(name).filter(|_| !name.is_empty()) {
            errors.push(FieldError::invalid_text(format!("{path}.{field}"), name, &why));
        }
    }
    for field in ["kind", "listKind"] {
        let name = names.text(field);
        if let Some(why) = label(&name.to_lowercase()).filter(|_| !name.is_empty()) {
            let why = format!("may have mixed case, but should otherwise match: {why}");
            errors.push(FieldError::invalid_text(format!("{path}.{field}"), name, &why));
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in names.texts(field).enumerate() {
            if let Some(why) = label(name) {
                let field = format!("{path}.{field}[{index}]");
                errors.push(FieldError::invalid_text(field, name, &why));
            }
        }
    }
    let kind = names.text("kind");
    if !kind.is_empty() && kind == names.text("listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid_text(format!("{path}.listKind"), kind, why));
    }
    errors
}

fn conversion(object: &Value) -> Vec<FieldError> {
    let Some(conversion) = at(object, &["spec", "conversion"]).filter(|value| !value.is_null())
    else {
        return Vec::new();
    };
    let field = "spec.conversion.strategy";
    match text_at(conversion, &["strategy"]).unwrap_or_default() {
        "" => vec![FieldError::required(field, "")],
        "None" if conversion.get("webhook").is_some() => {
            let why = "should not be set when strategy is not set to Webhook";
            vec![FieldError::forbidden("spec.conversion.webhook", why)]
        }
        "None" => Vec::new(),
        "Webhook" => vec![FieldError {
            reason: FieldReason::NotSupported,
            field: field.to_owned(),
            message: "Unsupported value: \"Webhook\": this server does not convert by webhooks; \
                      supported values: \"None\""
                .to_owned(),
        }],
        other => vec![FieldError::not_supported(field, other, &["None", "Webhook"])],
    }
}
