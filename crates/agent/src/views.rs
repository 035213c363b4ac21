//! What the node's own API may see of each pod: kept by the pods' workers, read by requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use toono_sandbox::Keeper;

/// One pod as requests see it.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) uid: String,
    pub(crate) dir: PathBuf,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) started_at: Timestamp,
    pub(crate) host_network: bool,
    /// No container of it will run again.
    pub(crate) over: bool,
    /// A volume or container of it may take no more than so much of the disk.
    pub(crate) bounded: bool,
    pub(crate) containers: BTreeMap<String, ContainerView>,
}

/// One container: its newest run with a log, and whether that one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContainerView {
    pub(crate) newest: Option<u32>,
    pub(crate) running: bool,
    /// When the run that is on began.
    pub(crate) started_at: Option<Timestamp>,
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

    /// All pods, by namespace and name.
    pub(crate) fn all(&self) -> BTreeMap<(String, String), PodView> {
        self.pods().clone()
    }

    /// The uids of those that will run no container again.
    pub(crate) fn over(&self) -> BTreeSet<String> {
        let pods = self.pods();
        pods.values().filter(|view| view.over).map(|view| view.uid.clone()).collect()
    }

    /// Whether no container of the pod runs, nor will.
    pub(crate) fn has_ended(&self, uid: &str) -> bool {
        let pods = self.pods();
        let running = |view: &PodView| view.containers.values().any(|it| it.running);
        pods.values().filter(|view| view.uid == uid).all(|view| view.over && !running(view))
    }

    /// The uids and directories of those that may take only so much of the disk, and still run.
    pub(crate) fn bounded(&self) -> Vec<(String, PathBuf)> {
        let pods = self.pods();
        let bounded = pods.values().filter(|view| view.bounded && !view.over);
        bounded.map(|view| (view.uid.clone(), view.dir.clone())).collect()
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
