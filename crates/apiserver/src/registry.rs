//! Which kinds the server serves at this moment: the built-in ones, and custom ones that come and go.
//!
//! A [`Registry`] never changes: a change of the served kinds makes a new one and puts it in the place
//! of the old ([`Registries`]), so that a request sees the same kinds from its beginning to its end.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::watch;
use toono_api::{BuiltIn, Resource, kinds};

use crate::{custom, openapi::Documents};

/// An unchanging set of served kinds.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// In the order in which discovery shows them.
    resources: Vec<Arc<Resource>>,
    /// By group and version, then by plural name.
    by_path: HashMap<Box<str>, HashMap<Box<str>, Arc<Resource>>>,
    documents: Documents,
}

impl Registry {
    /// The built-in kinds, and these.
    pub(crate) fn with(custom: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let built_in = kinds::RESOURCES.iter().map(|row| custom::built_in(row));
        let mut registry = Self::default();
        for resource in built_in.chain(custom) {
            let version = registry.by_path.entry(resource.api_version().into()).or_default();
            // No custom kind takes the place of a built-in one.
            if version.contains_key(&*resource.plural) {
                continue;
            }
            version.insert((&*resource.plural).into(), Arc::clone(&resource));
            registry.resources.push(resource);
        }
        registry
    }

    /// All kinds.
    pub(crate) fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// What OpenAPI says of them.
    pub(crate) fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The resource of a path's group, version and plural name.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let key = if group.is_empty() {
            Cow::Borrowed(version)
        } else {
            Cow::Owned(format!("{group}/{version}"))
        };
        self.by_path.get(&*key)?.get(plural)
    }

    /// Whether that kind is still served, with the same schema.
    pub(crate) fn serves(&self, resource: &Resource) -> bool {
        let found = self.find(&resource.group, &resource.version, &resource.plural);
        found.is_some_and(|found| Arc::ptr_eq(&found.behaviour, &resource.behaviour))
    }

    /// The kinds of one version of a group.
    pub(crate) fn of_version(
        &self,
        group: &str,
        version: &str,
    ) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources
            .iter()
            .filter(move |resource| resource.group == group && resource.version == version)
    }

    /// The other versions in which a kind is served, as `group/version`.
    pub(crate) fn other_versions(&self, of: &Resource) -> Vec<String> {
        let same = self.resources.iter().filter(|other| {
            other.group == of.group && other.plural == of.plural && other.version != of.version
        });
        same.map(|other| other.api_version()).collect()
    }

    /// Every group and version, core first, without repetition.
    pub(crate) fn group_versions(&self) -> Vec<(&str, &str)> {
        // Versions of a group stand together, whatever order their kinds came in.
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for resource in &self.resources {
            let (group, version) = (&*resource.group, &*resource.version);
            match groups.iter_mut().find(|(known, _)| *known == group) {
                None => groups.push((group, vec![version])),
                Some((_, versions)) if !versions.contains(&version) => versions.push(version),
                Some(_) => {}
            }
        }
        let pairs = |(group, versions): (_, Vec<_>)| {
            versions.into_iter().map(move |version| (group, version))
        };
        groups.into_iter().flat_map(pairs).collect()
    }
}

/// The registry of the moment.
#[derive(Debug)]
pub(crate) struct Registries {
    now: RwLock<Arc<Registry>>,
    /// Sent to whenever other kinds are served; gone with the server.
    changes: watch::Sender<()>,
    /// The built-in kinds by their rows' addresses, which never change.
    built_in: HashMap<usize, Arc<Resource>>,
}

impl Registries {
    pub(crate) fn new() -> Self {
        let registry = Registry::with([]);
        let address = |resource: &Arc<Resource>| {
            resource.behaviour.built_in().map(|row| std::ptr::from_ref(row).addr())
        };
        let rows = registry.resources.iter();
        let built_in =
            rows.filter_map(|resource| Some((address(resource)?, Arc::clone(resource)))).collect();
        let now = RwLock::new(Arc::new(registry));
        Self { now, changes: watch::Sender::new(()), built_in }
    }

    /// The kinds that are served now.
    pub(crate) fn now(&self) -> Arc<Registry> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the built-in kinds and these from now on.
    pub(crate) fn serve(&self, custom: impl IntoIterator<Item = Arc<Resource>>) {
        let registry = Arc::new(Registry::with(custom));
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = registry;
        self.changes.send_replace(());
    }

    /// Tells of changes of the served kinds, and by an error of the server's end.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// A built-in kind by its row.
    pub(crate) fn built_in(&self, row: &'static BuiltIn) -> Arc<Resource> {
        match self.built_in.get(&std::ptr::from_ref(row).addr()) {
            Some(resource) => Arc::clone(resource),
            // Not reached for rows of the table.
            None => Arc::new(Resource::from(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_path_and_by_itself() {
        let registries = Registries::new();
        let registry = registries.now();
        for row in kinds::RESOURCES {
            let found = registry.find(row.group, row.version, row.plural).unwrap();
            assert!(found.is(row) && registries.built_in(row).is(row), "{}", row.kind);
        }
        assert!(registry.find("apps", "v2", "deployments").is_none());
        let versions = registry.group_versions();
        assert_eq!(versions.first(), Some(&("", "v1")));
        let mut once = versions.clone();
        once.dedup();
        assert_eq!(versions, once);
    }
}
