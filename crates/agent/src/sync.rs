//! Fetches the bundle when the cloud says that there is a newer one, and puts it on disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use toono_wire::{bundle::Bundle, path};

use crate::{
    bundles::{Bundles, News},
    cloud::Cloud,
    join::chain,
    pool::Pool,
    retry,
};

/// Shared by those who hear of revisions and the one who fetches.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bundles: Mutex<Bundles>,
    pool: Pool,
    wanted: Mutex<Wanted>,
    asked: Notify,
}

/// What the cloud has asked for and not got.
#[derive(Debug, Default)]
struct Wanted {
    /// A bundle of this revision at least; 0 for none.
    revision: u64,
    /// A comparison, whatever the revision.
    compare: bool,
}

impl Sync {
    pub(crate) fn new(bundles: Bundles, pool: Pool) -> Self {
        let (bundles, wanted) = (Mutex::new(bundles), Mutex::default());
        Self { inner: Arc::new(Inner { bundles, pool, wanted, asked: Notify::new() }) }
    }

    pub(crate) fn bundles(&self) -> MutexGuard<'_, Bundles> {
        self.inner.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision on disk.
    pub(crate) fn revision(&self) -> u64 {
        self.bundles().revision()
    }

    /// The revision on disk, and the digest that came with it.
    pub(crate) fn observed(&self) -> (u64, u32) {
        let bundles = self.bundles();
        (bundles.revision(), bundles.digest())
    }

    /// The cloud has this revision for the node.
    pub(crate) fn desired(&self, revision: u64) {
        if revision > self.revision() {
            let mut wanted = self.wanted();
            wanted.revision = wanted.revision.max(revision);
            drop(wanted);
            self.inner.asked.notify_one();
        }
    }

    /// What is on disk is not what the cloud means it to be.
    pub(crate) fn compare(&self) {
        self.wanted().compare = true;
        self.inner.asked.notify_one();
    }

    /// What is on disk is not what it should be: everything is fetched anew.
    pub(crate) fn fetch_all(&self) {
        self.bundles().distrust();
        self.compare();
    }

    fn is_due(&self) -> bool {
        let held = self.revision();
        let wanted = self.wanted();
        wanted.compare || wanted.revision > held
    }

    /// Fetches whenever it is asked, and hands on what changed once it is on disk.
    pub(crate) async fn run(self, cloud: Cloud, changed: mpsc::Sender<News>) {
        loop {
            while !self.is_due() {
                tokio::select! {
                    () = self.inner.asked.notified() => {}
                    () = self.inner.pool.wants_bundle() => self.wanted().compare = true,
                }
            }
            match self.fetch_once(&cloud).await {
                Ok(news) => {
                    if changed.send(news).await.is_err() {
                        return;
                    }
                }
                Err(reason) => {
                    tracing::debug!(reason, "cannot fetch the bundle");
                    // The cloud asks again, in its time.
                    let asked = self.inner.asked.notified();
                    let _ = timeout(retry::unasked(), asked).await;
                }
            }
        }
    }

    async fn fetch_once(&self, cloud: &Cloud) -> Result<News, String> {
        let (since, asked) = (self.revision(), self.wanted().revision);
        let mut bundle = fetch(cloud, since).await?;
        if since > 0 && !self.bundles().fits(&bundle) {
            tracing::info!(since, revision = bundle.revision, "the whole bundle is due");
            bundle = fetch(cloud, 0).await?;
        }
        bundle.pool.take().into_iter().for_each(|news| self.inner.pool.hear(news));
        let news = self.bundles().store(&bundle).map_err(|error| chain(&error))?;
        let mut wanted = self.wanted();
        wanted.compare = false;
        // What was asked for meanwhile is still to come; what is less than was asked is not asked for by itself.
        if wanted.revision == asked {
            wanted.revision = 0;
        }
        Ok(news)
    }
}

async fn fetch(cloud: &Cloud, since: u64) -> Result<Bundle, String> {
    let target = format!("{}?since={since}", path::BUNDLE);
    let bundle: Bundle = cloud.fetch(&target).await.map_err(|error| chain(&error))?;
    tracing::debug!(since, revision = bundle.revision, pods = bundle.pods.len(), "bundle");
    Ok(bundle)
}
