//! Rules of pods and pod templates: what a pod must have, and what may change once it exists.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{checks, field::At, metadata::labels};
use crate::{
    error::FieldError,
    meta::{at, items_at, text_at},
    names,
    quantity::Quantity,
};

const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const TOLERATION_OPERATORS: &[&str] = &["Equal", "Exists"];

const SPEC_CHANGED: &str = "pod updates may not change fields other than \
`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` \
(allow it to be set to 1 if it was previously negative)";

/// Rules of a Pod.
pub(super) fn pod(object: &Value) -> Vec<FieldError> {
    let mut errors = pod_spec(object.get("spec").unwrap_or(&Value::Null), "spec");
    if let Some(node) = text_at(object, &["spec", "nodeName"]) {
        let wrong = names::dns_subdomain(node);
        errors.extend(wrong.iter().map(|why| FieldError::invalid_text("spec.nodeName", node, why)));
    }
    errors
}

/// Rules of a pod template.
pub(super) fn template_at(template: At<'_, '_>) -> Vec<FieldError> {
    if !template.is_set() {
        return vec![template.required("")];
    }
    let mut errors = Vec::new();
    let metadata = template.get("metadata");
    checks::labels(metadata.get("labels"), &mut errors);
    let pod = template.get("spec");
    errors.extend(pod_spec(pod.value, &pod.path()));
    errors
}

/// What may not change once a pod exists.
pub(super) fn pod_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut allowed = new.get("spec").cloned().unwrap_or_default();
    let old_spec = old.get("spec").cloned().unwrap_or_default();
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        let olds: Vec<&Value> = items_at(&old_spec, &[list]).collect();
        let news = allowed.get_mut(list).and_then(Value::as_array_mut);
        for (new, old) in news.into_iter().flatten().zip(olds) {
            copy_field(new, old, "image");
        }
    }
    let kept = items_at(&old_spec, &["tolerations"])
        .all(|old| items_at(&allowed, &["tolerations"]).any(|new| same_but_seconds(new, old)));
    if !kept {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    for field in ["tolerations", "activeDeadlineSeconds"] {
        copy_field(&mut allowed, &old_spec, field);
    }
    let old_grace = old_spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    let new_grace = allowed.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if old_grace.is_some_and(|seconds| seconds < 0) && new_grace == Some(1) {
        copy_field(&mut allowed, &old_spec, "terminationGracePeriodSeconds");
    }
    if text_at(&old_spec, &["schedulingGates"]).is_none() && allowed != old_spec {
        errors.push(FieldError::forbidden("spec", SPEC_CHANGED));
    }
    errors
}

fn copy_field(to: &mut Value, from: &Value, field: &str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

fn same_but_seconds(new: &Value, old: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|field| new.get(field) == old.get(field))
}

fn pod_spec(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes = volumes(spec, path, &mut errors);
    if items_at(spec, &["containers"]).next().is_none() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut container_names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (index, one) in items_at(spec, &[list]).enumerate() {
            let path = format!("{path}.{list}[{index}]");
            let name = text_at(one, &["name"]).unwrap_or_default();
            if !name.is_empty() && !container_names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
            container(one, &path, &volumes, &mut errors);
        }
    }
    one_of(spec, "restartPolicy", RESTART_POLICIES, path, &mut errors);
    one_of(spec, "dnsPolicy", DNS_POLICIES, path, &mut errors);
    errors.extend(labels(spec.get("nodeSelector"), &format!("{path}.nodeSelector")));
    for (index, toleration) in items_at(spec, &["tolerations"]).enumerate() {
        let path = format!("{path}.tolerations[{index}]");
        one_of(toleration, "effect", EFFECTS, &path, &mut errors);
        one_of(toleration, "operator", TOLERATION_OPERATORS, &path, &mut errors);
    }
    if let Some(seconds) = spec.get("activeDeadlineSeconds").filter(|s| s.as_i64() < Some(1)) {
        let field = format!("{path}.activeDeadlineSeconds");
        errors.push(FieldError::invalid(
            field,
            seconds,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    errors
}

/// Checks that a text, when given, is one of those known.
fn one_of(object: &Value, field: &str, known: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    if let Some(text) = text_at(object, &[field])
        && !text.is_empty()
        && !known.contains(&text)
    {
        errors.push(FieldError::not_supported(format!("{path}.{field}"), text, known));
    }
}

fn volumes<'v>(spec: &'v Value, path: &str, errors: &mut Vec<FieldError>) -> BTreeSet<&'v str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in items_at(spec, &["volumes"]).enumerate() {
        let field = format!("{path}.volumes[{index}].name");
        let name = dns_label_field(volume, &field, errors);
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(field, name));
        }
    }
    seen
}

