//! Between JSON values and the bytes that the store keeps.

use bytes::Bytes;
use serde_json::{Map, Value};
use toono_api::{ApiError, Resource};
use toono_mvcc::{Draft, Entry};

/// Encodes an object as it is kept, around the hole for its `resourceVersion`.
pub(crate) fn draft(resource: &Resource, object: &Value) -> Draft {
    if resource.behaviour.converts() {
        return draft_of(&resource.behaviour.to_stored(object.clone()));
    }
    draft_of(object)
}

/// An encoded object as it is served, of one as it is kept.
pub(crate) fn served(resource: &Resource, stored: &Bytes) -> Result<Bytes, ApiError> {
    if !resource.behaviour.converts() {
        return Ok(stored.clone());
    }
    let object = serde_json::from_slice(stored).map_err(|error| {
        ApiError::Internal(format!("an object of {} is no JSON: {error}", resource.stored_plural))
    })?;
    Ok(resource.behaviour.to_served(object).to_string().into())
}

/// Encodes an object as it is, around the hole.
pub(crate) fn draft_of(object: &Value) -> Draft {
    let empty = Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    let metadata = fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut head = Vec::with_capacity(128);
    head.push(b'{');
    for field in ["kind", "apiVersion"] {
        if let Some(value) = fields.get(field) {
            push_field(&mut head, field, value);
            head.push(b',');
        }
    }
    head.extend_from_slice(b"\"metadata\":{\"resourceVersion\":\"");
    let mut tail = Vec::with_capacity(1024);
    tail.push(b'"');
    for (field, value) in metadata.iter().filter(|(field, _)| *field != "resourceVersion") {
        tail.push(b',');
        push_field(&mut tail, field, value);
    }
    tail.push(b'}');
    let rest = fields
        .iter()
        .filter(|(field, _)| !matches!(field.as_str(), "kind" | "apiVersion" | "metadata"));
    for (field, value) in rest {
        tail.push(b',');
        push_field(&mut tail, field, value);
    }
    tail.push(b'}');
    Draft::new(head, tail)
}

fn push_field(text: &mut Vec<u8>, field: &str, value: &Value) {
    // Writing values to memory cannot fail: they have no keys but strings.
    let _ = serde_json::to_writer(&mut *text, field);
    text.push(b':');
    let _ = serde_json::to_writer(&mut *text, value);
}

/// Sets a field of a map.
pub(crate) fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value.into());
    }
}

/// Decodes a stored object, as it is served.
pub(crate) fn decode(resource: &Resource, entry: &Entry) -> Result<Value, ApiError> {
    let object = serde_json::from_slice(&entry.value).map_err(|error| {
        ApiError::Internal(format!("{} is stored as no JSON: {error}", entry.key))
    })?;
    Ok(if resource.behaviour.converts() { resource.behaviour.to_served(object) } else { object })
}

/// The metadata of an object, made if it is absent.
pub(crate) fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let not_a_map = || ApiError::BadRequest("metadata must be an object".to_owned());
    let fields = object
        .as_object_mut()
        .ok_or_else(|| ApiError::BadRequest("the body must be an object".to_owned()))?;
    fields
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or_else(not_a_map)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toono_mvcc::Rev;

    use super::*;

    #[test]
    fn what_is_sealed_is_what_was_given_with_its_revision() {
        for mut object in [
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"x": "\"q\""}}),
            json!({"metadata": {}}),
            json!({"data": {"a\"b": 1}}),
        ] {
            let sealed: Value = serde_json::from_slice(&draft_of(&object).seal(Rev(42))).unwrap();
            metadata(&mut object).unwrap().insert("resourceVersion".into(), "42".into());
            assert_eq!(sealed, object);
        }
    }
}
