//! Transfers one layer into a file that outlives a broken link, a failed pull and the daemon.
//!
//! `partial/<hex>` is what has arrived of the blob with that digest, from its start on. Nothing says how
//! much of it is right: it is hashed when it is taken up, and thrown away when the whole does not fit. Neighbours
//! are asked before the registry, and may read with it what arrives.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{
    digest::{Digest, Hasher},
    error::PullError,
    kept::Arrival,
    manifest::Descriptor,
    neighbours::Near,
    pull::invalid,
    reference::ImageRef,
    registry::{IDLE_TIMEOUT, Registry},
    space::Space,
    store::ImageStore,
};

/// How often a layer's transfer is taken up again after it broke. Each attempt goes on where the
/// last one ended, so many attempts cost little on a link that breaks often.
pub const DOWNLOAD_ATTEMPTS: u32 = 8;
/// The pause before the second attempt; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// While nobody reads with it, what has arrived is told after so many bytes, for who comes then.
const TELL_EVERY_BYTES: u64 = 256 << 10;
/// What is read at once of a file that is taken up.
const READ_BYTES: usize = 64 << 10;

/// A layer's file and what is known of it so far.
pub(crate) struct Download<'a> {
    image: &'a ImageRef,
    layer: &'a Descriptor,
    path: &'a Path,
    file: File,
    hasher: Hasher,
    received: u64,
    /// Some of it was there before.
    resumed: bool,
    /// What of it who reads with it was told of.
    told: u64,
    /// Where there are neighbours.
    arrival: Option<&'a Arrival>,
}

/// A whole layer, checked, in its file.
pub(crate) struct Downloaded {
    pub(crate) path: PathBuf,
    blob: Digest,
    /// Neighbours may read it until this is dropped, and what is kept after that.
    arrival: Option<Arrival>,
    near: Option<Near>,
}

/// Makes the blob's file whole.
pub(crate) async fn download(
    store: &ImageStore,
    image: &ImageRef,
    registry: &mut Registry,
    layer: &Descriptor,
) -> Result<Downloaded, PullError> {
    let path = store.partial_path(&layer.digest);
    let mut near = store.neighbours().map(|all| Near::new(all.clone(), layer.digest.clone()));
    let arrival = near.as_ref().map(|_| Arrival::new(store, &layer.digest, layer.size));
    loop {
        let mut download = Download::take_up(image, layer, &path, arrival.as_ref())
            .await
            .map_err(|error| PullError::disk(image, &path, error))?;
        let resumed = download.resumed;
        download.check_room()?;
        if let Some(near) = &mut near {
            near.fill(&mut download).await?;
        }
        download.complete(registry).await?;
        let got = download.finish().await.map_err(|error| PullError::disk(image, &path, error))?;
        if got == layer.digest {
            if let Some(arrival) = &arrival {
                arrival.checked();
            }
            return Ok(Downloaded { path, blob: layer.digest.clone(), arrival, near });
        }
        tokio::fs::remove_file(&path)
            .await
            .map_err(|error| PullError::disk(image, &path, error))?;
        // What was there before may have been torn by a power cut: the registry gets one chance of its own.
        if !near.as_mut().is_some_and(Near::is_to_blame) && !resumed {
            return Err(PullError::Corrupted {
                image: Box::new(image.clone()),
                wanted: layer.digest.clone(),
                got,
            });
        }
        tracing::warn!(%image, layer = %layer.digest, "what has arrived of a layer is damaged");
    }
}

impl Downloaded {
    /// It is a layer now: keeps the file where neighbours were told so, or deletes it. Blocks.
    pub(crate) fn done(mut self, store: &ImageStore) -> io::Result<()> {
        let promised = self.near.as_ref().is_some_and(Near::is_promised);
        if !promised || !store.keep(&self.blob, &self.path)? {
            return fs::remove_file(&self.path);
        }
        if let Some(near) = &mut self.near {
            near.keeps_promise();
        }
        // Not before: who asks in between finds it at its old place, or at its new one.
        drop(self.arrival.take());
        Ok(())
    }
}

