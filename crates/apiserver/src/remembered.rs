//! What every request asks for and is made of all objects of a kind: it is made again when one of them
//! has changed. It must not be used for kinds that change often.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::watch;
use toono_api::{ApiError, BuiltIn, Resource};
use toono_mvcc::{Entry, Prefix, Rev};
use toono_store::Store;

use crate::server::{ApiServer, expired};

/// A value that is made of all objects of a kind.
pub(crate) struct Remembered<T> {
    kind: &'static BuiltIn,
    /// The revision of the kind's newest change. It is there before the change is answered.
    changes: watch::Receiver<Rev>,
    /// What was made, and after which change.
    made: RwLock<Option<(Rev, Arc<T>)>>,
}

impl<T> Remembered<T> {
    pub(crate) fn new(store: &Store, kind: &'static BuiltIn) -> Self {
        let changes = store.changes(&prefix(&Resource::from(kind)));
        Self { kind, changes, made: RwLock::default() }
    }

    /// The value as of now.
    ///
    /// # Errors
    /// Those of `make`; nothing is remembered then.
    pub(crate) fn get(
        &self,
        server: &ApiServer,
        make: impl FnOnce(&Resource, Vec<Entry>) -> Result<T, ApiError>,
    ) -> Result<Arc<T>, ApiError> {
        // Before the objects are read: they can only be newer than this says.
        let newest = *self.changes.borrow();
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, value)) = made
            && at == newest
        {
            return Ok(value);
        }
        let resource = server.built_in(self.kind);
        let page = server.inner.store.list(&prefix(&resource), server.revision(), None, usize::MAX);
        let value = Arc::new(make(&resource, page.map_err(expired)?.entries)?);
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        *made = Some((newest, Arc::clone(&value)));
        Ok(value)
    }
}

fn prefix(resource: &Resource) -> Prefix {
    Prefix::resource(&resource.stored_group, &resource.stored_plural)
}

impl<T> fmt::Debug for Remembered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("kind", &self.kind.kind).finish_non_exhaustive()
    }
}
