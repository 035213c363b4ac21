//! An object's namespace and name.

use std::{collections::HashSet, fmt, ops::Deref, sync::Arc};

use toono_api::intern::Pool;

use crate::object::Metadata;

static NAMESPACES: Pool<str> = Pool::new();

/// An object's namespace (empty for cluster scope) and name. Caches, indexes and queues hold many
/// copies, so a copy is one pointer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(Arc<Names>);

/// What a [`Key`] points to.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Names {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Box<str>,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self(Arc::new(Names { namespace: NAMESPACES.share(namespace), name: name.into() }))
    }

    pub(crate) fn of<M: Metadata>(metadata: &M) -> Self {
        metadata.key()
    }
}

impl Deref for Key {
    type Target = Names;

    fn deref(&self) -> &Names {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A set of keys that is not empty. Most have one: the pods of a node, of a million nodes.
#[expect(
    clippy::box_collection,
    reason = "of a million sets few are large, and all are as large as this"
)]
pub(crate) enum Keys {
    One(Key),
    Many(Box<HashSet<Key>>),
}

impl Keys {
    pub(crate) fn insert(&mut self, key: Key) {
        match self {
            Self::One(one) if *one == key => {}
            Self::One(one) => *self = Self::Many(Box::new(HashSet::from([one.clone(), key]))),
            Self::Many(many) => drop(many.insert(key)),
        }
    }

    /// Takes a key out; whether none would be left, which is then for the caller to mend.
    #[must_use]
    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Many(many) => {
                many.remove(key);
                let mut left = many.iter();
                if let (Some(one), None) = (left.next(), left.next()) {
                    *self = Self::One(one.clone());
                }
                false
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key> {
        let (one, many) = match self {
            Self::One(key) => (Some(key), None),
            Self::Many(keys) => (None, Some(keys.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_keys_is_one_or_many() {
        let key = |name| Key::new("", name);
        let mut keys = Keys::One(key("a"));
        keys.insert(key("a"));
        assert_eq!(keys.iter().count(), 1);
        keys.insert(key("b"));
        keys.insert(key("b"));
        assert_eq!(keys.iter().count(), 2);
        assert!(!keys.remove(&key("c")) && !keys.remove(&key("a")));
        assert!(matches!(&keys, Keys::One(one) if *one == key("b")));
        assert!(!keys.remove(&key("a")), "it was not there");
        assert!(keys.remove(&key("b")));
    }
}
