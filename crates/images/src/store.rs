//! The store's directory and the pulls into it.
//!
//! `layers/<hex>` are unpacked layers, `images/<hex>.json` the records of pulled images (named by
//! the hash of the image's name), `partial/<hex>` what has arrived of layers, `blobs/<hex>` layers as they came,
//! for neighbours, `tmp` what is under way. A layer is unpacked in `tmp`, made durable, and renamed; a record is written after its layers. So a crash
//! at any moment leaves whole layers, whole records, and a `tmp` that the next [`ImageStore::open`]
//! empties.
//!
//! Several processes may have the store open: `lock` is held in common by whoever adds to it, and by one
//! alone who deletes layers.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OnceCell, Semaphore};

use crate::{
    digest::Digest,
    error::{PullError, StoreError},
    kept::Arriving,
    keyring::{Credentials, Keyring},
    manifest::ImageConfig,
    neighbours::Neighbours,
    pull,
    reference::ImageRef,
    registries::{RegistryConfig, Source},
    registry::Registry,
};

/// Pulls at once. More would only share the same thin link, and each has a file and a decoder.
pub const MAX_PULLS: u32 = 3;
/// How often the lock is tried while another process deletes layers.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

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
    running: Mutex<BTreeMap<(ImageRef, Keyring), Pull>>,
    layers: Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    arriving: Arriving,
    neighbours: OnceLock<Arc<dyn Neighbours>>,
    permits: Semaphore,
    next_temporary: AtomicU64,
    changed: Notify,
}

