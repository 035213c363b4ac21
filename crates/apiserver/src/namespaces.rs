//! What is special about namespaces: `spec.finalizers`, which hold one that is being deleted and
//! change only through its `finalize` subresource. Who empties a namespace is a controller.

use serde_json::{Value, json};
use toono_api::meta::at;

/// `object` with the `spec.finalizers` of another version of it.
pub(crate) fn with_finalizers_of(object: &Value, other: &Value) -> Value {
    let mut merged = object.clone();
    let Some(fields) = merged.as_object_mut() else { return merged };
    let spec = fields.entry("spec").or_insert_with(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        match at(other, &["spec", "finalizers"]) {
            Some(finalizers) => spec.insert("finalizers".to_owned(), finalizers.clone()),
            None => spec.remove("finalizers"),
        };
    }
    merged
}
