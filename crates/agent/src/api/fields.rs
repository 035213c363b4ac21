//! Fields of objects that are only JSON here.

use serde_json::Value;

/// Sets a field of an object at a path whose objects exist; of anything else it sets nothing.
pub(super) fn set(object: &mut Value, path: &[&str], new: impl Into<Value>) {
    let Some((last, before)) = path.split_last() else { return };
    let found = before.iter().try_fold(object, |value, field| value.get_mut(*field));
    if let Some(fields) = found.and_then(Value::as_object_mut) {
        fields.insert((*last).to_owned(), new.into());
    }
}

/// Sets a field, unless the text is empty.
pub(super) fn set_text(object: &mut Value, field: &str, text: &str) {
    if !text.is_empty() {
        set(object, &[field], text);
    }
}
