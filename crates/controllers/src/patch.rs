//! Merge patches as controllers send them: only what they own, and on top of what they read.

use std::fmt::Debug;

use k8s_openapi::serde::de::DeserializeOwned;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// A merge patch that is refused when the object changed since `object` was read.
pub(crate) fn on_top_of<K: Resource>(object: &K, mut patch: Value) -> Value {
    if let Some(fields) = patch.as_object_mut() {
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("resourceVersion".to_owned(), json!(object.meta().resource_version));
            metadata.insert("uid".to_owned(), json!(object.meta().uid));
        }
    }
    patch
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

/// A number as Kubernetes keeps it in a status: zero is not written at all.
pub(crate) fn omit_zero(number: i32) -> Value {
    if number == 0 { Value::Null } else { number.into() }
}
