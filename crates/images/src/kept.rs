//! Layers as the registry sent them, which are kept for neighbours for a time, and those that arrive right now.
//!
//! `blobs/<hex>` are whole and checked; the oldest go when they take more than their share of the disk, and all of
//! them before any image does. What is arriving is sent on as it comes: who waits for it waits no longer than this
//! node itself.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    sync::watch,
};

use crate::{
    digest::Digest,
    error::StoreError,
    space::Space,
    store::{ImageStore, discard, entries, sync_parent},
};

/// What kept blobs take at most, unless a twentieth of the disk is less: a neighbour's gain must not be this
/// node's need.
pub const KEPT_BYTES: u64 = 1 << 30;
const KEPT_DIVISOR: u64 = 20;
/// A blob is kept no longer: what a new node needs was pulled lately by others.
pub const KEPT_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// What is read of a blob at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The blobs that arrive.
#[derive(Debug, Default)]
pub(crate) struct Arriving(Mutex<BTreeMap<Digest, (u64, watch::Receiver<Progress>)>>);

/// How far a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    received: u64,
    /// The neighbour that sends it.
    from: Option<Arc<str>>,
    is_checked: bool,
}

/// Held by who transfers a blob; others read with it what has arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    store: ImageStore,
    blob: Digest,
    progress: watch::Sender<Progress>,
}

/// A blob that is read by a neighbour, from an offset to its end.
#[derive(Debug)]
pub struct BlobReader {
    file: tokio::fs::File,
    at: u64,
    size: u64,
    arriving: Option<watch::Receiver<Progress>>,
}

impl Arrival {
    pub(crate) fn new(store: &ImageStore, blob: &Digest, size: u64) -> Self {
        let start = Progress { received: 0, from: None, is_checked: false };
        let (progress, reader) = watch::channel(start);
        let mut arriving = store.arriving().0.lock().unwrap_or_else(PoisonError::into_inner);
        arriving.insert(blob.clone(), (size, reader));
        drop(arriving);
        Self { store: store.clone(), blob: blob.clone(), progress }
    }

    /// Whether anybody reads with it: one receiver is there for those to come.
    pub(crate) fn is_watched(&self) -> bool {
        self.progress.receiver_count() > 1
    }

    /// So much of it is in the file.
    pub(crate) fn reached(&self, received: u64) {
        self.progress.send_modify(|progress| progress.received = received);
    }

    pub(crate) fn comes_from(&self, neighbour: Option<&str>) {
        self.progress.send_modify(|progress| progress.from = neighbour.map(Arc::from));
    }

    /// It is whole, and what it should be.
    pub(crate) fn checked(&self) {
        self.progress.send_modify(|progress| progress.is_checked = true);
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let arriving = &self.store.arriving().0;
        let mut arriving = arriving.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.progress.subscribe();
        if arriving.get(&self.blob).is_some_and(|(_, reader)| reader.same_channel(&own)) {
            arriving.remove(&self.blob);
        }
    }
}

impl ImageStore {
    /// A blob for a neighbour, from an offset on: one that is kept, or that is arriving, but from that neighbour.
    /// `None` where it is not here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn blob(
        &self,
        blob: &Digest,
        offset: u64,
        neighbour: &str,
    ) -> io::Result<Option<BlobReader>> {
        let found = {
            let arriving = self.arriving().0.lock().unwrap_or_else(PoisonError::into_inner);
            arriving.get(blob).cloned()
        };
        let found = found.filter(|(_, it)| it.borrow().from.as_deref() != Some(neighbour));
        let opened = match found {
            Some((size, arriving)) => {
                let file = open(&self.partial_path(blob)).await?;
                file.map(|file| (file, size, Some(arriving)))
            }
            None => None,
        };
        let (mut file, size, arriving) = match opened {
            Some(opened) => opened,
            None => {
                let Some(file) = open(&self.kept_path(blob)).await? else { return Ok(None) };
                let size = file.metadata().await?.len();
                (file, size, None)
            }
        };
        if offset > size {
            return Ok(None);
        }
        file.seek(io::SeekFrom::Start(offset)).await?;
        Ok(Some(BlobReader { file, at: offset, size, arriving }))
    }

    /// The blobs that are kept for neighbours.
    ///
    /// # Errors
    /// [`StoreError`] when the directory cannot be read.
    pub fn kept_blobs(&self) -> Result<Vec<Digest>, StoreError> {
        let paths = entries(&self.kept_dir())?;
        let name = |path: &PathBuf| format!("sha256:{}", path.file_name()?.to_str()?).parse().ok();
        Ok(paths.iter().filter_map(name).collect())
    }

    /// Keeps a blob's file, durably, and lets older ones go for it. Whether there is room for it at all.
    pub(crate) fn keep(&self, blob: &Digest, file: &Path) -> io::Result<bool> {
        let dir = self.kept_dir();
        let capacity = Space::of(&dir)?.capacity;
        let budget = KEPT_BYTES.min(capacity / KEPT_DIVISOR);
        let opened = fs::File::open(file)?;
        let size = opened.metadata()?.len();
        if size > budget {
            return Ok(false);
        }
        // Where power is cut it must not be there in part.
        opened.sync_all()?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let known = entry.metadata()?;
            kept.push((
                known.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                known.len(),
                entry.path(),
            ));
        }
        kept.sort();
        let mut all: u64 = kept.iter().map(|(_, size, _)| size).sum();
        for (_, other, path) in kept {
            if all.saturating_add(size) <= budget {
                break;
            }
            discard(&path)?;
            all = all.saturating_sub(other);
        }
        let path = self.kept_path(blob);
        fs::rename(file, &path)?;
        sync_parent(&path)?;
        Ok(true)
    }

    fn kept_path(&self, blob: &Digest) -> PathBuf {
        self.kept_dir().join(blob.hex())
    }

    fn kept_dir(&self) -> PathBuf {
        self.dir().join("blobs")
    }
}

async fn open(path: &Path) -> io::Result<Option<tokio::fs::File>> {
    match tokio::fs::File::open(path).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl BlobReader {
    /// How much is to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }

    /// The next bytes, when they are here; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or the blob stops arriving.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left() == 0 {
            return Ok(None);
        }
        let here = self.here().await?.saturating_sub(self.at);
        let length = usize::try_from(here).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut chunk = BytesMut::zeroed(length);
        let read = self.file.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        chunk.truncate(read);
        self.at += read as u64;
        Ok(Some(chunk.freeze()))
    }

    /// How much of the blob is in the file, once that is more than was read.
    async fn here(&mut self) -> io::Result<u64> {
        let Some(arriving) = &mut self.arriving else { return Ok(self.size) };
        let at = self.at;
        let more = arriving.wait_for(|now| now.is_checked || now.received > at).await;
        match more {
            Ok(progress) if progress.is_checked => Ok(self.size),
            Ok(progress) => Ok(progress.received),
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
