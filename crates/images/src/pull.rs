//! One pull from one registry: manifest, configuration, layers; all checked against their digests.

use std::{
    fs,
    io::{self, BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncSeekExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{
    digest::{Digest, Hasher},
    error::PullError,
    manifest::{ConfigDocument, Descriptor, Document, Manifest, architecture},
    reference::ImageRef,
    registry::{IDLE_TIMEOUT, MAX_DOCUMENT_BYTES, Registry},
    store::{Image, ImageStore, Record, discard, publish},
    unpack::{UnpackError, unpack},
};

/// How often a layer's transfer is taken up again after it broke. Each attempt goes on where the
/// last one ended, so many attempts cost little on a link that breaks often.
pub const DOWNLOAD_ATTEMPTS: u32 = 8;
/// The pause before the second attempt; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A layer's file and what is known of it so far.
struct Download {
    path: PathBuf,
    file: tokio::fs::File,
    hasher: Hasher,
    received: u64,
}

pub(crate) async fn pull(
    store: &ImageStore,
    image: &ImageRef,
    registry: &mut Registry,
) -> Result<Image, PullError> {
    let (digest, manifest) = manifest(image, registry).await?;
    let config = config(image, registry, &manifest.config).await?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let reason = format!("it lists {} layers of {}", diff_ids.len(), manifest.layers.len());
        return Err(invalid(image, "configuration", reason));
    }
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let path = store.layer_path(&layer.digest);
        if !path.is_dir() {
            fetch_layer(store, image, registry, layer, diff_id).await?;
        }
    }
    let record = Record {
        reference: image.to_string(),
        digest,
        size: total(&manifest),
        layers: distinct(&manifest.layers),
        config: config.config.unwrap_or_default(),
    };
    store.save(image, &record).map_err(|error| disk(image, Path::new("images"), error))
}

/// What a manifest says that its parts are together; a registry may say anything.
fn total(manifest: &Manifest) -> u64 {
    let layers = manifest.layers.iter().map(|layer| layer.size);
    layers.fold(manifest.config.size, u64::saturating_add)
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
    let is_ours = |os: &str, arch: &str| os == "linux" && arch == architecture();
    let platforms = || entries.iter().filter_map(|entry| entry.platform.as_ref());
    let ours = entries
        .iter()
        .find(|entry| entry.platform.as_ref().is_some_and(|p| is_ours(&p.os, &p.architecture)));
    let Some(ours) = ours else {
        return Err(PullError::NoSuchPlatform {
            image: Box::new(image.clone()),
            wanted: architecture(),
            found: platforms().map(|p| format!("{}/{}", p.os, p.architecture)).collect(),
        });
    };
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
    let response = registry.blob(&descriptor.digest, 0).await?;
    let bytes = registry.collect(response).await?;
    check(image, &descriptor.digest, &Digest::of(&bytes))?;
    let config: ConfigDocument = parse(image, "configuration", &bytes)?;
    let (os, arch) = (config.os.as_str(), config.architecture.as_str());
    let fits = matches!(os, "" | "linux") && (arch.is_empty() || arch == architecture());
    if !fits {
        return Err(PullError::NoSuchPlatform {
            image: Box::new(image.clone()),
            wanted: architecture(),
            found: vec![format!("{os}/{arch}")],
        });
    }
    Ok(config)
}

/// Transfers a layer into a temporary file, checks it, unpacks it beside, and publishes that.
async fn fetch_layer(
    store: &ImageStore,
    image: &ImageRef,
    registry: &mut Registry,
    layer: &Descriptor,
    diff_id: Digest,
) -> Result<(), PullError> {
    if layer.media_type.ends_with("zstd") {
        let reason = "its layers are compressed with zstd, which is not supported".to_owned();
        return Err(invalid(image, "manifest", reason));
    }
    let archive = Temporary(store.temporary("download"));
    download(image, registry, layer, &archive.0).await?;
    let tree = Temporary(store.temporary("layer"));
    let destination = store.layer_path(&layer.digest);
    let failed_image = image.clone();
    let digest = layer.digest.clone();
    let work = move || {
        let failed = |source| PullError::Layer {
            image: Box::new(failed_image.clone()),
            layer: digest.clone(),
            source: Arc::new(source),
        };
        let unpacked = unpack_file(&archive.0, &tree.0).map_err(failed)?;
        check(&failed_image, &diff_id, &unpacked)?;
        publish(&tree.0, &destination).map_err(|error| disk(&failed_image, &destination, error))
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(disk(image, Path::new("layers"), io::Error::other(error))))
}