/// Checks a required name, and returns it.
fn dns_label_field<'v>(object: &'v Value, field: &str, errors: &mut Vec<FieldError>) -> &'v str {
    let name = text_at(object, &["name"]).unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else {
        let wrong = names::dns_label(name);
        errors.extend(wrong.iter().map(|why| FieldError::invalid_text(field, name, why)));
    }
    name
}

fn container(one: &Value, path: &str, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    dns_label_field(one, &format!("{path}.name"), errors);
    match text_at(one, &["image"]) {
        None | Some("") => errors.push(FieldError::required(format!("{path}.image"), "")),
        Some(image) if image.trim() != image => errors.push(FieldError::invalid_text(
            format!("{path}.image"),
            image,
            "must not have leading or trailing whitespace",
        )),
        Some(_) => {}
    }
    one_of(one, "imagePullPolicy", PULL_POLICIES, path, errors);
    for (index, port) in items_at(one, &["ports"]).enumerate() {
        let path = format!("{path}.ports[{index}]");
        one_of(port, "protocol", PROTOCOLS, &path, errors);
        port_number(port, "containerPort", true, &path, errors);
        port_number(port, "hostPort", false, &path, errors);
    }
    for (index, variable) in items_at(one, &["env"]).enumerate() {
        if text_at(variable, &["name"]).is_none_or(str::is_empty) {
            errors.push(FieldError::required(format!("{path}.env[{index}].name"), ""));
        }
    }
    let mut mounts = BTreeSet::new();
    for (index, mount) in items_at(one, &["volumeMounts"]).enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        let name = text_at(mount, &["name"]).unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError {
                reason: crate::error::FieldReason::Invalid,
                field: format!("{path}.name"),
                message: format!("Not found: {name:?}"),
            });
        }
        match text_at(mount, &["mountPath"]) {
            None | Some("") => errors.push(FieldError::required(format!("{path}.mountPath"), "")),
            Some(at) if !mounts.insert(at) => {
                errors.push(FieldError::invalid_text(
                    format!("{path}.mountPath"),
                    at,
                    "must be unique",
                ));
            }
            Some(_) => {}
        }
    }
    resources(one, path, errors);
}

fn port_number(
    port: &Value,
    field: &str,
    required: bool,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let field_path = format!("{path}.{field}");
    match port.get(field).and_then(Value::as_i64) {
        None | Some(0) if required => errors.push(FieldError::required(field_path, "")),
        None | Some(0..=65535) => {}
        Some(number) => errors.push(FieldError::invalid(
            field_path,
            &Value::from(number),
            "must be between 1 and 65535, inclusive",
        )),
    }
}

fn resources(container: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let amount = |list: &str, resource: &str| {
        text_at(container, &["resources", list, resource])?.parse::<Quantity>().ok()
    };
    for list in ["limits", "requests"] {
        let amounts = at(container, &["resources", list]).and_then(Value::as_object);
        for (resource, text) in amounts.into_iter().flatten() {
            let field = format!("{path}.resources.{list}[{resource}]");
            let text = text.as_str().unwrap_or_default();
            match text.parse::<Quantity>() {
                Err(error) => {
                    errors.push(FieldError::invalid_text(field, text, &error.to_string()))
                }
                Ok(parsed) if parsed.is_negative() => errors.push(FieldError::invalid_text(
                    field,
                    text,
                    "must be greater than or equal to 0",
                )),
                Ok(request) if list == "requests" => {
                    if let Some(limit) = amount("limits", resource)
                        && request > limit
                    {
                        let field = format!("{path}.resources.requests");
                        let why =
                            format!("must be less than or equal to {resource} limit of {limit}");
                        errors.push(FieldError::invalid_text(field, text, &why));
                    }
                }
                Ok(_) => {}
            }
        }
    }
}
