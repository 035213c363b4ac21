//! An object of any kind, as garbage collection reads it: its metadata alone. Every change of every object
//! comes by here, leases' renewals too.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use serde::Deserialize;

use crate::kinds::lean_metadata;

/// An object of any kind.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Member {
    #[serde(default, deserialize_with = "lean_metadata")]
    pub(super) metadata: ObjectMeta,
}

impl Resource for Member {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn api_version(kind: &ApiResource) -> Cow<'_, str> {
        kind.api_version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_owns_and_holds_an_object_is_read() {
        let member: Member = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "a"},
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["orphan"], "managedFields": [{"manager": "kubectl"}],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                    "uid": "o", "controller": true, "blockOwnerDeletion": true}]}}))
        .unwrap();
        let metadata = member.metadata;
        assert_eq!(metadata.owner_references.unwrap()[0].uid, "o");
        assert_eq!(metadata.finalizers.unwrap(), ["orphan"]);
        assert!(metadata.deletion_timestamp.is_some());
        assert_eq!(metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(metadata.managed_fields, None);
    }
}
