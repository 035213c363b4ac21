//! The desired state on disk: one file per pod, one per thing that pods reference, and one that says which of them
//! and which revision.
//!
//! It decides nothing. A pod's files stay until the pod is gone, because ending a pod needs
//! them too, perhaps after a power cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use toono_session::{BundleDigest, PodDigest, ReferentDigest};
use toono_wire::{bundle::Bundle, referent::ReferentName};

use crate::{
    AgentError,
    disk::{self, Durability},
    join::chain,
    referents::{self, Referents},
};

#[cfg(test)]
mod tests;

/// The store of one data directory.
#[derive(Debug)]
pub(crate) struct Bundles {
    data: PathBuf,
    index: Index,
    referents: Referents,
}

/// What a bundle brought.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Pods that are new, or other than before.
    pub(crate) pods: Vec<Pod>,
    /// Whether anything that pods reference came, changed or went.
    pub(crate) referents: bool,
    /// What the disk had no room for. It is still to come, and nothing else waits for it.
    pub(crate) refused: Vec<Refused>,
}

/// What of a bundle is not on disk.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The pod's namespace, name and uid; none of what pods reference.
    pub(crate) pod: Option<(String, String, String)>,
    /// The disk's words.
    pub(crate) reason: String,
}

/// What the node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    revision: u64,
    /// As it came with the bundle.
    digest: u32,
    /// The uids of the pods that the cloud wants here, and each one's digest; 0 when that is not known.
    present: BTreeMap<String, u64>,
    /// What there is of what the pods reference, and each one's digest; 0 when that is not known.
    #[serde(default)]
    referenced: BTreeMap<ReferentName, u64>,
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
        let referents = Referents::open(data)?;
        let mut loaded = Self { data: data.to_owned(), index: Index::default(), referents };
        let stored = disk::read_checked(&loaded.index_path())?;
        match stored.and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok()) {
            Some(index) => loaded.index = index,
            None => {
                let there = loaded.on_disk()?;
                loaded.index.present = there.into_iter().map(|uid| (uid, 0)).collect();
                loaded.index.referenced = loaded.referents.on_disk()?;
            }
        }
        for (name, digest) in &loaded.index.referenced {
            if !loaded.referents.is_whole(*digest)? {
                tracing::warn!(%name, "its file is missing or damaged; the whole bundle is due");
                loaded.index.revision = 0;
            }
        }
        loaded.referents.set(loaded.index.referenced.clone());
        for uid in loaded.index.present.keys().cloned().collect::<Vec<_>>() {
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

    /// The digest that came with the bundle of that revision.
    pub(crate) fn digest(&self) -> u32 {
        self.index.digest
    }

    /// Makes the next fetch a whole one.
    pub(crate) fn distrust(&mut self) {
        self.index.revision = 0;
    }

    /// Whether the cloud wants this pod here.
    pub(crate) fn wants(&self, uid: &str) -> bool {
        self.index.present.contains_key(uid)
    }

    /// Whether this bundle, on top of what is here, makes what the cloud means the node to have. If not, what
    /// is here is of another store, or the cloud knows less than it did.
    pub(crate) fn fits(&self, bundle: &Bundle) -> bool {
        let (pods, referenced) = (self.with(bundle), self.referenced_with(bundle));
        let pods: BundleDigest = pods.values().map(|digest| PodDigest(*digest)).collect();
        let referents = referenced.values().map(|digest| ReferentDigest(*digest));
        referents.fold(pods, BundleDigest::with).0 == bundle.digest
    }

    /// What is present after a bundle.
    fn with(&self, bundle: &Bundle) -> BTreeMap<String, u64> {
        let sent: BTreeMap<String, u64> = bundle.pods.iter().filter_map(|pod| told(pod)).collect();
        let digest = |uid: &String| sent.get(uid).or_else(|| self.index.present.get(uid)).copied();
        let present = bundle.present.iter().filter(|uid| is_plain(uid));
        present.map(|uid| (uid.clone(), digest(uid).unwrap_or(0))).collect()
    }

    /// What is referenced after a bundle.
    fn referenced_with(&self, bundle: &Bundle) -> BTreeMap<ReferentName, u64> {
        let read = bundle.referents.iter().filter_map(|text| referents::told(text.get()));
        let sent: BTreeMap<ReferentName, u64> = read.map(|(name, it)| (name, it.0)).collect();
        let known = |name: &ReferentName| sent.get(name).or(self.index.referenced.get(name));
        let all = bundle.referenced.iter();
        all.map(|name| (name.clone(), known(name).copied().unwrap_or(0))).collect()
    }

    /// What pods of this node reference.
    pub(crate) fn referents(&self) -> &Referents {
        &self.referents
    }

    /// Stores a bundle. The pods, and what they reference, are on disk before the revision that says so; what is not
    /// referenced any more goes after that. What a full disk refuses stays as it was, and with it the revision: a pod
    /// that is deleted makes room only when that is heard of.
    pub(crate) fn store(&mut self, bundle: &Bundle) -> Result<News, AgentError> {
        let mut news = News { pods: Vec::with_capacity(bundle.pods.len()), ..News::default() };
        let (mut present, mut referenced) = (self.with(bundle), self.referenced_with(bundle));
        for raw in &bundle.pods {
            let pod: Pod = match serde_json::from_str(raw.get()) {
                Ok(pod) => pod,
                Err(error) => {
                    tracing::warn!(%error, "the bundle has a pod that cannot be read");
                    continue;
                }
            };
            let Some(uid) = pod.metadata.uid.clone().filter(|uid| is_plain(uid)) else { continue };
            match self.write_pod(&uid, raw) {
                Ok(()) => news.pods.push(pod),
                Err(error) if disk::is_full(&error) => {
                    put_back(&mut present, &self.index.present, &uid);
                    let meta = pod.metadata;
                    let (namespace, name) = (meta.namespace, meta.name);
                    let title = (namespace.unwrap_or_default(), name.unwrap_or_default(), uid);
                    news.refused.push(Refused { pod: Some(title), reason: chain(&error) });
                }
                Err(error) => return Err(error),
            }
        }
        for text in &bundle.referents {
            match (self.referents.write(text.get()), referents::told(text.get())) {
                (Ok(()), _) => {}
                (Err(error), Some((name, _))) if disk::is_full(&error) => {
                    put_back(&mut referenced, &self.index.referenced, &name);
                    news.refused.push(Refused { pod: None, reason: chain(&error) });
                }
                (Err(error), _) => return Err(error),
            }
        }
        let (revision, digest) = match news.refused.is_empty() {
            true => (bundle.revision, bundle.digest),
            false => (self.index.revision, self.index.digest),
        };
        self.take(Index { revision, digest, present, referenced }, &mut news)?;
        Ok(news)
    }

    fn write_pod(&self, uid: &str, raw: &RawValue) -> Result<(), AgentError> {
        disk::make_dir(&self.pod_dir(uid))?;
        disk::rewrite_checked(&self.pod_path(uid), raw.get().as_bytes(), Durability::Synced)
    }

    /// From now on this is what the node holds.
    fn take(&mut self, index: Index, news: &mut News) -> Result<(), AgentError> {
        news.referents = index.referenced != self.index.referenced;
        if index != self.index {
            self.save(&index)?;
            self.index = index;
        }
        if news.referents {
            self.referents.set(self.index.referenced.clone());
            self.referents.remove_others()?;
        }
        Ok(())
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

    /// Every pod with a readable file, as the API has it.
    pub(crate) fn objects(&self) -> Result<Vec<Value>, AgentError> {
        let mut objects = Vec::new();
        for uid in self.on_disk()? {
            let stored = disk::read_checked(&self.pod_path(&uid))?;
            objects.extend(stored.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()));
        }
        Ok(objects)
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
        disk::rewrite_checked(&self.index_path(), &bytes, Durability::Synced)
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

/// Has what could not be written be as it was before.
fn put_back<K: Ord + Clone>(now: &mut BTreeMap<K, u64>, before: &BTreeMap<K, u64>, key: &K) {
    match before.get(key) {
        Some(digest) => now.insert(key.clone(), *digest),
        None => now.remove(key),
    };
}

/// A pod's uid and its digest.
fn told(pod: &RawValue) -> Option<(String, u64)> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        uid: String,
    }
    let named: Named = serde_json::from_str(pod.get()).ok()?;
    Some((named.metadata.uid, PodDigest::of_json(pod.get()).ok()?.0))
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
    disk::rewrite_checked(&dir.join("status"), status.as_bytes(), Durability::Lazy)
}

/// The status that [`write_status`] kept.
pub(crate) fn read_status(dir: &Path) -> Option<PodStatus> {
    let bytes = disk::read_checked(&dir.join("status")).ok()??;
    serde_json::from_slice(&bytes).ok()
}
