//! One pull from one registry: manifest, configuration, layers; all checked against their digests.

use std::{fs, io::BufReader, path::Path, sync::Arc};

use crate::{
    digest::Digest,
    download::download,
    error::PullError,
    layer::{LayerError, install},
    manifest::{ConfigDocument, Descriptor, Document, Manifest},
    platform::Host,
    reference::ImageRef,
    registry::{MAX_DOCUMENT_BYTES, Registry},
    space::Space,
    store::{Image, ImageStore, Record},
};

/// Of layers that only their owner can read.
const ENCRYPTED: &str = "+encrypted";

pub(crate) async fn pull(
    store: &ImageStore,
    image: &ImageRef,
    registry: &mut Registry,
) -> Result<Image, PullError> {
    let (digest, manifest) = manifest(image, registry).await?;
    if let Some(unchanged) = store.lookup(image).filter(|here| here.digest == digest) {
        return Ok(unchanged);
    }
    if let Some(layer) = manifest.layers.iter().find(|it| it.media_type.ends_with(ENCRYPTED)) {
        let reason = format!("its layer {} is encrypted, which is not supported", layer.digest);
        return Err(invalid(image, "manifest", reason));
    }
    let config = config(image, registry, &manifest.config).await?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let reason = format!("it lists {} layers of {}", diff_ids.len(), manifest.layers.len());
        return Err(invalid(image, "configuration", reason));
    }
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        fetch_layer(store, image, registry, layer, diff_id).await?;
    }
    let record = Record {
        reference: image.to_string(),
        digest,
        size: manifest.size(),
        layers: config.rootfs.distinct(),
        config: config.config.unwrap_or_default(),
    };
    store.save(image, &record).map_err(|error| PullError::disk(image, store.dir(), error))
}

/// The manifest for this machine, and the digest of what the image's name stands for.
async fn manifest(
    image: &ImageRef,
    registry: &mut Registry,
) -> Result<(Digest, Manifest), PullError> {
    let bytes = registry.manifest(&image.manifest_reference()).await?;
    let digest = Digest::of(&bytes);
    if let Some(wanted) = image.digest() {
        check(image, wanted, &digest)?;
    }
    let entries = match parse(image, "manifest", &bytes)? {
        Document::Manifest(manifest) => return Ok((digest, manifest)),
        Document::Index { manifests } => manifests,
    };
    let host = Host::this();
    let ours = Document::choose(&entries, &host)
        .ok_or_else(|| no_such_platform(image, &host, Document::platforms(&entries)))?;
    let bytes = registry.manifest(&ours.digest.to_string()).await?;
    check(image, &ours.digest, &Digest::of(&bytes))?;
    match parse(image, "manifest", &bytes)? {
        Document::Manifest(manifest) => Ok((digest, manifest)),
        Document::Index { .. } => {
            Err(invalid(image, "manifest", "an index within an index".to_owned()))
        }
    }
}

async fn config(
    image: &ImageRef,
    registry: &mut Registry,
    descriptor: &Descriptor,
) -> Result<ConfigDocument, PullError> {
    if descriptor.size > MAX_DOCUMENT_BYTES as u64 {
        return Err(invalid(image, "configuration", "it is too long".to_owned()));
    }
    let blob = registry.blob(&descriptor.digest, 0).await?;
    let bytes = registry.collect(blob.body).await?;
    check(image, &descriptor.digest, &Digest::of(&bytes))?;
    let config: ConfigDocument = parse(image, "configuration", &bytes)?;
    check_platform(image, &config)?;
    Ok(config)
}

/// Transfers a layer, unpacks it beside, and publishes that; nothing to do when it is here. Another pull
/// that needs the same layer waits for this one instead of transferring it too.
async fn fetch_layer(
    store: &ImageStore,
    image: &ImageRef,
    registry: &mut Registry,
    layer: &Descriptor,
    diff_id: &Digest,
) -> Result<(), PullError> {
    let lock = store.layer_lock(diff_id);
    let _turn = lock.lock().await;
    if store.layer_path(diff_id).is_dir() {
        return Ok(());
    }
    let archive = download(store, image, registry, layer).await?;
    let (store, image, diff_id) = (store.clone(), image.clone(), diff_id.clone());
    let work = move || {
        let path = archive.path.clone();
        let disk = |error| PullError::disk(&image, &path, error);
        let file = fs::File::open(&path).map_err(disk)?;
        let tree = store.temporary("layer");
        let destination = store.layer_path(&diff_id);
        let installed = install(BufReader::new(file), &diff_id, tree, &destination);
        match &installed {
            Ok(()) => archive.done(&store).map_err(disk)?,
            // What has arrived is there for an attempt with more room.
            Err(LayerError::Full) => {}
            Err(_) => fs::remove_file(&path).map_err(disk)?,
        }
        installed.map_err(|error| explain(error, &image, &diff_id, store.dir()))
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(registry.interrupted(&error)))
}

/// A layer's failure as one of the image.
pub(crate) fn explain(
    error: LayerError,
    image: &ImageRef,
    diff_id: &Digest,
    dir: &Path,
) -> PullError {
    let (name, layer) = (Box::new(image.clone()), diff_id.clone());
    match error {
        LayerError::Unpack(source) => {
            PullError::Layer { image: name, layer, source: Arc::new(source) }
        }
        LayerError::Corrupted { got } => PullError::Corrupted { image: name, wanted: layer, got },
        LayerError::Full => PullError::NoSpace {
            image: name,
            path: dir.to_owned(),
            available: Space::of(dir).map_or(0, |space| space.for_images()),
            needed: 1,
        },
        LayerError::Disk(error) => PullError::disk(image, dir, error),
    }
}

/// Whether this machine can run it.
pub(crate) fn check_platform(image: &ImageRef, config: &ConfigDocument) -> Result<(), PullError> {
    let host = Host::this();
    if host.fits(&config.platform) {
        return Ok(());
    }
    Err(no_such_platform(image, &host, vec![config.platform.to_string()]))
}

pub(crate) fn no_such_platform(image: &ImageRef, host: &Host, found: Vec<String>) -> PullError {
    PullError::NoSuchPlatform { image: Box::new(image.clone()), wanted: host.to_string(), found }
}

pub(crate) fn check(image: &ImageRef, wanted: &Digest, got: &Digest) -> Result<(), PullError> {
    if wanted == got {
        return Ok(());
    }
    Err(PullError::Corrupted {
        image: Box::new(image.clone()),
        wanted: wanted.clone(),
        got: got.clone(),
    })
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    image: &ImageRef,
    document: &'static str,
    bytes: &[u8],
) -> Result<T, PullError> {
    serde_json::from_slice(bytes).map_err(|error| invalid(image, document, error.to_string()))
}

pub(crate) fn invalid(image: &ImageRef, document: &'static str, reason: String) -> PullError {
    PullError::Invalid { image: Box::new(image.clone()), document, reason }
}
