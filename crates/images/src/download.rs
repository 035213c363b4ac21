//! Transfers one layer into a file that outlives a broken link, a failed pull and the daemon.
//!
//! `partial/<hex>` is what has arrived of the blob with that digest, from its start on. Nothing says how
//! much of it is right: it is hashed when it is taken up, and thrown away when the whole does not fit.

use std::{
    io,
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
    manifest::Descriptor,
    pull::invalid,
    reference::ImageRef,
    registry::{IDLE_TIMEOUT, Registry},
    space::Space,
};

/// How often a layer's transfer is taken up again after it broke. Each attempt goes on where the
/// last one ended, so many attempts cost little on a link that breaks often.
pub const DOWNLOAD_ATTEMPTS: u32 = 8;
/// The pause before the second attempt; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// What is read at once of a file that is taken up.
const READ_BYTES: usize = 64 << 10;

/// A layer's file and what is known of it so far.
struct Download<'a> {
    image: &'a ImageRef,
    layer: &'a Descriptor,
    path: &'a Path,
    file: File,
    hasher: Hasher,
    received: u64,
    /// Some of it was there before.
    resumed: bool,
}

/// Makes `path` the whole blob, checked.
pub(crate) async fn download(
    image: &ImageRef,
    registry: &mut Registry,
    layer: &Descriptor,
    path: PathBuf,
) -> Result<PathBuf, PullError> {
    loop {
        let mut download = Download::take_up(image, layer, &path)
            .await
            .map_err(|error| PullError::disk(image, &path, error))?;
        let resumed = download.resumed;
        download.check_room()?;
        download.complete(registry).await?;
        let got = download.finish().await.map_err(|error| PullError::disk(image, &path, error))?;
        if got == layer.digest {
            return Ok(path);
        }
        tokio::fs::remove_file(&path)
            .await
            .map_err(|error| PullError::disk(image, &path, error))?;
        // What was there before may have been torn by a power cut: the registry gets one chance of its own.
        if !resumed {
            return Err(PullError::Corrupted {
                image: Box::new(image.clone()),
                wanted: layer.digest.clone(),
                got,
            });
        }
        tracing::warn!(%image, layer = %layer.digest, "what was left of a transfer is damaged");
    }
}

impl<'a> Download<'a> {
    /// Opens the file and reads what is there.
    async fn take_up(
        image: &'a ImageRef,
        layer: &'a Descriptor,
        path: &'a Path,
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
        Ok(Self { image, layer, path, file, hasher, received, resumed: received > 0 })
    }

    fn check_room(&self) -> Result<(), PullError> {
        let needed = self.layer.size.saturating_sub(self.received);
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

    async fn append(&mut self, chunk: Bytes) -> Result<(), PullError> {
        let left = self.layer.size.saturating_sub(self.received);
        if chunk.len() as u64 > left {
            let (digest, size) = (&self.layer.digest, self.layer.size);
            let reason = format!("{digest} is longer than the {size} bytes it says");
            return Err(invalid(self.image, "layer", reason));
        }
        self.hasher.update(&chunk);
        self.file.write_all(&chunk).await.map_err(|error| self.disk(error))?;
        self.received += chunk.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        self.hasher = Hasher::new();
        self.received = 0;
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
