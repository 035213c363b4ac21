//! What a structural schema says of lists and of how their entries are told apart.

use serde_json::{Map, Value, json};

use super::{is_set, text, wrong_type};
use crate::error::{Errors, FieldError};
use crate::path::Path;

pub(super) fn list_shape(map: &Map<String, Value>, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(map, "type");
    if kind == "array" && !map.contains_key("items") {
        errors.push(FieldError::required(&path.field("items"), "must be specified"));
    }
    let list_type = text(map, "x-kubernetes-list-type");
    let at = path.field("x-kubernetes-list-type");
    if !list_type.is_empty() {
        let known = [json!("atomic"), json!("set"), json!("map")];
        if !known.iter().any(|name| name == list_type) {
            errors.push(FieldError::not_supported(&at, &json!(list_type), known.iter()));
        }
        if kind != "array" {
            let detail = "must be array if x-kubernetes-list-type is specified";
            wrong_type(map, detail, path, errors);
        }
    }
    let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    let has_keys = keys.is_some_and(|keys| !keys.is_empty());
    if has_keys && list_type != "map" {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(if list_type.is_empty() {
            FieldError::required(&at, detail)
        } else {
            FieldError::invalid(&at, &json!(list_type), detail)
        });
    }
    if list_type == "map" && !has_keys {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&path.field("x-kubernetes-list-map-keys"), detail));
    }
    let Some(items) = map.get("items").and_then(Value::as_object) else {
        if list_type == "map" {
            let detail = "must have a schema if x-kubernetes-list-type is map";
            errors.push(FieldError::required(&path.field("items"), detail));
        }
        return;
    };
    if matches!(list_type, "set" | "map") && is_set(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        let at = path.field("items");
        errors.push(FieldError::forbidden(&at.field("nullable"), &detail));
    }
    match list_type {
        "map" => map_list(items, keys.map_or(&[], Vec::as_slice), path, errors),
        "set" => set_list(items, path, errors),
        _ => {}
    }
}

fn map_list(items: &Map<String, Value>, keys: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let at = path.field("items");
    if text(items, "type") != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        let found = json!(text(items, "type"));
        errors.push(FieldError::invalid(&at.field("type"), &found, detail));
        return;
    }
    let required = items.get("required").and_then(Value::as_array);
    let at_keys = path.field("x-kubernetes-list-map-keys");
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        if keys.iter().take(index).any(|earlier| earlier == key) {
            let detail = "must not contain duplicate entries";
            errors.push(FieldError::invalid(&at_keys, &json!(keys), detail));
        }
        let property = items.get("properties").and_then(|all| all.get(name));
        let Some(property) = property.and_then(Value::as_object) else {
            let detail = "entries must all be names of item properties";
            errors.push(FieldError::invalid(&at_keys, &json!(keys), detail));
            continue;
        };
        let at_properties = at.field("properties");
        let at_property = at_properties.key(name);
        if matches!(text(property, "type"), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            let found = json!(text(items, "type"));
            errors.push(FieldError::invalid(&at_property.field("type"), &found, detail));
        }
        if is_set(property, "nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(&at_property.field("nullable"), detail));
        }
        let is_required = required.is_some_and(|required| required.contains(key));
        if !is_required && !property.contains_key("default") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a \
                          default or be a required property";
            errors.push(FieldError::required(&at_property.field("default"), detail));
        }
    }
}

fn set_list(items: &Map<String, Value>, path: &Path<'_>, errors: &mut Errors) {
    let at = path.field("items");
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    if text(items, "type") == "object" && text(items, "x-kubernetes-map-type") != "atomic" {
        let found = json!(text(items, "x-kubernetes-map-type"));
        errors.push(FieldError::invalid(&at.field("x-kubernetes-map-type"), &found, detail));
    }
    let list_type = text(items, "x-kubernetes-list-type");
    if text(items, "type") == "array" && !matches!(list_type, "" | "atomic") {
        let found = json!(list_type);
        errors.push(FieldError::invalid(&at.field("x-kubernetes-list-type"), &found, detail));
    }
}
