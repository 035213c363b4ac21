//! The desired state on disk: one file per pod, and one that says which pods and which revision.
//!
//! It decides nothing. A pod's files stay until the pod is gone, because ending a pod needs
//! them too, perhaps after a power cut.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};
use toono_wire::bundle::Bundle;

use crate::{
    AgentError,
    disk::{self, Durability},
};

/// The store of one data directory.
#[derive(Debug)]
pub(crate) struct Bundles {
    data: PathBuf,
    index: Index,
}

/// What the node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    revision: u64,
    /// The uids of the pods that the cloud wants here.
    present: BTreeSet<String>,
}

/// A uid becomes a directory's name, so it must be nothing else.
fn is_plain(uid: &str) -> bool {
    (1..=64).contains(&uid.len())
        && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Bundles {
    /// Reads what is there. What is damaged makes the revision 0, so that the cloud sends all anew;
    /// no pod is given up for it.
    pub(crate) fn load(data: &Path) -> Result<Self, AgentError> {
        disk::make_dir(&data.join("pods"))?;
        let mut loaded = Self { data: data.to_owned(), index: Index::default() };
        let stored = disk::read_checked(&loaded.index_path())?;
        match stored.and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok()) {
            Some(index) => loaded.index = index,
            None => loaded.index.present = loaded.on_disk()?,
        }
        for uid in loaded.index.present.clone() {
            if disk::read_checked(&loaded.pod_path(&uid))?.is_none() {
                tracing::warn!(uid, "a pod's file is missing or damaged; the whole bundle is due");
                loaded.index.revision = 0;
            }
        }
        Ok(loaded)
    }

    /// The revision that is wholly on disk; 0 for none.
    pub(crate) fn revision(&self) -> u64 {
        self.index.revision
    }

    /// Makes the next fetch a whole one.
    pub(crate) fn distrust(&mut self) {
        self.index.revision = 0;
    }

    /// Whether the cloud wants this pod here.
    pub(crate) fn wants(&self, uid: &str) -> bool {
        self.index.present.contains(uid)
    }

    /// Stores a bundle. The pods are on disk before the revision that says so.
    pub(crate) fn store(&mut self, bundle: &Bundle) -> Result<Vec<Pod>, AgentError> {
        let mut changed = Vec::with_capacity(bundle.pods.len());
        for raw in &bundle.pods {
            let pod: Pod = match serde_json::from_str(raw.get()) {
                Ok(pod) => pod,
                Err(error) => {
                    tracing::warn!(%error, "the bundle has a pod that cannot be read");
                    continue;
                }
            };
            let Some(uid) = pod.metadata.uid.as_deref().filter(|uid| is_plain(uid)) else {
                continue;
            };
            disk::make_dir(&self.pod_dir(uid))?;
            disk::write_checked(&self.pod_path(uid), raw.get().as_bytes(), Durability::Synced)?;
            changed.push(pod);
        }
        let present = bundle.present.iter().filter(|uid| is_plain(uid)).cloned().collect();
        let index = Index { revision: bundle.revision, present };
        if index != self.index {
            self.save(&index)?;
            self.index = index;
        }
        Ok(changed)
    }

    /// Every pod with a readable file, wanted or still to be ended.
    pub(crate) fn pods(&self) -> Result<Vec<Pod>, AgentError> {
        let mut pods = Vec::new();
        for uid in self.on_disk()? {
            let stored = disk::read_checked(&self.pod_path(&uid))?;
            match stored.map(|bytes| serde_json::from_slice::<Pod>(&bytes)) {
                Some(Ok(pod)) if pod.metadata.uid.as_deref() == Some(uid.as_str()) => {
                    pods.push(pod)
                }
                Some(Err(error)) => tracing::warn!(uid, %error, "a stored pod cannot be read"),
                _ => {}
            }
        }
        Ok(pods)
    }

    /// The uids of all pod directories.
    pub(crate) fn on_disk(&self) -> Result<BTreeSet<String>, AgentError> {
        let dir = self.data.join("pods");
        let read = || -> io::Result<BTreeSet<String>> {
            let names = fs::read_dir(&dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
            Ok(names
                .collect::<io::Result<Vec<_>>>()?
                .into_iter()
                .flatten()
                .filter(|it| is_plain(it))
                .collect())
        };
        read().map_err(disk::failed("read", &dir))
    }

    fn save(&self, index: &Index) -> Result<(), AgentError> {
        let bytes = serde_json::to_vec(index).unwrap_or_default();
        disk::write_checked(&self.index_path(), &bytes, Durability::Synced)
    }

    fn index_path(&self) -> PathBuf {
        self.data.join("bundle")
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        pod_dir(&self.data, uid)
    }

    fn pod_path(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("pod")
    }
}

/// Where everything of a pod is.
pub(crate) fn pod_dir(data: &Path, uid: &str) -> PathBuf {
    data.join("pods").join(uid)
}

/// Whether a worker has ever had the pod: it keeps a status before it does anything.
pub(crate) fn has_begun(data: &Path, uid: &str) -> bool {
    pod_dir(data, uid).join("status").exists()
}

/// Reads the pod as it is wanted now.
pub(crate) fn read_pod(dir: &Path) -> Option<Pod> {
    let bytes = disk::read_checked(&dir.join("pod")).ok()??;
    serde_json::from_slice(&bytes).ok()
}

/// Keeps the last status. It is rewritten with each change and only helps the restart counts,
/// which the log files tell too, so no sync is spent on it.
pub(crate) fn write_status(dir: &Path, status: &str) -> Result<(), AgentError> {
    disk::write_checked(&dir.join("status"), status.as_bytes(), Durability::Lazy)
}

/// The status that [`write_status`] kept.
pub(crate) fn read_status(dir: &Path) -> Option<PodStatus> {
    let bytes = disk::read_checked(&dir.join("status")).ok()??;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn bundle(revision: u64, pods: &[&str], present: &[&str]) -> Bundle {
        let pod = |uid: &&str| {
            let text =
                format!(r#"{{"metadata":{{"name":"p-{uid}","namespace":"d","uid":"{uid}"}}}}"#);
            RawValue::from_string(text).unwrap()
        };
        Bundle {
            revision,
            pods: pods.iter().map(pod).collect(),
            present: present.iter().map(ToString::to_string).collect(),
        }
    }

    fn uids(bundles: &Bundles) -> Vec<String> {
        bundles.pods().unwrap().into_iter().filter_map(|pod| pod.metadata.uid).collect()
    }

    #[test]
    fn what_was_stored_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut bundles = Bundles::load(dir.path()).unwrap();
        assert_eq!(bundles.revision(), 0);
        bundles.store(&bundle(7, &["a", "b"], &["a", "b"])).unwrap();
        bundles.store(&bundle(9, &[], &["b"])).unwrap();
        let again = Bundles::load(dir.path()).unwrap();
        assert_eq!(again.revision(), 9);
        assert_eq!(uids(&again), ["a", "b"], "a pod to be ended keeps its file");
        assert!(again.wants("b") && !again.wants("a"));
    }

    #[test]
    fn damage_is_noticed_and_costs_one_fetch_and_no_pod() {
        let dir = tempfile::tempdir().unwrap();
        Bundles::load(dir.path()).unwrap().store(&bundle(7, &["a", "b"], &["a", "b"])).unwrap();
        let path = pod_dir(dir.path(), "a").join("pod");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let torn = Bundles::load(dir.path()).unwrap();
        assert_eq!((torn.revision(), uids(&torn)), (0, vec!["b".to_owned()]));
        assert!(torn.wants("a"), "its containers are not given up");
        fs::write(&path, whole).unwrap();

        fs::write(dir.path().join("bundle"), "toono1 00000000 3\n{}").unwrap();
        let torn = Bundles::load(dir.path()).unwrap();
        assert_eq!(torn.revision(), 0);
        assert!(torn.wants("a") && torn.wants("b"), "without an index nothing is unwanted");
    }

    #[test]
    fn a_uid_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut bundles = Bundles::load(dir.path()).unwrap();
        let stored = bundles.store(&bundle(1, &["../x"], &["../x", "a"])).unwrap();
        assert!(stored.is_empty() && !bundles.wants("../x"));
        assert!(!dir.path().join("x").exists());
    }
}
