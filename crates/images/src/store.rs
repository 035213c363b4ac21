//! The store's directory and the pulls into it.
//!
//! `layers/<hex>` are unpacked layers, `images/<hex>.json` the records of pulled images (named by
//! the hash of the image's name), `tmp` what is under way. A layer is unpacked in `tmp`, made
//! durable, and renamed; a record is written after its layers. So a crash at any moment leaves
//! whole layers, whole records, and a `tmp` that the next [`ImageStore::open`] empties.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, Semaphore};

use crate::{
    digest::Digest,
    error::{PullError, StoreError},
    manifest::ImageConfig,
    pull,
    reference::ImageRef,
    registry::{Registry, RegistryConfig},
};

/// Pulls at once. More would only share the same thin link, and each has a file and a decoder.
pub const MAX_PULLS: u32 = 3;

/// A pulled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The name it was pulled by.
    pub reference: ImageRef,
    /// The digest of what that name stands for in the registry (an index or a manifest).
    pub digest: Digest,
    /// Directories, the bottom layer first.
    pub layers: Vec<PathBuf>,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Bytes transferred for its layers and configuration.
    pub size: u64,
}

/// A directory of images. Clones share it.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    registries: RegistryConfig,
    running: Mutex<BTreeMap<ImageRef, Pull>>,
    permits: Semaphore,
    next_temporary: AtomicU64,
}

/// One pull, which everyone who wants the same image awaits. If the one who drives it is dropped,
/// another of them starts it again.
type Pull = Arc<OnceCell<Result<Image, PullError>>>;

/// An image's file below `images`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) reference: String,
    pub(crate) digest: Digest,
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: ImageConfig,
    pub(crate) size: u64,
}

