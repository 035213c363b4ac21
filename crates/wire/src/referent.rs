//! What pods reference, ConfigMaps, Secrets and what their service accounts may read: names, and what of them travels to
//! nodes.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

/// The longest name that Kubernetes takes: that of a DNS subdomain.
const LONGEST_NAME: usize = 253;

/// What a pod can reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReferentKind {
    /// A `v1.ConfigMap`.
    ConfigMap,
    /// A `v1.Secret`.
    Secret,
    /// What a service account may read, as far as roles and bindings say; `data` has it as JSON in the key
    /// [`READABLE`]. It is there whether the account is or not.
    ServiceAccount,
}

/// The key of what a service account may read.
pub const READABLE: &str = "readable";

impl ReferentKind {
    /// As paths of the API have it.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
            Self::ServiceAccount => "serviceaccounts",
        }
    }

    /// As messages about a single one have it.
    #[must_use]
    pub fn singular(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
            Self::ServiceAccount => "serviceaccount",
        }
    }
}

/// Which one. Its text is `configmaps/NAMESPACE/NAME`, `secrets/NAMESPACE/NAME` or `serviceaccounts/NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferentName {
    /// Of two objects of one name, this one.
    pub kind: ReferentKind,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// The text is no [`ReferentName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a ConfigMap, a Secret or a service account")]
pub struct BadReferentName;

impl fmt::Display for ReferentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.plural(), self.namespace, self.name)
    }
}

impl FromStr for ReferentName {
    type Err = BadReferentName;

    fn from_str(text: &str) -> Result<Self, BadReferentName> {
        let mut parts = text.splitn(3, '/');
        let kind = match parts.next() {
            Some("configmaps") => ReferentKind::ConfigMap,
            Some("secrets") => ReferentKind::Secret,
            Some("serviceaccounts") => ReferentKind::ServiceAccount,
            _ => return Err(BadReferentName),
        };
        let mut named = || parts.next().filter(|it| is_name(it)).ok_or(BadReferentName);
        Ok(Self { kind, namespace: named()?.into(), name: named()?.into() })
    }
}

/// Letters, digits, dashes and dots, as all such names in Kubernetes.
fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && text
            .bytes()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-.".contains(&it))
        && !text.starts_with('.')
}

impl Serialize for ReferentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReferentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// What of a referent its pods can see: all that travels to nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referent<'a> {
    /// Which of the two it is.
    pub kind: ReferentKind,
    /// `metadata.namespace`.
    #[serde(borrow)]
    pub namespace: Cow<'a, str>,
    /// `metadata.name`.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// `data` as the API has it: texts in a ConfigMap, base64 in a Secret.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// `binaryData` of a ConfigMap: base64.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub binary_data: Option<&'a RawValue>,
    /// `type` of a Secret.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<Cow<'a, str>>,
    /// `immutable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

impl Referent<'_> {
    /// Which one it is; none when its name is none.
    #[must_use]
    pub fn named(&self) -> Option<ReferentName> {
        let named = is_name(&self.namespace) && is_name(&self.name);
        let (namespace, name) = (self.namespace.as_ref(), self.name.as_ref());
        named.then(|| ReferentName {
            kind: self.kind,
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_as_paths_and_nothing_else_is_one() {
        for text in
            ["configmaps/default/kube-root-ca.crt", "secrets/a-b/c.d", "serviceaccounts/a/default"]
        {
            let name: ReferentName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<ReferentName>(&json).unwrap(), name);
        }
        for bad in [
            "",
            "pods/a/b",
            "secrets/a",
            "secrets//b",
            "secrets/a/",
            "secrets/a/b/c",
            "secrets/a/..",
            "secrets/a/B",
        ] {
            assert_eq!(bad.parse::<ReferentName>(), Err(BadReferentName), "{bad}");
        }
    }

    #[test]
    fn what_is_null_is_not_there() {
        let text =
            r#"{"kind":"Secret","namespace":"d","name":"n","data":{"a":"Yg=="},"type":"Opaque"}"#;
        let referent: Referent<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(referent.named().unwrap().to_string(), "secrets/d/n");
        assert_eq!(serde_json::to_string(&referent).unwrap(), text);
        let text = r#"{"kind":"ConfigMap","namespace":"d","name":"n","data":null}"#;
        let referent: Referent<'_> = serde_json::from_str(text).unwrap();
        assert!(referent.data.is_none());
    }
}
