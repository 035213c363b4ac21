//! What garbage collection reads of any object. The rest of its metadata, `managedFields` above all, is
//! skipped: every change of every object comes by here, leases' renewals too.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use serde::Deserialize;

/// An object of any kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Sent")]
pub(super) struct Member {
    pub(super) metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    metadata: SentMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SentMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
}

impl From<Sent> for Member {
    fn from(Sent { metadata }: Sent) -> Self {
        Self {
            metadata: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                owner_references: metadata.owner_references,
                finalizers: metadata.finalizers,
                deletion_timestamp: metadata.deletion_timestamp,
                ..ObjectMeta::default()
            },
        }
    }
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
        assert_eq!((metadata.labels, metadata.managed_fields), (None, None));
    }
}
