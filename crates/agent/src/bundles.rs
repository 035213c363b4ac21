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
    referents::{self, Referents},
};

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
    /// referenced any more goes after that.
    pub(crate) fn store(&mut self, bundle: &Bundle) -> Result<News, AgentError> {
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
        for text in &bundle.referents {
            self.referents.write(text.get())?;
        }
        let (present, referenced) = (self.with(bundle), self.referenced_with(bundle));
        let index = Index { revision: bundle.revision, digest: bundle.digest, present, referenced };
        let referents = index.referenced != self.index.referenced;
        if index != self.index {
            self.save(&index)?;
            self.index = index;
        }
        if referents {
            self.referents.set(self.index.referenced.clone());
            self.referents.remove_others()?;
        }
        Ok(News { pods: changed, referents })
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

    fn bundle(revision: u64, pods: &[&str], present: &[&str]) -> Bundle {
        let pod = |uid: &&str| {
            let text =
                format!(r#"{{"metadata":{{"name":"p-{uid}","namespace":"d","uid":"{uid}"}}}}"#);
            RawValue::from_string(text).unwrap()
        };
        let digests = present.iter().map(|uid| PodDigest::of_json(pod(uid).get()).unwrap());
        let digest: BundleDigest = digests.collect();
        Bundle {
            revision,
            pods: pods.iter().map(pod).collect(),
            present: present.iter().map(ToString::to_string).collect(),
            referents: Vec::new(),
            referenced: Vec::new(),
            digest: digest.0,
            pool: None,
        }
    }

    fn config_map(name: &str, value: &str) -> (ReferentName, Box<RawValue>) {
        let text = format!(
            r#"{{"kind":"ConfigMap","namespace":"d","name":"{name}","data":{{"k":"{value}"}}}}"#
        );
        (referents::told(&text).unwrap().0, RawValue::from_string(text).unwrap())
    }

    /// The bundle with ConfigMaps: some sent, some only named, each with its value.
    fn with_maps(mut bundle: Bundle, sent: &[(&str, &str)], named: &[(&str, &str)]) -> Bundle {
        let mut sum = BundleDigest(bundle.digest);
        for (maps, are_sent) in [(sent, true), (named, false)] {
            for (name, value) in maps {
                let (name, text) = config_map(name, value);
                sum = sum.with(referents::told(text.get()).unwrap().1);
                bundle.referenced.push(name);
                bundle.referents.extend(are_sent.then_some(text));
            }
        }
        Bundle { digest: sum.0, ..bundle }
    }

    /// What a ConfigMap of the node says.
    fn value(bundles: &Bundles, name: &str) -> Option<String> {
        let found = bundles.referents().find(&config_map(name, "").0).unwrap()?;
        Some(String::from_utf8(found.data["k"].clone()).unwrap())
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
        assert_eq!((again.revision(), again.digest()), (9, bundle(9, &[], &["b"]).digest));
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
    fn what_does_not_make_the_whole_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut bundles = Bundles::load(dir.path()).unwrap();
        bundles.store(&bundle(7, &["a", "b"], &["a", "b"])).unwrap();
        let mut bundles = Bundles::load(dir.path()).unwrap();
        assert!(bundles.fits(&bundle(8, &[], &["a", "b"])), "nothing new");
        assert!(bundles.fits(&bundle(8, &["c"], &["b", "c"])), "one more, one less");
        assert!(!bundles.fits(&bundle(8, &["c"], &["a", "c", "d"])), "one is not here");
        let mut changed = bundle(8, &[], &["a", "b"]);
        changed.digest = changed.digest.wrapping_add(1);
        assert!(!bundles.fits(&changed), "one is not as it was here");
        let index = fs::read(dir.path().join("bundle")).unwrap();
        bundles.store(&changed).unwrap();
        assert_eq!(bundles.digest(), changed.digest, "the cloud's word");
        // Without the digests of pods, as after damage, nothing fits but the whole.
        fs::remove_file(dir.path().join("bundle")).unwrap();
        let damaged = Bundles::load(dir.path()).unwrap();
        assert!(!damaged.fits(&bundle(8, &[], &["a", "b"])));
        assert!(damaged.fits(&bundle(8, &["a", "b"], &["a", "b"])));
        fs::write(dir.path().join("bundle"), index).unwrap();
        assert!(Bundles::load(dir.path()).unwrap().fits(&bundle(8, &[], &["a", "b"])));
    }

    #[test]
    fn what_pods_reference_comes_changes_and_goes_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let files = || fs::read_dir(dir.path().join("referents")).unwrap().count();
        let mut bundles = Bundles::load(dir.path()).unwrap();
        let first = with_maps(bundle(7, &["a"], &["a"]), &[("m", "1"), ("n", "1")], &[]);
        assert!(bundles.fits(&first) && bundles.store(&first).unwrap().referents);
        let mut bundles = Bundles::load(dir.path()).unwrap();
        assert_eq!((value(&bundles, "m").as_deref(), bundles.revision()), (Some("1"), 7));
        let second = with_maps(bundle(8, &[], &["a"]), &[("m", "2")], &[("n", "1")]);
        assert!(bundles.fits(&second) && bundles.store(&second).unwrap().referents);
        assert_eq!((value(&bundles, "m").as_deref(), files()), (Some("2"), 2));
        assert!(!bundles.fits(&with_maps(bundle(9, &[], &["a"]), &[], &[("m", "3")])));
        assert!(!bundles.fits(&with_maps(bundle(9, &[], &["a"]), &[], &[("o", "1")])));
        let third = with_maps(bundle(9, &["b"], &["a", "b"]), &[], &[("n", "1")]);
        assert!(bundles.fits(&third) && bundles.store(&third).unwrap().referents);
        assert_eq!((value(&bundles, "m"), files()), (None, 1));
        let fourth = with_maps(bundle(10, &[], &["b"]), &[], &[("n", "1")]);
        assert!(!bundles.store(&fourth).unwrap().referents);
    }

    #[test]
    fn a_power_cut_between_any_two_writes_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut bundles = Bundles::load(dir.path()).unwrap();
        bundles.store(&with_maps(bundle(7, &["a"], &["a"]), &[("m", "1")], &[])).unwrap();
        let index = fs::read(dir.path().join("bundle")).unwrap();
        bundles.referents().write(config_map("m", "2").1.get()).unwrap();
        let cut = Bundles::load(dir.path()).unwrap();
        assert_eq!((value(&cut, "m").as_deref(), cut.revision()), (Some("1"), 7));
        // The index went with the disk's cache, and no server is there to ask.
        fs::write(dir.path().join("bundle"), &index[..20]).unwrap();
        let cut = Bundles::load(dir.path()).unwrap();
        assert_eq!((value(&cut, "m").as_deref(), cut.revision()), (Some("2"), 0));
        fs::write(dir.path().join("bundle"), &index).unwrap();
        for entry in fs::read_dir(dir.path().join("referents")).unwrap() {
            fs::write(entry.unwrap().path(), "toono1 00000000 3\n{}").unwrap();
        }
        let torn = Bundles::load(dir.path()).unwrap();
        assert_eq!(torn.revision(), 0);
        assert!(torn.referents().find(&config_map("m", "").0).is_err());
        assert!(torn.wants("a"));
    }

    #[test]
    fn a_uid_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut bundles = Bundles::load(dir.path()).unwrap();
        let stored = bundles.store(&bundle(1, &["../x"], &["../x", "a"])).unwrap();
        assert!(stored.pods.is_empty() && !bundles.wants("../x"));
        assert!(!dir.path().join("x").exists());
    }
}