/// One pull, which everyone who wants the same image with the same credentials awaits. If the one who drives it is dropped,
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
    /// Opens the store in `dir`, which is created where it is missing.
    ///
    /// # Errors
    /// [`StoreError`] when the directory cannot be made or emptied of unfinished work.
    pub fn open(dir: impl Into<PathBuf>, registries: RegistryConfig) -> Result<Self, StoreError> {
        let dir = dir.into();
        for name in ["layers", "images", "partial", "blobs", "tmp"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(|source| StoreError { path, source })?;
        }
        let store = Self {
            inner: Arc::new(Inner {
                dir,
                registries,
                running: Mutex::default(),
                layers: Mutex::default(),
                arriving: Arriving::default(),
                neighbours: OnceLock::new(),
                permits: Semaphore::new(MAX_PULLS as usize),
                next_temporary: AtomicU64::new(0),
                changed: Notify::new(),
            }),
        };
        // If another process is at work, what is in `tmp` may be its.
        if let Some(_alone) = store.lock_alone()? {
            for path in entries(&store.inner.dir.join("tmp"))? {
                discard(&path).map_err(|source| StoreError { path, source })?;
            }
        }
        Ok(store)
    }

    /// The image of this name, if it was pulled and is whole: by exactly this name, or, where that fixes a
    /// digest, by another name of the same repository. Reads the disk only.
    #[must_use]
    pub fn lookup(&self, reference: &ImageRef) -> Option<Image> {
        let image = self.load(&self.record_path(reference));
        if let Some(image) = image.filter(|image| image.reference == *reference) {
            return Some(image);
        }
        reference.digest()?;
        self.list().ok()?.into_iter().find(|image| image.is_called(reference))
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
    /// here. Layers that are here are not transferred. Calls for one image with the same credentials join
    /// each other.
    ///
    /// # Errors
    /// [`PullError`]; what was complete before stays, and what has arrived of a layer.
    pub async fn pull(&self, reference: &ImageRef, keyring: &Keyring) -> Result<Image, PullError> {
        let key = (reference.clone(), keyring.clone());
        let pull = self.running().entry(key.clone()).or_default().clone();
        let result = pull.get_or_init(|| self.pull_from_any(reference, keyring)).await.clone();
        let mut running = self.running();
        if running.get(&key).is_some_and(|current| Arc::ptr_eq(current, &pull)) {
            running.remove(&key);
        }
        result
    }

    /// From now on layers are asked of neighbours first, and some are kept for them. Once for a store.
    pub fn ask(&self, neighbours: Arc<dyn Neighbours>) {
        if self.inner.neighbours.set(neighbours).is_err() {
            tracing::warn!("the image store knows its neighbours already");
        }
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
            _ => {
                self.inner.changed.notify_one();
                Ok(())
            }
        }
    }

    /// Waits until this process has added or removed an image. For one waiter.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// The store's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(crate) fn arriving(&self) -> &Arriving {
        &self.inner.arriving
    }

    pub(crate) fn neighbours(&self) -> Option<&Arc<dyn Neighbours>> {
        self.inner.neighbours.get()
    }

    pub(crate) fn layer_path(&self, digest: &Digest) -> PathBuf {
        self.inner.dir.join("layers").join(digest.hex())
    }

    /// What has arrived of a blob.
    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.inner.dir.join("partial").join(digest.hex())
    }

    /// A path below `tmp` that nobody else has.
    pub(crate) fn temporary(&self, kind: &str) -> PathBuf {
        let number = self.inner.next_temporary.fetch_add(1, Ordering::Relaxed);
        let name = format!("{kind}-{}-{number}", std::process::id());
        self.inner.dir.join("tmp").join(name)
    }

    /// Held by whoever brings this layer.
    pub(crate) fn layer_lock(&self, diff_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut layers = self.inner.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = layers.get(diff_id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        layers.insert(diff_id.clone(), Arc::downgrade(&lock));
        lock
    }

    /// Held by whoever adds layers; they must not be deleted before a record has them. `None` while layers
    /// are being deleted.
    pub(crate) fn try_lock_shared(&self) -> Result<Option<File>, StoreError> {
        self.lock_file(File::try_lock_shared)
    }

    /// Held by who deletes layers; `None` while somebody adds.
    pub(crate) fn lock_alone(&self) -> Result<Option<File>, StoreError> {
        self.lock_file(File::try_lock)
    }

    fn lock_file(
        &self,
        lock: impl FnOnce(&File) -> Result<(), fs::TryLockError>,
    ) -> Result<Option<File>, StoreError> {
        let path = self.inner.dir.join("lock");
        let failed = |source| StoreError { path: path.clone(), source };
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match lock(&file) {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => Err(failed(source)),
        }
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
        self.inner.changed.notify_one();
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

    async fn pull_from_any(
        &self,
        reference: &ImageRef,
        keyring: &Keyring,
    ) -> Result<Image, PullError> {
        let image = || Box::new(reference.clone());
        // The semaphore is never closed, so this does not fail.
        let _permit = self.inner.permits.acquire().await;
        let _adding = self.lock_shared(reference).await?;
        let sources = self.inner.registries.sources(reference);
        let sources = sources.map_err(|source| PullError::Registries { image: image(), source })?;
        let mut failure = None;
        for source in sources {
            for credentials in candidates(&source, reference, keyring) {
                let mut registry = Registry::new(reference, source.clone(), credentials)?;
                match pull::pull(self, reference, &mut registry).await {
                    Ok(image) => return Ok(image),
                    Err(error) if error.is_local() => return Err(error),
                    Err(error) => {
                        let denied = matches!(error, PullError::Denied { .. });
                        tracing::debug!(%reference, %error, "pull failed");
                        failure = Some(error);
                        if !denied {
                            break;
                        }
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| PullError::NotFound {
            image: image(),
            endpoint: "any registry: none is configured".to_owned(),
        }))
    }

    async fn lock_shared(&self, reference: &ImageRef) -> Result<File, PullError> {
        loop {
            match self.try_lock_shared() {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(error) => return Err(PullError::disk(reference, &error.path, error.source)),
            }
        }
    }

    fn record_path(&self, reference: &ImageRef) -> PathBuf {
        let name = Digest::of(reference.to_string().as_bytes()).hex();
        self.inner.dir.join("images").join(format!("{name}.json"))
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<(ImageRef, Keyring), Pull>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Image {
    /// Whether this name stands for it: it was pulled by it, or has the digest that the name fixes.
    #[must_use]
    pub fn is_called(&self, name: &ImageRef) -> bool {
        let own = &self.reference;
        let same_repository =
            own.registry() == name.registry() && own.repository() == name.repository();
        own == name || (same_repository && name.digest() == Some(&self.digest))
    }
}

/// The credentials to try at a source, in this order. The pod's are for the registries that its secrets
/// name: a mirror gets those for its own host only, or else the node's for it.
fn candidates(
    source: &Source,
    reference: &ImageRef,
    keyring: &Keyring,
) -> Vec<Option<Credentials>> {
    let found = if source.is_mirror {
        keyring.lookup_at(&source.host(), reference.repository())
    } else {
        keyring.lookup(reference)
    };
    if found.is_empty() {
        return vec![source.credentials.clone()];
    }
    found.into_iter().cloned().map(Some).collect()
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

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}

pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    };
    read().map_err(|source| StoreError { path: dir.to_owned(), source })
}
