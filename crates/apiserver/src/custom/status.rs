//! Conditions of a CustomResourceDefinition.

use serde_json::{Map, Value, json};
use toono_api::meta::text_at;

/// Sets a condition; the moment of its last change stays if its status does.
pub(super) fn set_condition(
    object: &mut Value,
    (kind, is_true): (&str, bool),
    reason: &str,
    message: &str,
    now: &str,
) {
    let status = if is_true { "True" } else { "False" };
    let Some(fields) = object.as_object_mut() else { return };
    let parts = fields.entry("status").or_insert_with(|| Value::Object(Map::new()));
    let Some(parts) = parts.as_object_mut() else { return };
    let conditions = parts.entry("conditions").or_insert_with(|| json!([]));
    if conditions.is_null() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    let of_kind = |condition: &&mut Value| text_at(condition, &["type"]) == Some(kind);
    let mut made = json!({"type": kind, "status": status, "lastTransitionTime": now,
        "reason": reason, "message": message});
    match conditions.iter_mut().find(of_kind) {
        None => conditions.push(made),
        Some(present) => {
            let since = present.get("lastTransitionTime").filter(|since| !since.is_null());
            if text_at(present, &["status"]) == Some(status)
                && let (Some(since), Some(made)) = (since, made.get_mut("lastTransitionTime"))
            {
                *made = since.clone();
            }
            *present = made;
        }
    }
}
