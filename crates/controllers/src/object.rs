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
    fn resource_version(&self) -> Option<Cow<'_, str>>;
    /// It is being deleted.
    fn is_leaving(&self) -> bool;
}

/// The metadata of an object that controllers may own.
pub(crate) trait Claimable: Metadata {
    fn labels(&self) -> Option<&BTreeMap<String, String>>;
    fn owners(&self) -> &[OwnerReference];
    fn finalizers(&self) -> &[String];
    fn created(&self) -> Option<Timestamp>;
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

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        self.resource_version.as_deref().map(Cow::Borrowed)
    }

    fn is_leaving(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

impl Claimable for ObjectMeta {
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
}

/// An object.
pub(crate) trait Object {
    /// How its metadata is kept.
    type Metadata: Metadata;

    fn metadata(&self) -> &Self::Metadata;

    /// Takes the copy of its key that a cache has already, where it keeps a key.
    fn share_key(&mut self, _key: &Key) {}
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

/// Bytes of a uid in its usual form.
const UID_BYTES: usize = 36;

/// A uid in little memory, as a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UidText {
    Usual([u8; UID_BYTES]),
    Other(Box<str>),
}

impl UidText {
    pub(crate) fn new(text: &str) -> Self {
        text.as_bytes().try_into().map_or_else(|_| Self::Other(text.into()), Self::Usual)
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            // They were a text before.
            Self::Usual(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Self::Other(text) => text,
        }
    }
}

/// A resource version in little memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Number(u64),
    Other(Box<str>),
}

impl Version {
    pub(crate) fn new(text: &str) -> Self {
        match text.parse() {
            Ok(number) if text.starts_with(|first| ('1'..='9').contains(&first)) => {
                Self::Number(number)
            }
            _ => Self::Other(text.into()),
        }
    }

    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Number(number) => number.to_string().into(),
            Self::Other(text) => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_forms_keep_their_text() {
        for text in ["", "0", "007", "+7", "12345678901234567890", "99999999999999999999", "a"] {
            assert_eq!(Version::new(text).text(), text);
        }
        for text in ["", "u", "00000000-0000-4000-8000-00000000000a"] {
            assert_eq!(UidText::new(text).as_str(), text);
        }
        assert!(size_of::<Version>() <= 16 && size_of::<UidText>() <= 40);
    }
}
