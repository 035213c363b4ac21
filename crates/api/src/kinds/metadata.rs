//! Rules of `metadata` that hold for every kind.

use serde_json::Value;

use crate::{
    error::{CAUSES_MAX, FieldError},
    meta::{at, items_at, text_at},
    names,
    resource::Resource,
};

/// Most bytes that all annotations of an object may have together, as in Kubernetes.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// What is wrong with an object's metadata.
#[must_use]
pub fn validate(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text_at(object, &["metadata", "name"]) {
        None | Some("") => {
            errors.push(FieldError::required("metadata.name", "name or generateName is required"))
        }
        Some(name) => {
            let wrong =
                names::path_segment(name).into_iter().chain((resource.strategy.name_rule)(name));
            errors.extend(wrong.map(|why| FieldError::invalid_text("metadata.name", name, &why)));
        }
    }
    errors.extend(labels(at(object, &["metadata", "labels"]), "metadata.labels"));
    errors.extend(annotations(object));
    for (index, finalizer) in items_at(object, &["metadata", "finalizers"]).enumerate() {
        if is_enough(&errors) {
            break;
        }
        let finalizer = finalizer.as_str().unwrap_or_default();
        let wrong = names::qualified_name(finalizer);
        let field = || format!("metadata.finalizers[{index}]");
        errors.extend(wrong.iter().map(|why| FieldError::invalid_text(field(), finalizer, why)));
    }
    errors.extend(owners(object));
    errors
}

/// Whether more is known to be wrong than an answer tells.
fn is_enough(errors: &[FieldError]) -> bool {
    errors.len() > CAUSES_MAX
}

/// What is wrong with a map of labels.
pub(crate) fn labels(labels: Option<&Value>, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        if is_enough(&errors) {
            break;
        }
        let value = value.as_str().unwrap_or_default();
        errors.extend(
            names::qualified_name(key).iter().map(|why| FieldError::invalid_text(field, key, why)),
        );
        errors.extend(
            names::label_value(value).iter().map(|why| FieldError::invalid_text(field, value, why)),
        );
    }
    errors
}

fn annotations(object: &Value) -> Vec<FieldError> {
    let field = "metadata.annotations";
    let mut errors = Vec::new();
    let mut bytes = 0;
    for (key, value) in
        at(object, &["metadata", "annotations"]).and_then(Value::as_object).into_iter().flatten()
    {
        if is_enough(&errors) {
            break;
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let wrong = names::qualified_name(&key.to_lowercase());
        errors.extend(wrong.iter().map(|why| FieldError::invalid_text(field, key, why)));
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        let why = format!("may not be more than {ANNOTATIONS_MAX_BYTES} bytes");
        errors.push(FieldError::invalid(field, &Value::from(bytes), &why));
    }
    errors
}

fn owners(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controllers = 0;
    for (index, owner) in items_at(object, &["metadata", "ownerReferences"]).enumerate() {
        if is_enough(&errors) {
            break;
        }
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text_at(owner, &[field]).is_none_or(str::is_empty) {
                let field = format!("metadata.ownerReferences[{index}].{field}");
                errors.push(FieldError::required(field, "must not be empty"));
            }
        }
        controllers += usize::from(at(owner, &["controller"]) == Some(&Value::Bool(true)));
    }
    if controllers > 1 {
        let references = at(object, &["metadata", "ownerReferences"]).unwrap_or(&Value::Null);
        let why = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", references, why));
    }
    errors
}
