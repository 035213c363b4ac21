//! Images from an archive: OCI image layouts, and what `docker save` writes.
//!
//! The layout is that of the OCI image specification ("image-layout.md") in a tar; Docker's has a
//! `manifest.json`. Both are checked as a pull is.

use std::{io, path::Path};

use serde::Deserialize;

use crate::{
    archive::ArchiveFiles,
    digest::Digest,
    error::{ImportError, PullError},
    layer::{Temporary, install},
    manifest::{ConfigDocument, Descriptor, Document, IndexEntry, Manifest},
    platform::Host,
    pull::{check, check_platform, explain, invalid, no_such_platform, parse},
    reference::ImageRef,
    registry::MAX_DOCUMENT_BYTES,
    store::{Image, ImageStore, Record},
};

/// Where the names of an OCI layout's images are, the better first.
const NAME_ANNOTATIONS: [&str; 2] =
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
const OCI_INDEX: &str = "index.json";
const DOCKER_MANIFEST: &str = "manifest.json";
/// Indexes within indexes that are opened.
const MAX_NESTING: usize = 4;

/// An entry of Docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// One image of an archive, before its layers are looked at.
struct Found {
    names: Vec<ImageRef>,
    digest: Digest,
    size: u64,
    config: ConfigDocument,
    /// Files of the archive, bottom first.
    layers: Vec<String>,
}

impl ImageStore {
    /// Adds the images of an archive; one that has no name in it gets `name`. Blocks meanwhile.
    ///
    /// # Errors
    /// [`ImportError`]; images before the one that failed stay.
    pub fn import(
        &self,
        archive: &Path,
        name: Option<&ImageRef>,
    ) -> Result<Vec<Image>, ImportError> {
        let _adding = self.try_lock_shared()?.ok_or(ImportError::Busy)?;
        let copy = Temporary(self.temporary("archive"));
        let unreadable = |source| ImportError::Archive { path: archive.to_owned(), source };
        let files = ArchiveFiles::open(archive, &copy.0).map_err(unreadable)?;
        let found = if files.size(DOCKER_MANIFEST).is_some() {
            docker_images(&files, archive, name)?
        } else if files.size(OCI_INDEX).is_some() {
            oci_images(&files, archive, name)?
        } else {
            return Err(ImportError::Unknown { path: archive.to_owned() });
        };
        let mut images = Vec::new();
        for image in found {
            images.extend(self.add(&files, archive, &image)?);
        }
        Ok(images)
    }

    /// Installs an image's layers, and records it by each of its names.
    fn add(
        &self,
        files: &ArchiveFiles,
        archive: &Path,
        found: &Found,
    ) -> Result<Vec<Image>, ImportError> {
        let Some(first) = found.names.first() else {
            return Err(ImportError::Nameless { path: archive.to_owned() });
        };
        for (layer, diff_id) in found.layers.iter().zip(&found.config.rootfs.diff_ids) {
            let destination = self.layer_path(diff_id);
            if destination.is_dir() {
                continue;
            }
            let reader = files
                .reader(layer)
                .map_err(|source| ImportError::Archive { path: archive.to_owned(), source })?;
            install(reader, diff_id, self.temporary("layer"), &destination)
                .map_err(|error| explain(error, first, diff_id, self.dir()))?;
        }
        let record = |name: &ImageRef| Record {
            reference: name.to_string(),
            digest: found.digest.clone(),
            size: found.size,
            layers: found.config.rootfs.distinct(),
            config: found.config.config.clone().unwrap_or_default(),
        };
        let save = |name: &ImageRef| {
            let saved = self.save(name, &record(name));
            Ok(saved.map_err(|error| PullError::disk(name, self.dir(), error))?)
        };
        found.names.iter().map(save).collect()
    }
}

fn docker_images(
    files: &ArchiveFiles,
    archive: &Path,
    name: Option<&ImageRef>,
) -> Result<Vec<Found>, ImportError> {
    let bytes = document(files, archive, DOCKER_MANIFEST)?;
    let images: Vec<DockerImage> = serde_json::from_slice(&bytes)
        .map_err(|error| ImportError::Archive { path: archive.to_owned(), source: error.into() })?;
    let read = |image: DockerImage| {
        let tags = image.repo_tags.unwrap_or_default();
        let names = names(tags.iter().map(String::as_str), name);
        let label = label(&names, archive)?;
        let bytes = document(files, archive, &image.config)?;
        let config: ConfigDocument = parse(&label, "configuration", &bytes)?;
        check_config(&label, &config, image.layers.len())?;
        // The archive has no manifest, so it gets the one that describes it.
        let diff_ids = config.rootfs.diff_ids.iter();
        let layers = image.layers.iter().zip(diff_ids).map(|(layer, diff_id)| Descriptor {
            media_type: "application/vnd.docker.image.rootfs.diff.tar".to_owned(),
            digest: diff_id.clone(),
            size: files.size(layer).unwrap_or(0),
        });
        let manifest = Manifest {
            schema_version: 2,
            config: Descriptor {
                media_type: "application/vnd.docker.container.image.v1+json".to_owned(),
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
            },
            layers: layers.collect(),
        };
        let described = serde_json::to_vec(&manifest).unwrap_or_default();
        Ok(Found {
            names,
            digest: Digest::of(&described),
            size: manifest.size(),
            config,
            layers: image.layers,
        })
    };
    images.into_iter().map(read).collect()
}

