//! The parts of a running pod that may still change: containers added to look into it, and what its
//! containers may use. What else was sent beside such a part is dropped, as Kubernetes drops it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    checks::Errors,
    field::At,
    pod::{POD, quality_of_service},
};
use crate::{
    error::FieldError,
    meta::{at, items_at, text_at},
};

const MIRROR: &str = "kubernetes.io/config.mirror";
/// What can be changed while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// `old` with the ephemeral containers of `sent`.
#[must_use]
pub fn with_ephemeral_containers_of(old: &Value, sent: &Value) -> Value {
    let mut merged = old.clone();
    let Some(spec) = spec_of(&mut merged) else { return merged };
    match at(sent, &["spec", "ephemeralContainers"]) {
        Some(containers) => spec.insert("ephemeralContainers".to_owned(), containers.clone()),
        None => spec.remove("ephemeralContainers"),
    };
    merged
}

/// `old` with the resources and the resize policies of the containers of `sent`. When the containers are
/// not as many, `old` with all of them, for the rules to refuse.
#[must_use]
pub fn with_resources_of(old: &Value, sent: &Value) -> Value {
    let mut merged = old.clone();
    let Some(spec) = spec_of(&mut merged) else { return merged };
    for list in LISTS {
        let news: Vec<&Value> = items_at(sent, &["spec", list]).collect();
        let olds = spec.get_mut(list).and_then(Value::as_array_mut);
        let count = olds.as_ref().map_or(0, |olds| olds.len());
        if news.len() != count {
            let news = news.into_iter().cloned().collect();
            spec.insert(list.to_owned(), Value::Array(news));
            continue;
        }
        for (old, new) in olds.into_iter().flatten().zip(news) {
            for field in ["name", "resources", "resizePolicy"] {
                let Some(fields) = old.as_object_mut() else { continue };
                match new.get(field) {
                    Some(value) => fields.insert(field.to_owned(), value.clone()),
                    None => fields.remove(field),
                };
            }
        }
    }
    merged
}

/// What is wrong with a pod and the change of its ephemeral containers.
#[must_use]
pub fn ephemeral_containers_rules(new: &Value, old: &Value) -> Errors {
    if is_mirror(old) {
        return vec![whole("static pods do not support ephemeral containers")];
    }
    let mut errors = (POD.validate)(new);
    let mut now: BTreeMap<&str, &Value> = BTreeMap::new();
    for one in items_at(new, &["spec", "ephemeralContainers"]) {
        now.entry(text_at(one, &["name"]).unwrap_or_default()).or_insert(one);
    }
    for had in items_at(old, &["spec", "ephemeralContainers"]) {
        let name = text_at(had, &["name"]).unwrap_or_default();
        let what = match now.get(name) {
            None => "removed",
            Some(now) if *now != had => "changed",
            Some(_) => continue,
        };
        let why = format!("existing ephemeral containers {name:?} may not be {what}");
        errors.push(FieldError::forbidden("spec.ephemeralContainers", &why));
    }
    errors
}

/// What is wrong with a pod and the change of what its containers may use.
#[must_use]
pub fn resize_rules(new: &Value, old: &Value) -> Errors {
    if is_mirror(old) {
        return vec![whole("static pods cannot be resized")];
    }
    if text_at(old, &["spec", "os", "name"]) == Some("windows") {
        return vec![whole("windows pods cannot be resized")];
    }
    let mut errors = (POD.validate)(new);
    let class = quality_of_service(new);
    if class != quality_of_service(old) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid_text("spec", class, why));
    }
    if runs_without_resize(old) {
        let why = "Pod running on node without support for resize";
        errors.push(FieldError::forbidden("spec", why));
    }
    let places = errors.len();
    for list in LISTS {
        same_containers(new, old, list, &mut errors);
    }
    if errors.len() > places {
        return errors;
    }
    let (root, before) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.get("spec"), before.get("spec"));
    for list in LISTS {
        for (now, then) in spec.each(list).zip(old_spec.each(list)) {
            container_resize(now, then, list, &mut errors);
        }
    }
    if without_resizable(new) != without_resizable(old) {
        let why = "only cpu and memory resources are mutable";
        errors.push(FieldError::forbidden("spec", why));
    }
    errors
}

fn spec_of(pod: &mut Value) -> Option<&mut Map<String, Value>> {
    pod.get_mut("spec").and_then(Value::as_object_mut)
}

fn is_mirror(pod: &Value) -> bool {
    at(pod, &["metadata", "annotations", MIRROR]).is_some()
}

/// An error of the whole object.
fn whole(why: &str) -> FieldError {
    FieldError::forbidden("", why)
}

/// A node that can resize tells what its running containers may use.
fn runs_without_resize(pod: &Value) -> bool {
    items_at(pod, &["status", "containerStatuses"])
        .any(|one| at(one, &["state", "running"]).is_some() && one.get("resources").is_none())
}

fn same_containers(new: &Value, old: &Value, list: &str, errors: &mut Errors) {
    let path = format!("spec.{list}");
    let names = |pod| {
        items_at(pod, &["spec", list])
            .map(|one| text_at(one, &["name"]).unwrap_or_default())
            .collect::<Vec<_>>()
    };
    let (new, old) = (names(new), names(old));
    if new.len() != old.len() {
        let why = "containers may not be added or removed on resize";
        errors.push(FieldError::forbidden(&path, why));
    } else if new != old {
        let why = "containers may not be renamed or reordered on resize";
        errors.push(FieldError::forbidden(&path, why));
    }
}

fn container_resize(now: At<'_, '_>, then: At<'_, '_>, list: &str, errors: &mut Errors) {
    let (resources, had) = (now.get("resources"), then.get("resources"));
    if list == "initContainers" && then.get("restartPolicy").text() != "Always" {
        if resources.value != had.value {
            let why = "resources for non-sidecar init containers are immutable";
            errors.push(resources.forbidden(why));
        }
        return;
    }
    for part in ["limits", "requests"] {
        let (left, had) = (resources.get(part), had.get(part));
        let gone = RESIZABLE.iter().any(|name| had.get(name).is_set() && !left.get(name).is_set());
        if gone {
            errors.push(left.forbidden(&format!("resource {part} cannot be removed")));
        }
    }
}

/// The spec without what may change while it runs.
fn without_resizable(pod: &Value) -> Value {
    let mut spec = pod.get("spec").cloned().unwrap_or_default();
    for list in LISTS {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut)
            else {
                continue;
            };
            for part in ["limits", "requests"] {
                let Some(amounts) = resources.get_mut(part).and_then(Value::as_object_mut) else {
                    continue;
                };
                amounts.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
                if amounts.is_empty() {
                    resources.remove(part);
                }
            }
        }
    }
    spec
}
