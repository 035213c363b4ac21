//! ConfigMaps and Secrets on disk: a checked file each, called by its digest, so that none is ever overwritten.
//!
//! What is said of them is not secret, what they say may be: the directory is for root alone. They are read when a
//! container or volume needs them and not kept in memory. Which of them count is for `bundles` to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use k8s_openapi::ByteString;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use toono_session::ReferentDigest;
use toono_wire::referent::{Referent, ReferentName};

use crate::{
    AgentError,
    disk::{self, Durability},
};

/// What there is. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Referents {
    dir: PathBuf,
    digests: Arc<Mutex<BTreeMap<ReferentName, u64>>>,
}

/// What one says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// `data`, of a Secret decoded.
    pub(crate) data: BTreeMap<String, Vec<u8>>,
    /// `binaryData`, decoded.
    pub(crate) binary: BTreeMap<String, Vec<u8>>,
    /// `type` of a Secret.
    pub(crate) kind: String,
}

impl Content {
    /// The value of a key, of either map.
    pub(crate) fn value(&self, key: &str) -> Option<&Vec<u8>> {
        self.data.get(key).or_else(|| self.binary.get(key))
    }
}

impl Referents {
    pub(crate) fn open(data: &Path) -> Result<Self, AgentError> {
        let dir = data.join("referents");
        disk::make_dir(&dir)?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&dir, private).map_err(disk::failed("protect", &dir))?;
        Ok(Self { dir, digests: Arc::default() })
    }

    /// From now on there are these.
    pub(crate) fn set(&self, digests: BTreeMap<ReferentName, u64>) {
        *self.digests() = digests;
    }

    /// What one says; none when it does not exist, as far as this node knows.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    pub(crate) fn find(&self, name: &ReferentName) -> Result<Option<Content>, String> {
        let Some(digest) = self.digests().get(name).copied() else { return Ok(None) };
        let damaged = || format!("the node's copy of {name} is damaged");
        let text = self.read(digest).map_err(|error| error.to_string())?.ok_or_else(damaged)?;
        content(&text).map(Some).map_err(|_| damaged())
    }

    /// All that there are.
    pub(crate) fn names(&self) -> Vec<ReferentName> {
        self.digests().keys().cloned().collect()
    }

    /// Keeps one, beside what there is.
    pub(crate) fn write(&self, text: &str) -> Result<(), AgentError> {
        let Some((name, digest)) = told(text) else {
            tracing::warn!("the bundle has a ConfigMap or Secret that cannot be read");
            return Ok(());
        };
        tracing::debug!(%name, "kept");
        disk::write_checked(&self.path(digest.0), text.as_bytes(), Durability::Synced)
    }

    pub(crate) fn is_whole(&self, digest: u64) -> Result<bool, AgentError> {
        Ok(self.read(digest)?.is_some_and(|text| told(&text).is_some_and(|it| it.1.0 == digest)))
    }

    /// All that is whole, whether it counts or not; of two with one name, the younger.
    pub(crate) fn on_disk(&self) -> Result<BTreeMap<ReferentName, u64>, AgentError> {
        let mut found: Vec<(SystemTime, ReferentName, u64)> = Vec::new();
        for digest in self.files()? {
            let Some(text) = self.read(digest)? else { continue };
            let written = fs::metadata(self.path(digest)).and_then(|it| it.modified());
            let written = written.unwrap_or(SystemTime::UNIX_EPOCH);
            found.extend(told(&text).map(|(name, _)| (written, name, digest)));
        }
        found.sort();
        Ok(found.into_iter().map(|(_, name, digest)| (name, digest)).collect())
    }

    /// Removes what does not count any more.
    pub(crate) fn remove_others(&self) -> Result<(), AgentError> {
        let kept: BTreeSet<u64> = self.digests().values().copied().collect();
        for digest in self.files()?.difference(&kept) {
            let path = self.path(*digest);
            fs::remove_file(&path).map_err(disk::failed("delete", &path))?;
        }
        Ok(())
    }

    fn files(&self) -> Result<BTreeSet<u64>, AgentError> {
        let list = || -> io::Result<BTreeSet<u64>> {
            let mut digests = BTreeSet::new();
            for entry in fs::read_dir(&self.dir)? {
                let name = entry?.file_name();
                digests.extend(name.to_str().and_then(|it| u64::from_str_radix(it, 16).ok()));
            }
            Ok(digests)
        };
        list().map_err(disk::failed("read", &self.dir))
    }

    fn read(&self, digest: u64) -> Result<Option<String>, AgentError> {
        let bytes = disk::read_checked(&self.path(digest))?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    fn path(&self, digest: u64) -> PathBuf {
        self.dir.join(format!("{digest:016x}"))
    }

    fn digests(&self) -> MutexGuard<'_, BTreeMap<ReferentName, u64>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which one a text is, and its digest.
pub(crate) fn told(text: &str) -> Option<(ReferentName, ReferentDigest)> {
    let referent: Referent<'_> = serde_json::from_str(text).ok()?;
    Some((referent.named()?, ReferentDigest::of(&referent).ok()?))
}

fn content(text: &str) -> Result<Content, serde_json::Error> {
    use toono_wire::referent::ReferentKind;
    let referent: Referent<'_> = serde_json::from_str(text)?;
    let bytes = |map: BTreeMap<String, ByteString>| map.into_iter().map(|(key, it)| (key, it.0));
    let data = match referent.kind {
        ReferentKind::ConfigMap | ReferentKind::ServiceAccount => {
            let texts: BTreeMap<String, String> = map_of(referent.data)?;
            texts.into_iter().map(|(key, text)| (key, text.into_bytes())).collect()
        }
        ReferentKind::Secret => bytes(map_of(referent.data)?).collect(),
    };
    let binary = bytes(map_of(referent.binary_data)?).collect();
    Ok(Content { data, binary, kind: referent.r#type.unwrap_or_default().into_owned() })
}

fn map_of<V: DeserializeOwned>(
    text: Option<&RawValue>,
) -> Result<BTreeMap<String, V>, serde_json::Error> {
    text.map_or_else(|| Ok(BTreeMap::new()), |text| serde_json::from_str(text.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_decoded_and_nobody_else_may_look() {
        let data = tempfile::tempdir().unwrap();
        let referents = Referents::open(data.path()).unwrap();
        let text =
            r#"{"kind":"Secret","namespace":"d","name":"s","data":{"k":"AP8="},"type":"Opaque"}"#;
        let (name, digest) = told(text).unwrap();
        referents.write(text).unwrap();
        assert_eq!(referents.find(&name), Ok(None), "not before it counts");
        referents.set([(name.clone(), digest.0)].into());
        let found = referents.find(&name).unwrap().unwrap();
        assert_eq!((found.value("k"), found.kind.as_str()), (Some(&vec![0, 255]), "Opaque"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.path().join("referents")), 0o700);
        assert_eq!(mode(&referents.path(digest.0)), 0o600);
    }
}
