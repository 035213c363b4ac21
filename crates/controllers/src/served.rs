//! The kinds that the API serves, as the garbage collector's discovery found them, and who is told
//! when an object of any of them is removed.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use kube::core::ApiResource;

/// Told of the removal of an object: its group, plural and namespace.
type Handler = Box<dyn Fn(&str, &str, &str) + Send + Sync>;

/// See the module.
#[derive(Default)]
pub(crate) struct Served {
    resources: RwLock<HashMap<(String, String), ApiResource>>,
    handlers: Vec<Handler>,
}

impl Served {
    /// Has `handler` told of each removal. It must be quick.
    pub(crate) fn on_removal(
        &mut self,
        handler: impl Fn(&str, &str, &str) + Send + Sync + 'static,
    ) {
        self.handlers.push(Box::new(handler));
    }

    /// A kind was discovered.
    pub(crate) fn add(&self, resource: ApiResource) {
        let name = (resource.group.clone(), resource.plural.clone());
        let mut resources = self.resources.write().unwrap_or_else(PoisonError::into_inner);
        resources.insert(name, resource);
    }

    /// The kind of this group and plural, in the version that is preferred.
    pub(crate) fn named(&self, group: &str, plural: &str) -> Option<ApiResource> {
        let resources = self.resources.read().unwrap_or_else(PoisonError::into_inner);
        resources.get(&(group.to_owned(), plural.to_owned())).cloned()
    }

    /// An object was removed.
    pub(crate) fn removed(&self, resource: &ApiResource, namespace: &str) {
        self.handlers.iter().for_each(|tell| tell(&resource.group, &resource.plural, namespace));
    }
}
