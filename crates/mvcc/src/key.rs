//! Names of objects and ranges of them, as one string each. It must not judge whether a name is a
//! valid Kubernetes name: the API server did that before it made a key.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// How the empty API group is written, so that no key begins with a slash.
const CORE: &str = "core";

/// The place of one object: `group/plural/namespace/name`. The empty group is written `core`, and an
/// object of cluster scope has an empty namespace: `core/nodes//edge-7`.
///
/// Ordered as its text, so that all objects of a resource, and in it those of a namespace, are
/// neighbours. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// A key of its parts. Give the core group as `""` and cluster scope as the namespace `""`.
    ///
    /// No Kubernetes name contains a slash. A key made of one that does is not
    /// [well formed](Key::is_well_formed): there is no object at it, and the store takes none.
    #[must_use]
    pub fn new(group: &str, plural: &str, namespace: &str, name: &str) -> Self {
        let group = stored_group(group);
        Self(format!("{group}/{plural}/{namespace}/{name}").into())
    }

    /// Reads a key back from its text; `None` if that does not have four parts.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        has_four_parts(text).then(|| Self(text.into()))
    }

    /// Whether the text has four parts, as [`Key::parse`] demands.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        has_four_parts(&self.0)
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The API group; `""` for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        match self.part(0) {
            CORE => "",
            group => group,
        }
    }

    /// The resource's plural name, such as `pods`.
    #[must_use]
    pub fn plural(&self) -> &str {
        self.part(1)
    }

    /// The namespace; `""` for an object of cluster scope.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.part(2)
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.part(3)
    }

    /// The resource that the object belongs to, as `group/plural`.
    #[must_use]
    pub fn resource(&self) -> &str {
        resource_of(&self.0)
    }

    fn part(&self, index: usize) -> &str {
        self.0.split('/').nth(index).unwrap_or_default()
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// All objects of a resource, or all of them in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// All objects of a resource, in whatever namespace. Give the core group as `""`.
    #[must_use]
    pub fn resource(group: &str, plural: &str) -> Self {
        let group = stored_group(group);
        Self(format!("{group}/{plural}/").into())
    }

    /// All objects of a resource that is named as [`Key::resource`] names it.
    #[must_use]
    pub fn of_resource(name: &str) -> Self {
        Self(format!("{name}/").into())
    }

    /// The objects of a resource in one namespace.
    #[must_use]
    pub fn namespace(group: &str, plural: &str, namespace: &str) -> Self {
        let group = stored_group(group);
        Self(format!("{group}/{plural}/{namespace}/").into())
    }

    /// Whether the object at `key` is one of these.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&*self.0)
    }

    /// The text that all the keys begin with; it ends in a slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource that the objects belong to, as `group/plural`.
    #[must_use]
    pub fn resource_name(&self) -> &str {
        resource_of(&self.0)
    }
}

fn has_four_parts(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'/').count() == 3
}

fn stored_group(group: &str) -> &str {
    if group.is_empty() { CORE } else { group }
}

/// The text before the second slash.
fn resource_of(text: &str) -> &str {
    text.match_indices('/').nth(1).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_parts() {
        let cases = [
            ("", "pods", "shop", "web-0", "core/pods/shop/web-0", "core/pods"),
            ("", "nodes", "", "edge-7", "core/nodes//edge-7", "core/nodes"),
            ("apps", "deployments", "shop", "web", "apps/deployments/shop/web", "apps/deployments"),
        ];
        for (group, plural, namespace, name, text, resource) in cases {
            let key = Key::new(group, plural, namespace, name);
            assert_eq!(key.as_str(), text);
            assert_eq!(
                (key.group(), key.plural(), key.namespace(), key.name(), key.resource()),
                (group, plural, namespace, name, resource)
            );
            assert_eq!(Key::parse(text), Some(key));
        }
        assert_eq!(Key::parse("core/pods/web"), None);
        assert_eq!(Key::parse("core/pods/a/b/c"), None);
        assert!(Key::new("", "pods", "shop", "web").is_well_formed());
        assert!(!Key::new("", "pods", "shop", "web/../db").is_well_formed());
    }

    #[test]
    fn a_prefix_holds_only_its_own() {
        let web = Key::new("", "pods", "shop", "web");
        assert!(Prefix::resource("", "pods").contains(&web));
        assert!(Prefix::namespace("", "pods", "shop").contains(&web));
        assert!(!Prefix::namespace("", "pods", "sho").contains(&web));
        assert!(!Prefix::resource("", "pod").contains(&web));
        assert!(!Prefix::resource("apps", "pods").contains(&web));
        assert_eq!(Prefix::namespace("", "pods", "shop").resource_name(), "core/pods");
        assert_eq!(Prefix::resource("", "pods").resource_name(), "core/pods");
    }
}
