//! Asks the cloud for the pool's part, when it is due.

use std::sync::PoisonError;

use tokio::time::{Instant, sleep_until};
use toono_wire::{
    path,
    pool::{Hub, Version},
};

use super::{Due, Pool};
use crate::{cloud::Cloud, join::chain, retry};

impl Pool {
    pub(super) async fn follow_cloud(&self, cloud: &Cloud) {
        loop {
            let unless = self.until_due().await;
            if unless == Some(self.version().digest) {
                continue;
            }
            if let Err(reason) = self.ask_once(cloud).await {
                tracing::debug!(reason, "cannot fetch the pool's part");
                // The cloud asks again, in its time.
                self.ask_cloud(retry::unasked(), unless);
            }
        }
    }

    /// Until it is time to ask; it is not due any more then. By what digest of the part it is not necessary.
    async fn until_due(&self) -> Option<u64> {
        loop {
            let due = *self.inner.due.lock().unwrap_or_else(PoisonError::into_inner);
            let at = due.map_or_else(Instant::now, |due| due.at);
            tokio::select! {
                () = sleep_until(at), if due.is_some() => {
                    let mut due = self.inner.due.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(Due { unless, .. }) = due.take_if(|due| due.at <= Instant::now()) {
                        return unless;
                    }
                }
                () = self.inner.due_changed.notified() => {}
            }
        }
    }

    async fn ask_once(&self, cloud: &Cloud) -> Result<(), String> {
        let Version { revision, digest } = self.held().asks_since();
        let target = format!("{}?since={revision}&digest={digest:x}", path::POOL);
        let fetched = cloud.fetch_bytes(&target).await;
        let (headers, frames) = fetched.map_err(|error| chain(&error))?;
        let length = frames.len();
        self.take(frames).map_err(|error| chain(&error))?;
        let now = self.version().revision;
        tracing::debug!(since = revision, revision = now, bytes = length, "the pool's part");
        let named = headers.get(path::HUB_HEADER);
        let named = named.and_then(|hub| serde_json::from_slice::<Hub>(hub.as_bytes()).ok());
        if named != *self.inner.hub.borrow() {
            self.inner.bundle_wanted.notify_one();
        }
        Ok(())
    }
}
