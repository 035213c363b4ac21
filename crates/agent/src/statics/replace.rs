//! Another text for a file that a pod runs from, from the cloud.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{Statics, Title, manifest, title};
use crate::{
    disk::{self, Durability},
    join::chain,
};

impl Statics {
    /// Makes the file that says the pod which `mirror` shows say this instead; whether it said something else. The
    /// text must be of the same pod, for a file that says no pod, or another one, would end what runs.
    pub(crate) fn replace(&self, mirror: &Pod, text: &str) -> Result<bool, String> {
        let wanted = title(mirror);
        let (path, uid) = self.file_of(&wanted)?;
        let parsed = manifest::parse(text, &path, &self.inner.node, Timestamp::UNIX_EPOCH);
        let (new, pod) = parsed.map_err(|reason| format!("the manifest is not taken: {reason}"))?;
        if title(&pod) != wanted {
            let (namespace, name) = title(&pod);
            return Err(format!("the manifest is not taken: it is of pod {namespace}/{name}"));
        }
        if new == uid {
            return Ok(false);
        }
        write(&path, text.as_bytes())?;
        Ok(true)
    }

    /// The file that says a pod, and the uid that it gives.
    fn file_of(&self, wanted: &Title) -> Result<(PathBuf, String), String> {
        let dir = self.inner.dir.as_ref().ok_or("this node runs no pods from files")?;
        let seen = manifest::look(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let found = seen.into_keys().find_map(|path| {
            let (uid, pod) = manifest::read(&path, &self.inner.node).ok()?;
            (title(&pod) == *wanted).then_some((path, uid))
        });
        let (namespace, name) = wanted;
        let none = || format!("no file in {} says pod {namespace}/{name}", dir.display());
        found.ok_or_else(none)
    }
}

/// Whole or not at all, by way of a name that is no manifest's.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = path.with_file_name(format!(".{name}.upgrade"));
    disk::replace(&hidden, bytes, Durability::Synced).map_err(|error| chain(&error))?;
    let rename = || -> io::Result<()> {
        fs::rename(&hidden, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    rename().map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;

    fn manifest(name: &str, image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
             spec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        )
    }

    #[test]
    fn a_file_is_replaced_by_a_text_of_the_same_pod_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (manifests, data) = (dir.path().join("m"), dir.path().join("d"));
        fs::create_dir(&manifests).unwrap();
        let file = manifests.join("any-name.yaml");
        fs::write(&file, manifest("web", "a:1")).unwrap();
        let new = |dir| Statics::new(Some(dir), data.clone(), "n1".to_owned(), Outbox::default());
        let statics = new(manifests.clone());
        let mirror: Pod = serde_json::from_value(
            serde_json::json!({"metadata": {"namespace": "default", "name": "web-n1"}}),
        )
        .unwrap();
        for bad in [manifest("other", "a:2"), manifest("web", ""), "kind: [".to_owned()] {
            assert!(statics.replace(&mirror, &bad).unwrap_err().contains("not taken"), "{bad}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), manifest("web", "a:1"));
        assert_eq!(statics.replace(&mirror, &manifest("web", "a:2")), Ok(true));
        assert_eq!(statics.replace(&mirror, &manifest("web", "a:2")), Ok(false), "once");
        assert_eq!(fs::read_to_string(&file).unwrap(), manifest("web", "a:2"));
        assert_eq!(fs::read_dir(&manifests).unwrap().count(), 1);
        fs::remove_file(&file).unwrap();
        assert!(statics.replace(&mirror, &manifest("web", "a:3")).is_err(), "it is gone here");
    }
}
