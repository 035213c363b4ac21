//! Fetches the bundle when the cloud says that there is a newer one, and puts it on disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc};
use toono_wire::{bundle::Bundle, path};

use crate::{bundles::Bundles, cloud::Cloud, join::chain, retry::Retry};

/// Shared by those who hear of revisions and the one who fetches.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bundles: Mutex<Bundles>,
    wanted: Notify,
    online: Notify,
}

impl Sync {
    pub(crate) fn new(bundles: Bundles) -> Self {
        let inner =
            Inner { bundles: Mutex::new(bundles), wanted: Notify::new(), online: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn bundles(&self) -> MutexGuard<'_, Bundles> {
        self.inner.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision on disk.
    pub(crate) fn revision(&self) -> u64 {
        self.bundles().revision()
    }

    /// The cloud has another revision than the one on disk.
    pub(crate) fn fetch(&self) {
        self.inner.wanted.notify_one();
        self.inner.online.notify_waiters();
    }

    /// What is on disk is not what it should be: everything is fetched anew.
    pub(crate) fn fetch_all(&self) {
        self.bundles().distrust();
        self.fetch();
    }

    /// Fetches whenever it is asked, and hands on what changed once it is on disk.
    pub(crate) async fn run(self, cloud: Cloud, changed: mpsc::Sender<Vec<Pod>>) {
        let mut retry = Retry::default();
        loop {
            self.inner.wanted.notified().await;
            loop {
                match self.fetch_once(&cloud).await {
                    Ok(pods) => {
                        retry.reset();
                        if changed.send(pods).await.is_err() {
                            return;
                        }
                        break;
                    }
                    Err(reason) => {
                        let delay = retry.delay();
                        tracing::debug!(reason, ?delay, "cannot fetch the bundle");
                        tokio::select! {
                            () = tokio::time::sleep(delay) => {}
                            () = self.inner.online.notified() => {}
                        }
                    }
                }
            }
        }
    }

    async fn fetch_once(&self, cloud: &Cloud) -> Result<Vec<Pod>, String> {
        let since = self.revision();
        let target = format!("{}?since={since}", path::BUNDLE);
        let bundle: Bundle = cloud.fetch(&target).await.map_err(|error| chain(&error))?;
        tracing::debug!(since, revision = bundle.revision, pods = bundle.pods.len(), "bundle");
        self.bundles().store(&bundle).map_err(|error| chain(&error))
    }
}