impl<'a> Download<'a> {
    /// Opens the file and reads what is there.
    async fn take_up(
        image: &'a ImageRef,
        layer: &'a Descriptor,
        path: &'a Path,
        arrival: Option<&'a Arrival>,
    ) -> io::Result<Self> {
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).await?;
        let mut hasher = Hasher::new();
        let mut received = 0;
        if file.metadata().await?.len() > layer.size {
            file.set_len(0).await?;
        }
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let length = file.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            hasher.update(buffer.get(..length).unwrap_or_default());
            received += length as u64;
        }
        if let Some(arrival) = arrival {
            arrival.reached(received);
        }
        let (resumed, told) = (received > 0, received);
        Ok(Self { image, layer, path, file, hasher, received, resumed, told, arrival })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn left(&self) -> u64 {
        self.layer.size.saturating_sub(self.received)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.left() == 0
    }

    /// Who sends it; `None` for the registry.
    pub(crate) fn comes_from(&self, neighbour: Option<&str>) {
        if let Some(arrival) = self.arrival {
            arrival.comes_from(neighbour);
        }
    }

    fn check_room(&self) -> Result<(), PullError> {
        let needed = self.left();
        let space =
            Space::of(self.path).map_err(|error| PullError::disk(self.image, self.path, error))?;
        let available = space.for_images();
        if needed <= available {
            return Ok(());
        }
        Err(PullError::NoSpace {
            image: Box::new(self.image.clone()),
            path: self.path.parent().unwrap_or(self.path).to_owned(),
            available,
            needed,
        })
    }

    async fn complete(&mut self, registry: &mut Registry) -> Result<(), PullError> {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        while self.received < self.layer.size {
            let before = self.received;
            let Err(error) = self.transfer(registry).await else { continue };
            self.tell().await?;
            let passing =
                matches!(error, PullError::Interrupted { .. } | PullError::Unreachable { .. });
            if !passing || attempt >= DOWNLOAD_ATTEMPTS {
                return Err(error);
            }
            // An attempt that brought something is no reason to wait longer, or to give up.
            if self.received > before {
                (attempt, pause) = (0, FIRST_PAUSE);
            }
            attempt += 1;
            sleep(pause).await;
            pause *= 2;
        }
        Ok(())
    }

    /// Appends what the registry sends until the layer is whole.
    async fn transfer(&mut self, registry: &mut Registry) -> Result<(), PullError> {
        let blob = match registry.blob(&self.layer.digest, self.received).await {
            Err(PullError::Status { status, .. })
                if status == StatusCode::RANGE_NOT_SATISFIABLE.as_u16() && self.received > 0 =>
            {
                self.restart().await.map_err(|error| self.disk(error))?;
                return Err(registry.interrupted(&"it does not have as much as has arrived"));
            }
            other => other?,
        };
        if blob.starts_at > self.received {
            return Err(registry.interrupted(&"it begins after what was asked for"));
        }
        // A registry that knows no ranges sends all again: what is here is not written twice.
        let mut known = self.received - blob.starts_at;
        let mut body = blob.body;
        while self.received < self.layer.size {
            let frame = match timeout(IDLE_TIMEOUT, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(registry.interrupted(&error)),
                Ok(None) => return Err(registry.interrupted(&"it ended early")),
                Err(_) => return Err(registry.interrupted(&"nothing came for a minute")),
            };
            let Ok(mut chunk) = frame.into_data() else { continue };
            let skipped = chunk.len().min(usize::try_from(known).unwrap_or(usize::MAX));
            known -= skipped as u64;
            self.append(chunk.split_off(skipped)).await?;
        }
        Ok(())
    }

    pub(crate) async fn append(&mut self, chunk: Bytes) -> Result<(), PullError> {
        if chunk.len() as u64 > self.left() {
            let (digest, size) = (&self.layer.digest, self.layer.size);
            let reason = format!("{digest} is longer than the {size} bytes it says");
            return Err(invalid(self.image, "layer", reason));
        }
        self.hasher.update(&chunk);
        self.file.write_all(&chunk).await.map_err(|error| self.disk(error))?;
        self.received += chunk.len() as u64;
        let is_watched = self.arrival.is_some_and(Arrival::is_watched);
        if is_watched || self.received - self.told >= TELL_EVERY_BYTES {
            self.tell().await?;
        }
        Ok(())
    }

    /// Tells who reads with it what is in the file.
    async fn tell(&mut self) -> Result<(), PullError> {
        if let Some(arrival) = self.arrival {
            self.file.flush().await.map_err(|error| self.disk(error))?;
            arrival.reached(self.received);
            self.told = self.received;
        }
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        self.hasher = Hasher::new();
        (self.received, self.told) = (0, 0);
        if let Some(arrival) = self.arrival {
            arrival.reached(0);
        }
        Ok(())
    }

    async fn finish(mut self) -> io::Result<Digest> {
        self.file.flush().await?;
        Ok(self.hasher.finish())
    }

    fn disk(&self, error: io::Error) -> PullError {
        PullError::disk(self.image, self.path, error)
    }
}
