//! Merge patches as controllers send them: only what they own, and on top of what they read.

use std::fmt::Debug;

use k8s_openapi::serde::de::DeserializeOwned;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::object::{Metadata, Object};

/// A merge patch that is refused when the object changed since `object` was read.
pub(crate) fn on_top_of<O: Object>(object: &O, mut patch: Value) -> Value {
    if let Some(fields) = patch.as_object_mut() {
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata
                .insert("resourceVersion".to_owned(), json!(object.metadata().resource_version()));
            metadata.insert("uid".to_owned(), json!(object.metadata().uid()));
        }
    }
    patch
}

/// The map at a path, made where nothing is. `None` where something else is, of which decoding will tell.
pub(crate) fn map_at<'v>(
    value: &'v mut Value,
    path: &[&str],
) -> Option<&'v mut serde_json::Map<String, Value>> {
    let mut at = value.as_object_mut()?;
    for step in path {
        let inner = at.entry(*step).or_insert(Value::Null);
        if inner.is_null() {
            *inner = json!({});
        }
        at = inner.as_object_mut()?;
    }
    Some(at)
}

/// The merge patch that makes `old` into `new`: what is no more becomes null.
pub(crate) fn difference(old: &Value, new: &Value) -> Value {
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
        return new.clone();
    };
    let mut patch = serde_json::Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            Some(known) if known == value => {}
            Some(known) => drop(patch.insert(key.clone(), difference(known, value))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(patch)
}

/// Writes a whole status, typed, on top of the object that was read.
pub(crate) async fn write_status<K, S>(
    api: &Api<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> Result<K, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    S: k8s_openapi::serde::Serialize,
{
    let value = |status: Option<&S>| {
        // Encoding has no failure: these structures have string keys only.
        serde_json::to_value(status).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
    };
    let status = difference(&value(old), &value(Some(new)));
    let name = object.meta().name.clone().unwrap_or_default();
    merge_status(api, &name, &on_top_of(object, json!({"status": status}))).await
}

/// Patches an object's main part.
pub(crate) async fn merge<K>(api: &Api<K>, name: &str, patch: &Value) -> Result<K, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Patches an object's status.
pub(crate) async fn merge_status<K>(
    api: &Api<K>,
    name: &str,
    patch: &Value,
) -> Result<K, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Patches an object's status, and lists in it by their elements' keys: what is not named stays.
pub(crate) async fn merge_status_lists<K>(
    api: &Api<K>,
    name: &str,
    patch: &Value,
) -> Result<K, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await
}

/// A number as Kubernetes keeps it in a status: zero is not written at all.
pub(crate) fn omit_zero(number: i32) -> Value {
    if number == 0 { Value::Null } else { number.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_makes_the_old_into_the_new() {
        let old = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": {"f": 1}});
        let new = json!({"a": 1, "b": {"c": [1, 2]}, "g": {}});
        let patch = difference(&old, &new);
        assert_eq!(patch, json!({"b": {"c": [1, 2], "d": null}, "e": null, "g": {}}));
        assert_eq!(difference(&new, &new), json!({}));
    }
}
