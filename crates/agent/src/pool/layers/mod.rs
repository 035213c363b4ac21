//! Layers of images go from node to node of a pool, so that each crosses the WAN once.
//!
//! For each layer two nodes of the pool, found by rendezvous hashing of its digest over the nodes' records, note who
//! has it. Who needs it asks the first of them that answers: it is told whom to get it from, or else is noted as the
//! one who gets it from the registry, and others get it from there while it still arrives. Notes are memory, told
//! again each hour and to both, so that no node matters; what they do not know costs one more transfer over the WAN.
//!
//! Who may: a node shows its certificate and the cloud's word that it is of the pool, as to the hub, over TLS. A layer
//! is then named by the digest of its bytes, which only a manifest tells, and a manifest comes only from the registry,
//! for the pull secret of the pod that wants it: who can name a private layer was let in by the registry. No
//! secret goes to a neighbour, and none is asked to pull for another. What neighbours send is believed for its digest.

mod peers;
mod server;
#[cfg(test)]
mod tests;
mod tracker;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use toono_http::Body;
use toono_images::{Answer, Digest, Found, ImageStore, Neighbours, NotServed};
use toono_wire::pool::{LAYERS_PORT, record_digest};

use self::{peers::Health, server::Pace, tracker::Tracker};
use super::Pool;
use crate::retry;

/// What is kept is told so often: a tracker that was started anew knows it again within this.
const TELL_EVERY: Duration = Duration::from_secs(60 * 60);
/// What is kept is first told within this after the start: nodes of a site start together after a power cut.
const FIRST_TELL: Duration = Duration::from_secs(30);
/// Nodes that note who has a layer.
const TRACKERS: usize = 2;
/// Nodes that are tried until one of them answers as a tracker; each may cost a timeout.
const MOST_TRIED: usize = 3;
/// Layers that are sent at once: each has some 200 KiB of buffers.
const MOST_UPLOADS: usize = 16;
/// What a node's records' keys begin with.
const NODES: &str = "node/";

/// The layers of the pool, as this node knows of them.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    store: ImageStore,
    port: u16,
    tracker: Mutex<Tracker>,
    health: Mutex<Health>,
    uploads: Arc<Semaphore>,
    pace: Pace,
}

impl Layers {
    /// Has a store ask the pool's other nodes.
    pub(crate) fn join(pool: Pool, store: ImageStore) -> Self {
        Self::at(pool, store, LAYERS_PORT)
    }

    fn at(pool: Pool, store: ImageStore, port: u16) -> Self {
        let inner = Arc::new(Inner {
            pool,
            store: store.clone(),
            port,
            tracker: Mutex::default(),
            health: Mutex::default(),
            uploads: Arc::new(Semaphore::new(MOST_UPLOADS)),
            pace: Pace::default(),
        });
        let layers = Self { inner };
        store.ask(Arc::new(layers.clone()));
        layers
    }

    /// Serves the neighbours for as long as the agent lives.
    pub(crate) async fn run(self) {
        tokio::join!(self.serve(), self.tell_again());
    }

    async fn tell_again(&self) {
        self.inner.pool.known().await;
        sleep(retry::jittered(FIRST_TELL)).await;
        loop {
            let kept = self.inner.store.kept_blobs().unwrap_or_default();
            if self.is_pooled() {
                self.tell(&kept, true).await;
            }
            sleep(TELL_EVERY / 2 + retry::jittered(TELL_EVERY / 2)).await;
        }
    }

    /// Tells the trackers of these blobs that they are here, or that they are not.
    async fn tell(&self, blobs: &[Digest], are_here: bool) {
        let mut told: BTreeMap<String, Vec<&Digest>> = BTreeMap::new();
        for blob in blobs {
            for tracker in self.ranked(blob).into_iter().take(TRACKERS) {
                told.entry(tracker).or_default().push(blob);
            }
        }
        for (tracker, blobs) in told {
            if tracker == self.own() {
                let own = self.own().to_owned();
                blobs.iter().for_each(|blob| self.note(&own, blob, are_here));
            } else if let Err(reason) = self.tell_one(&tracker, &blobs, are_here).await {
                tracing::debug!(tracker, reason, "it is not told which layers are here");
            }
        }
    }

