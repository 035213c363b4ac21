//! What the node's own API may see of each pod: kept by the pods' workers, read by requests.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use toono_sandbox::Keeper;

/// One pod as requests see it.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) uid: String,
    pub(crate) dir: PathBuf,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) containers: BTreeMap<String, ContainerView>,
}

/// One container: its newest run with a log, and whether that one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContainerView {
    pub(crate) newest: Option<u32>,
    pub(crate) running: bool,
}

/// All pods by namespace and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Views {
    pods: Arc<Mutex<BTreeMap<(String, String), PodView>>>,
}

impl Views {
    pub(crate) fn show(&self, namespace: &str, name: &str, view: PodView) {
        self.pods().insert((namespace.to_owned(), name.to_owned()), view);
    }

    /// Takes the pod away, unless another of the same name has come.
    pub(crate) fn hide(&self, namespace: &str, name: &str, uid: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut pods = self.pods();
        if pods.get(&key).is_some_and(|view| view.uid == uid) {
            pods.remove(&key);
        }
    }

    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<PodView> {
        self.pods().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Whether this run is still on.
    pub(crate) fn is_running(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        attempt: u32,
    ) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let pods = self.pods();
        let view = pods.get(&key).and_then(|pod| pod.containers.get(container));
        view.is_some_and(|view| view.running && view.newest == Some(attempt))
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<(String, String), PodView>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PodView {
    /// Where a run's log is.
    pub(crate) fn log(&self, container: &str, attempt: u32) -> PathBuf {
        log_path(&self.dir, container, attempt)
    }
}

/// Where the log of a container's run is in its pod's directory.
pub(crate) fn log_path(dir: &std::path::Path, container: &str, attempt: u32) -> PathBuf {
    dir.join("logs").join(container).join(format!("{attempt}.log"))
}