impl ImageStore {
    /// Opens the store in `dir`, which is created where it is missing. One process at a time.
    ///
    /// # Errors
    /// [`StoreError`] when the directory cannot be made or emptied of unfinished pulls.
    pub fn open(dir: impl Into<PathBuf>, registries: RegistryConfig) -> Result<Self, StoreError> {
        let dir = dir.into();
        for name in ["layers", "images", "tmp"] {
            let path = dir.join(name);
            if name == "tmp" {
                discard(&path).map_err(|source| StoreError { path: path.clone(), source })?;
            }
            fs::create_dir_all(&path).map_err(|source| StoreError { path, source })?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                dir,
                registries,
                running: Mutex::default(),
                permits: Semaphore::new(MAX_PULLS as usize),
                next_temporary: AtomicU64::new(0),
            }),
        })
    }

    /// The image of this name, if it was pulled and is whole. Reads the disk only.
    #[must_use]
    pub fn lookup(&self, reference: &ImageRef) -> Option<Image> {
        let image = self.load(&self.record_path(reference))?;
        (image.reference == *reference).then_some(image)
    }

    /// All pulled images, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError`] when the directory cannot be read. A damaged record is no image.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let mut images: Vec<Image> = entries(&self.inner.dir.join("images"))?
            .iter()
            .filter_map(|path| self.load(path))
            .collect();
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    }

    /// Gets the image from its registry: what the name stands for now, even if an older one is
    /// here. Layers that are here are not transferred. Calls for one image join each other.
    ///
    /// # Errors
    /// [`PullError`]; what was complete before stays.
    pub async fn pull(&self, reference: &ImageRef) -> Result<Image, PullError> {
        let pull = self.running().entry(reference.clone()).or_default().clone();
        let result = pull.get_or_init(|| self.pull_from_any(reference)).await.clone();
        let mut running = self.running();
        if running.get(reference).is_some_and(|current| Arc::ptr_eq(current, &pull)) {
            running.remove(reference);
        }
        result
    }

    /// Forgets an image. Its layers stay until [`Self::prune`].
    ///
    /// # Errors
    /// [`StoreError`] when its record cannot be deleted.
    pub fn remove(&self, reference: &ImageRef) -> Result<(), StoreError> {
        let path = self.record_path(reference);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Deletes the layers that no image has and that are not in `in_use` (those of containers whose
    /// image was removed). Returns how many; `None` while a pull is under way, whose layers have
    /// no record yet. Blocks while it deletes.
    ///
    /// # Errors
    /// [`StoreError`] at the first layer that cannot be deleted.
    pub fn prune(&self, in_use: &BTreeSet<PathBuf>) -> Result<Option<usize>, StoreError> {
        let Ok(_no_pulls) = self.inner.permits.try_acquire_many(MAX_PULLS) else {
            return Ok(None);
        };
        let mut kept: BTreeSet<PathBuf> = in_use.clone();
        kept.extend(self.list()?.into_iter().flat_map(|image| image.layers));
        let mut deleted = 0;
        for path in entries(&self.inner.dir.join("layers"))? {
            if !kept.contains(&path) {
                // Renamed first: a half-deleted layer must not look complete.
                let doomed = self.temporary("doomed");
                let failed = |source| StoreError { path: path.clone(), source };
                fs::rename(&path, &doomed).map_err(failed)?;
                discard(&doomed).map_err(failed)?;
                deleted += 1;
            }
        }
        Ok(Some(deleted))
    }

    pub(crate) fn layer_path(&self, digest: &Digest) -> PathBuf {
        self.inner.dir.join("layers").join(digest.hex())
    }

    /// A path below `tmp` that nobody else has.
    pub(crate) fn temporary(&self, kind: &str) -> PathBuf {
        let number = self.inner.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.inner.dir.join("tmp").join(format!("{kind}-{number}"))
    }

    /// Writes an image's record, durably.
    pub(crate) fn save(&self, reference: &ImageRef, record: &Record) -> io::Result<Image> {
        let temporary = self.temporary("record");
        let mut file = fs::File::create(&temporary)?;
        serde_json::to_writer(&mut file, record)?;
        file.sync_all()?;
        let path = self.record_path(reference);
        fs::rename(&temporary, &path)?;
        sync_parent(&path)?;
        self.load(&path).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn load(&self, path: &Path) -> Option<Image> {
        let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let layers: Vec<PathBuf> =
            record.layers.iter().map(|digest| self.layer_path(digest)).collect();
        layers.iter().all(|layer| layer.is_dir()).then_some(())?;
        Some(Image {
            reference: record.reference.parse().ok()?,
            digest: record.digest,
            layers,
            config: record.config,
            size: record.size,
        })
    }

    async fn pull_from_any(&self, reference: &ImageRef) -> Result<Image, PullError> {
        // The semaphore is never closed, so this does not fail.
        let _permit = self.inner.permits.acquire().await;
        let mut result = None;
        for endpoint in self.inner.registries.endpoints_of(reference) {
            let mut registry = Registry::new(reference, endpoint);
            match pull::pull(self, reference, &mut registry).await {
                Ok(image) => return Ok(image),
                Err(error) => {
                    tracing::debug!(%reference, %error, "pull failed");
                    result = Some(error);
                }
            }
        }
        Err(result.unwrap_or_else(|| PullError::NotFound {
            image: Box::new(reference.clone()),
            endpoint: "any registry: none is configured".to_owned(),
        }))
    }

    fn record_path(&self, reference: &ImageRef) -> PathBuf {
        let name = Digest::of(reference.to_string().as_bytes()).hex();
        self.inner.dir.join("images").join(format!("{name}.json"))
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<ImageRef, Pull>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes all that was written below `dir` durable, then gives it its final name. No error when
/// another was faster.
pub(crate) fn publish(dir: &Path, path: &Path) -> io::Result<()> {
    let opened = fs::File::open(dir)?;
    nix::unistd::syncfs(opened.as_fd())?;
    match fs::rename(dir, path) {
        Ok(()) => sync_parent(path),
        Err(_) if path.is_dir() => discard(dir),
        Err(error) => Err(error),
    }
}

/// Deletes a file or tree; no error when there is none.
pub(crate) fn discard(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    };
    read().map_err(|source| StoreError { path: dir.to_owned(), source })
}