async fn download(
    image: &ImageRef,
    registry: &mut Registry,
    layer: &Descriptor,
    path: &Path,
) -> Result<(), PullError> {
    let file = tokio::fs::File::create(path).await.map_err(|error| disk(image, path, error))?;
    let mut download = Download { path: path.to_owned(), file, hasher: Hasher::new(), received: 0 };
    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        let before = download.received;
        match transfer(image, registry, layer, &mut download).await {
            Ok(()) => break,
            Err(PullError::Interrupted { .. } | PullError::Unreachable { .. })
                if attempt < DOWNLOAD_ATTEMPTS =>
            {
                // An attempt that brought something is no reason to wait longer, or to give up.
                if download.received > before {
                    (attempt, pause) = (0, FIRST_PAUSE);
                }
                attempt += 1;
                sleep(pause).await;
                pause *= 2;
            }
            Err(error) => return Err(error),
        }
    }
    download.file.flush().await.map_err(|error| disk(image, path, error))?;
    check(image, &layer.digest, &download.hasher.finish())
}

/// Appends what the registry sends until the layer is whole.
async fn transfer(
    image: &ImageRef,
    registry: &mut Registry,
    layer: &Descriptor,
    download: &mut Download,
) -> Result<(), PullError> {
    let response = registry.blob(&layer.digest, download.received).await?;
    if download.received > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
        restart(download).await.map_err(|error| disk(image, &download.path, error))?;
    }
    let mut body = response.into_body();
    while download.received < layer.size {
        let frame = match timeout(IDLE_TIMEOUT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(registry.interrupted(&error)),
            Ok(None) => return Err(registry.interrupted(&"it ended early")),
            Err(_) => return Err(registry.interrupted(&"nothing came for a minute")),
        };
        let Ok(chunk) = frame.into_data() else { continue };
        append(image, layer, download, &chunk).await?;
    }
    Ok(())
}

async fn append(
    image: &ImageRef,
    layer: &Descriptor,
    download: &mut Download,
    chunk: &Bytes,
) -> Result<(), PullError> {
    let left = layer.size.saturating_sub(download.received);
    if chunk.len() as u64 > left {
        let reason = format!("{} is longer than the {} bytes it says", layer.digest, layer.size);
        return Err(invalid(image, "layer", reason));
    }
    download.hasher.update(chunk);
    let written = download.file.write_all(chunk).await;
    written.map_err(|error| disk(image, &download.path, error))?;
    download.received += chunk.len() as u64;
    Ok(())
}

/// The registry ignored the offset and sends all of it again.
async fn restart(download: &mut Download) -> io::Result<()> {
    download.file.flush().await?;
    download.file.set_len(0).await?;
    download.file.rewind().await?;
    download.hasher = Hasher::new();
    download.received = 0;
    Ok(())
}

/// Unpacks an archive, compressed or not, and returns the digest of the uncompressed one.
fn unpack_file(archive: &Path, dir: &Path) -> Result<Digest, UnpackError> {
    let mut file = fs::File::open(archive).map_err(UnpackError::Archive)?;
    let mut magic = Vec::new();
    io::Read::by_ref(&mut file)
        .take(GZIP_MAGIC.len() as u64)
        .read_to_end(&mut magic)
        .and_then(|_| file.rewind())
        .map_err(UnpackError::Archive)?;
    fs::create_dir(dir).map_err(UnpackError::Archive)?;
    let file = BufReader::new(file);
    let reader: Box<dyn Read> =
        if magic == GZIP_MAGIC { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut hashing = Hashing { reader, hasher: Hasher::new() };
    unpack(&mut hashing, dir)?;
    // An archive may end in padding that unpacking does not read.
    io::copy(&mut hashing, &mut io::sink()).map_err(UnpackError::Archive)?;
    Ok(hashing.hasher.finish())
}

/// Hashes what is read through it.
struct Hashing {
    reader: Box<dyn Read>,
    hasher: Hasher,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.hasher.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// A path that is deleted when it goes out of scope. A tree that was published is not there.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = discard(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot delete");
        }
    }
}

/// The layers, bottom first, each once: overlayfs refuses a directory twice. What a layer brings
/// or hides at a lower place, it brings or hides at its highest place as well.
fn distinct(layers: &[Descriptor]) -> Vec<Digest> {
    let mut distinct: Vec<Digest> = Vec::new();
    for layer in layers.iter().rev() {
        if !distinct.contains(&layer.digest) {
            distinct.push(layer.digest.clone());
        }
    }
    distinct.reverse();
    distinct
}

fn check(image: &ImageRef, wanted: &Digest, got: &Digest) -> Result<(), PullError> {
    if wanted == got {
        return Ok(());
    }
    Err(PullError::Corrupted {
        image: Box::new(image.clone()),
        wanted: wanted.clone(),
        got: got.clone(),
    })
}

fn parse<T: serde::de::DeserializeOwned>(
    image: &ImageRef,
    document: &'static str,
    bytes: &[u8],
) -> Result<T, PullError> {
    serde_json::from_slice(bytes).map_err(|error| invalid(image, document, error.to_string()))
}

fn invalid(image: &ImageRef, document: &'static str, reason: String) -> PullError {
    PullError::Invalid { image: Box::new(image.clone()), document, reason }
}

fn disk(image: &ImageRef, path: &Path, error: io::Error) -> PullError {
    PullError::Disk {
        image: Box::new(image.clone()),
        path: path.to_owned(),
        source: Arc::new(error),
    }
}
