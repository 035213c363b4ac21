//! An object's metadata, read from its JSON without decoding the rest.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::Value;

/// The parts of an object that every kind has. Borrows from the JSON where it can.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectHeader<'a> {
    /// `apiVersion`.
    #[serde(borrow)]
    pub api_version: Option<Cow<'a, str>>,
    /// `kind`.
    #[serde(borrow)]
    pub kind: Option<Cow<'a, str>>,
    /// `metadata`.
    #[serde(borrow)]
    pub metadata: Metadata<'a>,
}

/// The fields of `metadata` that the control plane itself acts on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata<'a> {
    /// Unique within resource and namespace.
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    /// Empty or absent for cluster-scoped objects.
    #[serde(borrow)]
    pub namespace: Option<Cow<'a, str>>,
    /// Unique over all time.
    #[serde(borrow)]
    pub uid: Option<Cow<'a, str>>,
    /// Revision of the last change, as text.
    #[serde(borrow)]
    pub resource_version: Option<Cow<'a, str>>,
    /// Counts changes of the desired state.
    pub generation: Option<i64>,
    /// When the object was created (RFC 3339).
    #[serde(borrow)]
    pub creation_timestamp: Option<Cow<'a, str>>,
    /// When a graceful deletion ends (RFC 3339); present once it began.
    #[serde(borrow)]
    pub deletion_timestamp: Option<Cow<'a, str>>,
    /// Seconds of grace that a deletion was given.
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels.
    #[serde(borrow)]
    pub labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    /// Who must let go before the object disappears.
    #[serde(borrow)]
    pub finalizers: Option<Vec<Cow<'a, str>>>,
    /// What the object belongs to.
    #[serde(borrow)]
    pub owner_references: Option<Vec<OwnerReference<'a>>>,
}

/// One owner of an object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference<'a> {
    /// `group/version` of the owner.
    #[serde(borrow)]
    pub api_version: Cow<'a, str>,
    /// Kind of the owner.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Name of the owner, in the same namespace or cluster-scoped.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// UID of the owner.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// Whether this owner manages the object.
    pub controller: Option<bool>,
}

impl<'a> ObjectHeader<'a> {
    /// Reads the header of an encoded object.
    ///
    /// # Errors
    /// When the bytes are no JSON object or a metadata field has the wrong type.
    pub fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

impl Metadata<'_> {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(AsRef::as_ref)
    }

    /// Whether deletion has begun.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// The managing owner.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference<'_>> {
        self.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
    }
}

/// The text at a path of field names, or nothing.
#[must_use]
pub fn text_at<'v>(object: &'v Value, path: &[&str]) -> Option<&'v str> {
    at(object, path)?.as_str()
}

/// The value at a path of field names, or nothing.
#[must_use]
pub fn at<'v>(object: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, field| value.get(field))
}

/// The items of the list at a path; none when it is absent.
pub fn items_at<'v>(object: &'v Value, path: &[&str]) -> impl Iterator<Item = &'v Value> {
    at(object, path).and_then(Value::as_array).into_iter().flatten()
}

/// The labels at `metadata.labels` of a decoded object.
pub fn labels_of(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    at(object, &["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_and_the_rest_is_skipped() {
        let json = br#"{"kind":"Pod","metadata":{"name":"a","labels":{"x":"\u0079"},"generation":3,
            "deletionTimestamp":null,"ownerReferences":[{"uid":"u","controller":true}]},"spec":{"name":1}}"#;
        let header = ObjectHeader::parse(json).unwrap();
        assert_eq!(header.metadata.name.as_deref(), Some("a"));
        assert_eq!(header.metadata.label("x"), Some("y"));
        assert!(!header.metadata.is_deleting());
        assert_eq!(header.metadata.controller().map(|owner| owner.uid.as_ref()), Some("u"));
        assert!(ObjectHeader::parse(b"[1]").is_err());
    }
}
