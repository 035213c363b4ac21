//! Blobs from neighbours: the seam to whoever knows some, and the transfer from them, which never makes a pull fail.
//!
//! What a neighbour sends is a layer as the registry has it, so a transfer may begin here and end there. It is
//! believed only when the whole has its digest. Documents are always asked of the registry, with the puller's own
//! credentials: only who was shown the manifest can name a layer.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};
use toono_http::Body;

use crate::{digest::Digest, download::Download, error::PullError};

/// Neighbours that may fail before the registry is asked: each may cost a timeout.
const MOST_FAILURES: usize = 4;
/// A neighbour that sends nothing for so long is asked again whether it is there.
const PROBE_AFTER: Duration = Duration::from_secs(10);
/// One that is there and sends nothing for so long is left: its own link may be broken, and no longer than a
/// registry would be waited for.
pub const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for a neighbour that has time.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// For so long neighbours may be busy; they send to others what would come over the WAN otherwise.
const BUSY_PATIENCE: Duration = Duration::from_secs(300);
/// Of a layer that does not fit its digest, how often it may have come from neighbours.
const MOST_LIES: usize = 2;

/// What the methods of [`Neighbours`] return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Those near who may have blobs. None of it may fail: who knows nobody says so.
pub trait Neighbours: fmt::Debug + Send + Sync {
    /// Who has a blob, or is about to have it. These have failed the asker. If there is nobody else, the asker is
    /// taken for who gets it for all.
    fn find<'a>(&'a self, blob: &'a Digest, failed: &'a [String]) -> Answer<'a, Found>;

    /// The blob from an offset on, from one of them.
    fn open<'a>(
        &'a self,
        neighbour: &'a str,
        blob: &'a Digest,
        offset: u64,
    ) -> Answer<'a, Result<Body, NotServed>>;

    /// The blob is here for others, or is not going to be though [`Found::keep`] asked for it.
    fn settled(&self, blob: &Digest, is_here: bool);

    /// What this one sent is not what it should be.
    fn lied(&self, neighbour: &str);
}

/// Who has a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Whom to ask, in this order.
    pub from: Vec<String>,
    /// The blob is to be kept for others.
    pub keep: bool,
}

/// Why a neighbour does not send a blob.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// It has it, but sends to others now.
    #[error("it is busy")]
    Busy,
    /// It does not have it, or cannot be reached.
    #[error("{0}")]
    Failed(String),
}

/// One blob's transfer from neighbours.
pub(crate) struct Near {
    neighbours: Arc<dyn Neighbours>,
    blob: Digest,
    failed: Vec<String>,
    /// Who sent some of what is here.
    senders: Vec<String>,
    lies: usize,
    /// Others were told that it will be here.
    promised: bool,
}

/// What came of one neighbour.
enum Taken {
    Whole,
    Busy,
    Failed,
}

impl Near {
    pub(crate) fn new(neighbours: Arc<dyn Neighbours>, blob: Digest) -> Self {
        let (failed, senders) = (Vec::new(), Vec::new());
        Self { neighbours, blob, failed, senders, lies: 0, promised: false }
    }

    /// Takes what neighbours have. What is missing then is the registry's to send.
    ///
    /// # Errors
    /// Those of this node's disk alone.
    pub(crate) async fn fill(&mut self, download: &mut Download<'_>) -> Result<(), PullError> {
        let started = Instant::now();
        while !download.is_whole() && self.lies < MOST_LIES && self.failed.len() < MOST_FAILURES {
            let found = self.neighbours.find(&self.blob, &self.failed).await;
            self.promised |= found.keep;
            if found.from.is_empty() {
                break;
            }
            let failures = self.failed.len();
            for neighbour in found.from {
                match self.take_from(&neighbour, download).await? {
                    Taken::Whole => return Ok(()),
                    Taken::Busy => {}
                    Taken::Failed => self.failed.push(neighbour),
                }
            }
            if self.failed.len() == failures {
                if started.elapsed() > BUSY_PATIENCE {
                    break;
                }
                sleep(BUSY_PAUSE).await;
            }
        }
        download.comes_from(None);
        Ok(())
    }

    async fn take_from(
        &mut self,
        neighbour: &str,
        download: &mut Download<'_>,
    ) -> Result<Taken, PullError> {
        download.comes_from(Some(neighbour));
        let mut heard = Instant::now();
        loop {
            let opened = self.neighbours.open(neighbour, &self.blob, download.received());
            let mut body = match opened.await {
                Ok(body) => body,
                Err(NotServed::Busy) => return Ok(Taken::Busy),
                Err(reason) => return Ok(self.failed(neighbour, &reason)),
            };
            while !download.is_whole() {
                let chunk = match timeout(PROBE_AFTER, body.frame()).await {
                    Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                    Ok(Some(Err(error))) => return Ok(self.failed(neighbour, &error)),
                    Ok(None) => return Ok(self.failed(neighbour, &"it ended early")),
                    Err(_) => break,
                };
                if chunk.len() as u64 > download.left() {
                    self.neighbours.lied(neighbour);
                    return Ok(self.failed(neighbour, &"it sent more than there is"));
                }
                if !self.senders.iter().any(|sender| sender == neighbour) {
                    self.senders.push(neighbour.to_owned());
                }
                heard = Instant::now();
                download.append(chunk).await?;
            }
            if download.is_whole() {
                return Ok(Taken::Whole);
            }
            if heard.elapsed() > NEIGHBOUR_PATIENCE {
                return Ok(self.failed(neighbour, &"nothing came for a minute"));
            }
        }
    }

    fn failed(&self, neighbour: &str, reason: &dyn fmt::Display) -> Taken {
        tracing::debug!(neighbour, blob = %self.blob, %reason, "a neighbour does not send a layer");
        Taken::Failed
    }

    /// What has arrived does not have its digest. Whether a neighbour sent some of it, so that it is to be
    /// transferred once more.
    pub(crate) fn is_to_blame(&mut self) -> bool {
        let senders = std::mem::take(&mut self.senders);
        let any = !senders.is_empty();
        for sender in senders {
            tracing::warn!(neighbour = sender, blob = %self.blob, "what a neighbour sent is damaged");
            self.neighbours.lied(&sender);
            if !self.failed.contains(&sender) {
                self.failed.push(sender);
            }
        }
        self.lies += usize::from(any);
        any
    }

    /// Whether others were told that the blob will be here.
    pub(crate) fn is_promised(&self) -> bool {
        self.promised
    }

    /// It is here for others now.
    pub(crate) fn keeps_promise(&mut self) {
        self.promised = false;
        self.neighbours.settled(&self.blob, true);
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        if self.promised {
            self.neighbours.settled(&self.blob, false);
        }
    }
}
