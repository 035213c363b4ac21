//! Fetches the bundle when the cloud says that there is a newer one, and puts it on disk.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use toono_wire::{bundle::Bundle, path, report::EventReport};

use crate::{
    bundles::{Bundles, News, Refused},
    cloud::Cloud,
    join::chain,
    pool::Pool,
    retry,
    stats::disk::Space,
    worker::Node,
};

/// While the disk is full it is looked so often whether it still is.
const FULL_PAUSE: Duration = Duration::from_secs(10);
/// With less there is no use in another try: a pod's files and directory are five blocks.
const LEAST_ROOM_BYTES: u64 = 64 << 10;

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
    pub(crate) async fn run(self, node: Arc<Node>, cloud: Cloud, changed: mpsc::Sender<News>) {
        let mut told = BTreeSet::new();
        loop {
            while !self.is_due() {
                tokio::select! {
                    () = self.inner.asked.notified() => {}
                    () = self.inner.pool.wants_bundle() => self.wanted().compare = true,
                }
            }
            match self.fetch_once(&cloud).await {
                Ok((revision, mut news)) => {
                    let refused = std::mem::take(&mut news.refused);
                    if changed.send(news).await.is_err() {
                        return;
                    }
                    if refused.is_empty() {
                        told.clear();
                    } else {
                        tell(&node, refused, &mut told);
                        self.until_room(&node, revision).await;
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

    /// Waits until what the disk refused may be tried again, or the cloud has something newer than that.
    async fn until_room(&self, node: &Node, revision: u64) {
        loop {
            let _ = timeout(FULL_PAUSE, self.inner.asked.notified()).await;
            let has_room = Space::of(&node.data).available >= LEAST_ROOM_BYTES;
            let mut wanted = self.wanted();
            if has_room || wanted.revision > revision {
                wanted.compare = true;
                return;
            }
        }
    }

    /// The bundle's revision, and what it brought.
    async fn fetch_once(&self, cloud: &Cloud) -> Result<(u64, News), String> {
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
        Ok((bundle.revision, news))
    }
}

/// Says once of each pod that the disk has no room for it.
fn tell(node: &Node, refused: Vec<Refused>, told: &mut BTreeSet<String>) {
    for Refused { pod, reason } in refused {
        tracing::warn!(reason, "the disk is full");
        let Some((namespace, pod, pod_uid)) = pod else { continue };
        if told.insert(pod_uid.clone()) {
            node.outbox.events(vec![EventReport {
                namespace,
                pod,
                pod_uid,
                field_path: String::new(),
                kind: "Warning".to_owned(),
                reason: "OutOfDisk".to_owned(),
                message: format!("The node's disk is full, the pod waits for room: {reason}"),
                at: node.clock.now().wall.to_string(),
            }]);
        }
    }
}

async fn fetch(cloud: &Cloud, since: u64) -> Result<Bundle, String> {
    let target = format!("{}?since={since}", path::BUNDLE);
    let bundle: Bundle = cloud.fetch(&target).await.map_err(|error| chain(&error))?;
    tracing::debug!(since, revision = bundle.revision, pods = bundle.pods.len(), "bundle");
    Ok(bundle)
}
