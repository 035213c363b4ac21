//! What controllers ask of any object, whether it is cached as the API has it or smaller.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::key::Key;

/// An object's metadata.
pub(crate) trait Metadata {
    /// Namespace (empty for cluster scope) and name.
    fn key(&self) -> Key;
    fn namespace(&self) -> &str;
    fn name(&self) -> &str;
    /// Empty only before the object was created.
    fn uid(&self) -> &str;
    fn resource_version(&self) -> Option<&str>;
    fn labels(&self) -> Option<&BTreeMap<String, String>>;
    fn owners(&self) -> &[OwnerReference];
    fn finalizers(&self) -> &[String];
    fn created(&self) -> Option<Timestamp>;
    /// It is being deleted.
    fn is_leaving(&self) -> bool;
}

impl Metadata for ObjectMeta {
    fn key(&self) -> Key {
        Key::new(Metadata::namespace(self), Metadata::name(self))
    }

    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.uid.as_deref().unwrap_or_default()
    }

    fn resource_version(&self) -> Option<&str> {
        self.resource_version.as_deref()
    }

    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.labels.as_ref()
    }

    fn owners(&self) -> &[OwnerReference] {
        self.owner_references.as_deref().unwrap_or_default()
    }

    fn finalizers(&self) -> &[String] {
        self.finalizers.as_deref().unwrap_or_default()
    }

    fn created(&self) -> Option<Timestamp> {
        self.creation_timestamp.as_ref().map(|time| time.0)
    }

    fn is_leaving(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// An object.
pub(crate) trait Object {
    /// How its metadata is kept.
    type Metadata: Metadata;

    fn metadata(&self) -> &Self::Metadata;
}

/// An object of a kind that its type says.
pub(crate) trait OfKind: Object {
    fn kind() -> Cow<'static, str>;
    fn api_version() -> Cow<'static, str>;
}

impl<K: Resource> Object for K {
    type Metadata = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        self.meta()
    }
}

impl<K: Resource<DynamicType = ()>> OfKind for K {
    fn kind() -> Cow<'static, str> {
        <K as Resource>::kind(&())
    }

    fn api_version() -> Cow<'static, str> {
        <K as Resource>::api_version(&())
    }
}
