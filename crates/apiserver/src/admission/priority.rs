//! A pod's priority is a number that comes from its class, never from its author.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>

use serde_json::Value;
use toono_api::{
    ApiError, kinds,
    meta::{at, text_at},
};
use toono_mvcc::Prefix;

use super::{Operation, Review, service_account::is_new_pod};
use crate::{
    encode,
    server::{expired, key},
};

/// Priority without a class and without a default class.
const NONE: i64 = 0;

/// Gives a new pod the priority of its class.
pub(super) fn mutate(review: &Review<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !is_new_pod(review) {
        return Ok(());
    }
    let named = text_at(pod, &["spec", "priorityClassName"]).filter(|name| !name.is_empty());
    let class = match named {
        Some(name) => Some(class(review, name)?.ok_or_else(|| {
            review.forbidden(&format!("no PriorityClass with name {name} was found"))
        })?),
        None => default_class(review)?,
    };
    let of_class = |field: &str| class.as_ref().and_then(|class| class.get(field));
    let priority = of_class("value").and_then(Value::as_i64).unwrap_or(NONE);
    let given = at(pod, &["spec", "priority"]).and_then(Value::as_i64);
    if let Some(given) = given.filter(|given| *given != priority) {
        return Err(review.forbidden(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority \
             admission controller computed {priority} from the given PriorityClass name"
        )));
    }
    let policy = of_class("preemptionPolicy").cloned();
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".into());
    let given = at(pod, &["spec", "preemptionPolicy"]).filter(|given| !given.is_null());
    if let Some(given) = given.filter(|given| **given != policy) {
        return Err(review.forbidden(&format!(
            "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority \
             admission controller computed {} from the given PriorityClass name",
            given.as_str().unwrap_or_default(),
            policy.as_str().unwrap_or_default()
        )));
    }
    let name = class.as_ref().and_then(|class| text_at(class, &["metadata", "name"]));
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(name) = name {
            spec.insert("priorityClassName".to_owned(), name.into());
        }
        spec.insert("priority".to_owned(), priority.into());
        spec.insert("preemptionPolicy".to_owned(), policy);
    }
    Ok(())
}

/// There is one default class at most.
pub(super) fn validate(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    let becomes_default = review.operation != Operation::Delete
        && is_classes(review)
        && at(object, &["globalDefault"]) == Some(&Value::Bool(true));
    if !becomes_default {
        return Ok(());
    }
    let other = default_class(review)?;
    match other.as_ref().and_then(|other| text_at(other, &["metadata", "name"])) {
        Some(other) if other != review.name => Err(review.forbidden(&format!(
            "PriorityClass {other} is already marked as default. Only one default can exist"
        ))),
        _ => Ok(()),
    }
}

fn is_classes(review: &Review<'_>) -> bool {
    review.resource.is(&kinds::scheduling::PRIORITY_CLASS)
}

fn class(review: &Review<'_>, name: &str) -> Result<Option<Value>, ApiError> {
    let resource = review.server.built_in(&kinds::scheduling::PRIORITY_CLASS);
    let entry = review.server.current(&key(&resource, "", name))?;
    entry.map(|entry| encode::decode(&resource, &entry)).transpose()
}

/// The default class; the lowest, should there be several.
fn default_class(review: &Review<'_>) -> Result<Option<Value>, ApiError> {
    let resource = review.server.built_in(&kinds::scheduling::PRIORITY_CLASS);
    let prefix = Prefix::resource(&resource.stored_group, &resource.stored_plural);
    let store = &review.server.inner.store;
    let page = store.list(&prefix, review.server.revision(), None, usize::MAX);
    let mut found: Option<Value> = None;
    for entry in page.map_err(expired)?.entries {
        let class = encode::decode(&resource, &entry)?;
        if at(&class, &["globalDefault"]) != Some(&Value::Bool(true)) {
            continue;
        }
        let value = |class: &Value| at(class, &["value"]).and_then(Value::as_i64).unwrap_or(0);
        if found.as_ref().is_none_or(|lowest| value(&class) < value(lowest)) {
            found = Some(class);
        }
    }
    Ok(found)
}
