//! An object's namespace and name.

use std::{fmt, ops::Deref, sync::Arc};

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
