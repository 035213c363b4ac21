//! What is deleted, and when: the kubelet's image garbage collection ("Garbage collection of unused
//! containers and images"), and layers and transfers that nobody has any more.
//!
//! What is in use is for the caller to say. Nothing here runs by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    error::StoreError,
    kept::KEPT_AGE,
    reference::ImageRef,
    space::Space,
    store::{Image, ImageStore, discard, entries},
};

/// Layers and transfers of no image are kept so long while there is room: the next attempt of a pull that
/// failed goes on with them.
pub const UNUSED_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// What has arrived of a layer is kept so long even when the disk is full: the pull may be between two attempts.
pub const PARTIAL_AGE: Duration = Duration::from_secs(60 * 60);

/// When images are deleted; the defaults are the kubelet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Images are deleted when more of the disk than this is taken, in percent.
    pub high_percent: u64,
    /// They are deleted until no more than this is taken, in percent.
    pub low_percent: u64,
    /// An image is kept at least so long after it was first seen.
    pub min_age: Duration,
}

/// What must not be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    /// The images that pods name.
    pub images: BTreeSet<ImageRef>,
    /// The layers that containers have mounted, also those of images whose name means another by now.
    pub layers: BTreeSet<PathBuf>,
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images, in the order in which they went.
    pub images: Vec<ImageRef>,
    /// How many layers and transfers.
    pub layers: usize,
    /// What was to be freed, in bytes; 0 when there was room enough.
    pub wanted: u64,
    /// What was freed, in bytes.
    pub freed: u64,
}

/// Deletes images when the disk is nearly full; remembers since when each is not used.
#[derive(Debug, Default)]
pub struct Collector {
    watermarks: Watermarks,
    seen: BTreeMap<ImageRef, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Instant,
    last_used: Option<Instant>,
}

impl Default for Watermarks {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(2 * 60) }
    }
}

impl Collector {
    /// One with these watermarks.
    #[must_use]
    pub fn new(watermarks: Watermarks) -> Self {
        Self { watermarks, seen: BTreeMap::new() }
    }

    /// Looks at the store and at the disk, and deletes what is due. Blocks meanwhile. `measure` says how
    /// much room there is now. While an image is being pulled or imported nothing is deleted.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read, or something cannot be deleted.
    pub fn collect(
        &mut self,
        store: &ImageStore,
        in_use: &InUse,
        now: Instant,
        measure: impl Fn(&Path) -> io::Result<Space>,
    ) -> Result<Collected, StoreError> {
        let images = store.list()?;
        self.notice(&images, in_use, now);
        let path = store.dir().to_owned();
        let look = || measure(&path).map_err(|source| StoreError { path: path.clone(), source });
        let mut collected = Collected::default();
        let prune = |age| store.prune(&in_use.layers, age);
        let before = look()?;
        if before.used_percent() < self.watermarks.high_percent {
            collected.layers = prune(UNUSED_AGE)?.unwrap_or(0);
            return Ok(collected);
        }
        let excess = |space: Space| space.excess_over(self.watermarks.low_percent);
        collected.wanted = excess(before);
        let mut candidates = self.candidates(&images, in_use, now).into_iter();
        // What nobody has goes first.
        while let Some(layers) = prune(Duration::ZERO)? {
            collected.layers += layers;
            if excess(look()?) == 0 {
                break;
            }
            let Some(image) = candidates.next() else { break };
            store.remove(image)?;
            collected.images.push(image.clone());
        }
        collected.freed = look()?.available.saturating_sub(before.available);
        Ok(collected)
    }

    fn notice(&mut self, images: &[Image], in_use: &InUse, now: Instant) {
        let here: BTreeSet<&ImageRef> = images.iter().map(|image| &image.reference).collect();
        self.seen.retain(|reference, _| here.contains(reference));
        for image in images {
            let new = Seen { first: now, last_used: None };
            let seen = self.seen.entry(image.reference.clone()).or_insert(new);
            if in_use.has(image) {
                seen.last_used = Some(now);
            }
        }
    }

    /// What may go: the longest unused first, and of those the longest here.
    fn candidates<'a>(
        &self,
        images: &'a [Image],
        in_use: &InUse,
        now: Instant,
    ) -> Vec<&'a ImageRef> {
        let unused = images.iter().filter(|image| !in_use.has(image));
        let mut candidates: Vec<(Seen, &ImageRef)> = unused
            .filter_map(|image| Some((*self.seen.get(&image.reference)?, &image.reference)))
            .filter(|(seen, _)| now.duration_since(seen.first) >= self.watermarks.min_age)
            .collect();
        candidates.sort_by_key(|(seen, _)| (seen.last_used, seen.first));
        candidates.into_iter().map(|(_, reference)| reference).collect()
    }
}

impl InUse {
    /// Whether a pod names this image.
    #[must_use]
    pub fn has(&self, image: &Image) -> bool {
        self.images.iter().any(|name| image.is_called(name))
    }
}

impl ImageStore {
    /// Deletes what no image has, if it is at least so old: layers that are not among `mounted`, and what
    /// has arrived of others. What is kept for neighbours goes when it must be of no age, or is old. Returns how many; `None` while somebody pulls or imports, whose layers have
    /// no record yet. Blocks while it deletes.
    ///
    /// # Errors
    /// [`StoreError`] at the first that cannot be deleted.
    pub fn prune(
        &self,
        mounted: &BTreeSet<PathBuf>,
        older_than: Duration,
    ) -> Result<Option<usize>, StoreError> {
        let Some(_alone) = self.lock_alone()? else { return Ok(None) };
        let images = self.list()?;
        // By their names alone: the store may be known by another path to who mounted them.
        let mounted = mounted.iter().filter_map(|path| path.file_name());
        let of_images = images.iter().flat_map(|image| &image.layers);
        let kept: BTreeSet<&OsStr> =
            mounted.chain(of_images.filter_map(|path| path.file_name())).collect();
        let mut deleted = 0;
        let is_pressed = older_than.is_zero() || self.neighbours().is_none();
        let kept_age = if is_pressed { older_than } else { KEPT_AGE };
        let kinds =
            [("layers", older_than), ("partial", older_than.max(PARTIAL_AGE)), ("blobs", kept_age)];
        for (dir, min_age) in kinds {
            for path in entries(&self.dir().join(dir))? {
                // A blob that is not compressed has its layer's name, and is not the layer.
                let is_used = path.file_name().is_some_and(|name| kept.contains(name));
                if (is_used && dir != "blobs") || age(&path) < min_age {
                    continue;
                }
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
}

/// Since when it is there under this name. A clock that was set back makes it young, which keeps it.
fn age(path: &Path) -> Duration {
    use std::os::unix::fs::MetadataExt;
    let changed = fs::symlink_metadata(path).ok().and_then(|it| u64::try_from(it.ctime()).ok());
    let changed = changed.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    changed.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}