    /// What a node tells of itself.
    fn note(&self, node: &str, blob: &Digest, has_it: bool) {
        if self.inner.pool.record(&toono_wire::pool::node_key(node)).is_some() {
            self.tracker().note(blob, node, has_it, Instant::now());
        }
    }

    /// As a tracker: who has a blob, and what the asker is to do. Without `claims` it only looks.
    fn sources(&self, asker: &str, blob: &Digest, failed: &[String], claims: bool) -> Found {
        let (is_known, nodes) = self.inner.pool.read(|records| {
            (
                records.get(&toono_wire::pool::node_key(asker)).is_some(),
                records.below(NODES).count(),
            )
        });
        let copies = if claims && is_known { tracker::copies(nodes) } else { 0 };
        self.tracker().find(blob, asker, failed, copies, Instant::now())
    }

    async fn ask_trackers(&self, blob: &Digest, failed: &[String]) -> Found {
        let mut granted = None;
        for tracker in self.ranked(blob).into_iter().take(MOST_TRIED) {
            let claims = granted.is_none();
            let found = if tracker == self.own() {
                Ok(self.sources(&tracker, blob, failed, claims))
            } else {
                self.ask_one(&tracker, blob, failed, claims).await
            };
            match found {
                Ok(found) if !found.from.is_empty() => {
                    let keep = granted.is_some() || found.keep;
                    return Found { keep, ..found };
                }
                // The next one may know what this one has forgotten.
                Ok(found) if granted.is_none() => granted = Some(found),
                Ok(_) => break,
                Err(reason) => tracing::debug!(tracker, reason, "it does not say who has a layer"),
            }
        }
        granted.unwrap_or_default()
    }

    /// The nodes of the pool that are not known to be away, those first that track this blob.
    fn ranked(&self, blob: &Digest) -> Vec<String> {
        let hex = blob.hex();
        let mut ranked: Vec<(u64, String)> = self.inner.pool.read(|records| {
            let names = records.below(NODES).filter_map(|(key, _)| key.strip_prefix(NODES));
            names.map(|name| (record_digest(&hex, name), name.to_owned())).collect()
        });
        ranked.sort();
        let (health, now) = (self.health(), Instant::now());
        let names = ranked.into_iter().map(|(_, name)| name);
        names.filter(|name| health.is_well(name, now)).collect()
    }

    fn own(&self) -> &str {
        &self.inner.pool.inner.name
    }

    /// Whether there is anybody to ask.
    fn is_pooled(&self) -> bool {
        self.inner.pool.held().news().is_some_and(|news| !news.name.is_empty())
    }

    fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.inner.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.inner.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Neighbours for Layers {
    fn find<'a>(&'a self, blob: &'a Digest, failed: &'a [String]) -> Answer<'a, Found> {
        Box::pin(async move {
            if !self.is_pooled() {
                return Found::default();
            }
            let mut found = self.ask_trackers(blob, failed).await;
            let (health, now) = (self.health(), Instant::now());
            found.from.retain(|name| name != self.own() && health.is_well(name, now));
            found
        })
    }

    fn open<'a>(
        &'a self,
        neighbour: &'a str,
        blob: &'a Digest,
        offset: u64,
    ) -> Answer<'a, Result<Body, NotServed>> {
        Box::pin(self.fetch(neighbour, blob, offset))
    }

    fn settled(&self, blob: &Digest, is_here: bool) {
        let (layers, blob) = (self.clone(), blob.clone());
        // It may be called outside of the runtime's own threads, where a store is dropped.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { layers.tell(&[blob], is_here).await });
        }
    }

    fn lied(&self, neighbour: &str) {
        self.health().lied(neighbour, Instant::now());
    }
}