fn oci_images(
    files: &ArchiveFiles,
    archive: &Path,
    name: Option<&ImageRef>,
) -> Result<Vec<Found>, ImportError> {
    let bytes = document(files, archive, OCI_INDEX)?;
    let index: Document = serde_json::from_slice(&bytes)
        .map_err(|error| ImportError::Archive { path: archive.to_owned(), source: error.into() })?;
    let Document::Index { manifests } = index else {
        return Err(ImportError::Unknown { path: archive.to_owned() });
    };
    let read = |entry: &IndexEntry| {
        let given = NAME_ANNOTATIONS.iter().filter_map(|key| entry.annotations.get(*key));
        // A reference of an OCI layout may be a tag alone, which names nothing.
        let given = given.map(String::as_str).filter(|name| name.contains(['/', ':'])).take(1);
        let names = names(given, name);
        let label = label(&names, archive)?;
        let manifest = open_manifest(files, archive, &label, &entry.digest)?;
        let bytes = blob(files, archive, &label, &manifest.config.digest)?;
        let config: ConfigDocument = parse(&label, "configuration", &bytes)?;
        check_config(&label, &config, manifest.layers.len())?;
        Ok(Found {
            names,
            digest: entry.digest.clone(),
            size: manifest.size(),
            config,
            layers: manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        })
    };
    manifests.iter().map(read).collect()
}

/// The manifest for this machine, through indexes.
fn open_manifest(
    files: &ArchiveFiles,
    archive: &Path,
    label: &ImageRef,
    digest: &Digest,
) -> Result<Manifest, ImportError> {
    let mut digest = digest.clone();
    for _ in 0..MAX_NESTING {
        let bytes = blob(files, archive, label, &digest)?;
        let entries = match parse(label, "manifest", &bytes)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index { manifests } => manifests,
        };
        let host = Host::this();
        let chosen = Document::choose(&entries, &host)
            .ok_or_else(|| no_such_platform(label, &host, Document::platforms(&entries)))?;
        digest = chosen.digest.clone();
    }
    Err(invalid(label, "manifest", "too many indexes within indexes".to_owned()).into())
}

fn check_config(
    label: &ImageRef,
    config: &ConfigDocument,
    layers: usize,
) -> Result<(), ImportError> {
    check_platform(label, config)?;
    let listed = config.rootfs.diff_ids.len();
    if listed == layers {
        return Ok(());
    }
    let reason = format!("it lists {listed} layers of {layers}");
    Err(invalid(label, "configuration", reason).into())
}

fn document(files: &ArchiveFiles, archive: &Path, name: &str) -> Result<Vec<u8>, ImportError> {
    let unreadable = |source: io::Error| ImportError::Archive { path: archive.to_owned(), source };
    files.read(name, MAX_DOCUMENT_BYTES).map_err(unreadable)
}

fn blob(
    files: &ArchiveFiles,
    archive: &Path,
    label: &ImageRef,
    digest: &Digest,
) -> Result<Vec<u8>, ImportError> {
    let bytes = document(files, archive, &blob_name(digest))?;
    check(label, digest, &Digest::of(&bytes))?;
    Ok(bytes)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The names that the archive has, or else the one that was given.
fn names<'a>(in_archive: impl Iterator<Item = &'a str>, given: Option<&ImageRef>) -> Vec<ImageRef> {
    let names: Vec<ImageRef> = in_archive.filter_map(|name| name.parse().ok()).collect();
    if names.is_empty() { given.cloned().into_iter().collect() } else { names }
}

/// What errors call the image.
fn label(names: &[ImageRef], archive: &Path) -> Result<ImageRef, ImportError> {
    let nameless = || ImportError::Nameless { path: archive.to_owned() };
    names.first().cloned().ok_or_else(nameless)
}
