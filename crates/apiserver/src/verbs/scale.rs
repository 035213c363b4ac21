//! The `Scale` view of a workload: how many replicas it wants and has.

use serde_json::{Map, Value, json};
use toono_api::{
    ApiError, FieldError, LabelSelector, Resource,
    meta::{at, text_at},
    resource::Scale,
};

use crate::encode;

/// The `autoscaling/v1` Scale of an object.
pub(super) fn of(resource: &Resource, object: &Value) -> Result<Value, ApiError> {
    let scale = match resource.behaviour.built_in() {
        Some(_) => of_workload(object),
        None => resource.behaviour.scale(object).ok_or_else(|| {
            ApiError::Internal("the spec replicas field does not exist".to_owned())
        })?,
    };
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = at(object, &["metadata", field]) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": scale.present});
    if !scale.selector.is_empty() {
        encode::set(&mut status, "selector", scale.selector);
    }
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": scale.wanted},
        "status": status,
    }))
}

fn of_workload(object: &Value) -> Scale {
    let selector = at(object, &["spec", "selector"])
        .and_then(|selector| LabelSelector::from_object(selector).ok())
        .map(|selector| selector.to_string());
    let count = |path: &[&str]| at(object, path).and_then(Value::as_i64).unwrap_or(0);
    Scale {
        wanted: count(&["spec", "replicas"]),
        present: count(&["status", "replicas"]),
        selector: selector.unwrap_or_default(),
    }
}

/// The object with the number of replicas of a Scale.
pub(super) fn applied(
    resource: &Resource,
    object: &Value,
    scale: &Value,
) -> Result<Value, ApiError> {
    let replicas = at(scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
    if !(0..=i64::from(i32::MAX)).contains(&replicas) {
        let why = "must be greater than or equal to 0";
        return Err(ApiError::Invalid {
            kind: "Scale".to_owned(),
            group: "autoscaling".to_owned(),
            name: text_at(object, &["metadata", "name"]).unwrap_or_default().to_owned(),
            causes: vec![FieldError::invalid("spec.replicas", &Value::from(replicas), why)],
        });
    }
    let mut scaled = object.clone();
    if resource.behaviour.built_in().is_none() {
        if !resource.behaviour.set_replicas(&mut scaled, replicas) {
            return Err(ApiError::Internal("the spec replicas field cannot be set".to_owned()));
        }
    } else if let Some(spec) = scaled.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    // What the client says of identity and version is judged as for any update.
    if let Some(metadata) = scaled.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["name", "namespace", "uid", "resourceVersion"] {
            if let Some(value) = at(scale, &["metadata", field]) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
    }
    Ok(scaled)
}
