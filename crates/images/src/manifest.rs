//! The documents that describe an image: index, manifest, configuration. OCI's and Docker's.
//!
//! Only the fields that running an image needs are read; unknown ones are ignored, as the
//! specification asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    platform::{Host, Platform},
};

/// What a registry may answer a manifest's address with.
pub(crate) const ACCEPTED_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// An index or a manifest, told apart by what is in it: Docker's and OCI's differ in media types
/// alone, and an OCI manifest may leave its own out.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Document {
    Index { manifests: Vec<IndexEntry> },
    Manifest(Manifest),
}

#[derive(Debug, Deserialize)]
pub(crate) struct IndexEntry {
    pub(crate) digest: Digest,
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) schema_version: u8,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// An image's configuration document.
#[derive(Debug, Deserialize)]
pub(crate) struct ConfigDocument {
    #[serde(flatten)]
    pub(crate) platform: Platform,
    #[serde(default)]
    pub(crate) config: Option<ImageConfig>,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<Digest>,
}

/// How an image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageConfig {
    /// The start of the command line; a pod's `command` replaces it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// The rest of the command line; a pod's `args` replace it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// `NAME=value` each.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// Where to start; `/` when empty.
    #[serde(default)]
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; root when empty.
    #[serde(default)]
    pub user: String,
    /// The signal that asks it to stop, such as `SIGTERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(d)?.unwrap_or_default())
}

/// Reads a document of any kind that a registry sends: an index, a manifest or a configuration. It tells
/// only whether it can be read.
///
/// # Errors
/// When it is none of them.
pub fn parse(bytes: &[u8]) -> Result<(), serde_json::Error> {
    if serde_json::from_slice::<Document>(bytes).is_ok() {
        return Ok(());
    }
    serde_json::from_slice::<ConfigDocument>(bytes).map(drop)
}

impl Document {
    /// The entry of an index that runs best here; an index that says nothing of platforms has one for all.
    pub(crate) fn choose<'a>(entries: &'a [IndexEntry], host: &Host) -> Option<&'a IndexEntry> {
        if let [only] = entries
            && only.platform.is_none()
        {
            return Some(only);
        }
        let ranked =
            entries.iter().filter_map(|entry| Some((host.rank(entry.platform.as_ref()?)?, entry)));
        // Of equals the first, as the specification asks for.
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
    }

    /// The platforms of an index, for a person.
    pub(crate) fn platforms(entries: &[IndexEntry]) -> Vec<String> {
        let known = entries.iter().filter_map(|entry| entry.platform.as_ref());
        // What is `unknown` are attestations, not images.
        known.filter(|it| it.os != "unknown").map(ToString::to_string).collect()
    }
}

impl Manifest {
    /// What its parts are together; a registry may say anything.
    pub(crate) fn size(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.size);
        layers.fold(self.config.size, u64::saturating_add)
    }
}

impl RootFs {
    /// The layers, bottom first, each once: overlayfs refuses a directory twice. What a layer brings or
    /// hides at a lower place, it brings or hides at its highest place as well.
    pub(crate) fn distinct(&self) -> Vec<Digest> {
        let mut distinct: Vec<Digest> = Vec::new();
        for layer in self.diff_ids.iter().rev() {
            if !distinct.contains(layer) {
                distinct.push(layer.clone());
            }
        }
        distinct.reverse();
        distinct
    }
}
