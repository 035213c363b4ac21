//! What all nodes of the pool must know, on this node: fetched from the cloud, or from the pool's hub, or, if
//! this node is the hub, handed on to its neighbours.
//!
//! The cloud is asked when it says that there is something new, and when the hub cannot be had or tells
//! something else than the cloud signed.

mod cloud;
mod follower;
mod health;
mod held;
mod hub;
mod layers;
mod neighbour;
mod sight;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout_at},
};
use toono_net::Cidr;
use toono_pki::CaKeys;
use toono_wire::pool::{
    Hub, NodeRecord, PoolNews, Records, Touched, Version, near::Vantage, node_key,
};

use self::{
    follower::Followers,
    held::{Held, Refused},
    sight::{Shown, Sight},
};
pub(crate) use self::{
    follower::{Follower, Touch},
    health::Health,
    layers::Layers,
};
use crate::{
    AgentError,
    cloud::Cloud,
    identity::{Credentials, Identity},
    join::chain,
    retry,
};

/// The part is put on disk so long after it was the last time: a rollout must not wear out a flash disk. What a
/// power cut takes is fetched again.
const SAVE_AFTER: Duration = Duration::from_secs(10);
/// A node without a part asks for it within this after its start.
const FIRST: Duration = Duration::from_secs(2);
/// How long after the start of a node that has no part containers wait for one.
const PART_PATIENCE: Duration = Duration::from_secs(10);
/// What the hub is given to tell what the cloud told it, and up to as much again.
const HUB_PATIENCE: Duration = Duration::from_secs(3);

/// The part, shared by those who hear of it, fetch it and hand it on.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    ca_pem: String,
    credentials: Credentials,
    held: Mutex<Held>,
    /// What is held, for those who wait for another.
    version: watch::Sender<Version>,
    hub: watch::Sender<Option<Hub>>,
    due: Mutex<Option<Due>>,
    due_changed: Notify,
    /// The bundle is to be fetched, which says who the hub is and what it wants to see.
    bundle_wanted: Notify,
    /// The hub is listened to.
    listens: AtomicBool,
    followers: Followers,
    /// Those who are told what the cloud changes, and not what this node sees.
    followers_of_cloud: Followers,
    /// Until then containers wait for the part, which tells them of Services.
    waits_until: Instant,
}

/// When the cloud is to be asked.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    /// It need not be, if the part has this digest by then.
    unless: Option<u64>,
}

impl Pool {
    /// What is on disk.
    pub(crate) fn load(data: &Path, credentials: &Credentials) -> Result<Self, AgentError> {
        let ca_pem = credentials.ca_pem();
        let held = Held::load(data, CaKeys::of_pem(&ca_pem)?)?;
        let (version, news) = (held.version(), held.news().cloned());
        let pool = Self {
            inner: Arc::new(Inner {
                name: credentials.name(),
                ca_pem,
                credentials: credentials.clone(),
                held: Mutex::new(held),
                version: watch::channel(version).0,
                hub: watch::channel(None).0,
                due: Mutex::default(),
                due_changed: Notify::new(),
                bundle_wanted: Notify::new(),
                listens: false.into(),
                followers: Followers::default(),
                followers_of_cloud: Followers::default(),
                waits_until: Instant::now() + PART_PATIENCE,
            }),
        };
        let hub = news.as_ref().and_then(|news| news.hub.clone());
        if version == Version::NONE {
            // A new node: its neighbour has it.
            let patience = HUB_PATIENCE + retry::jittered(HUB_PATIENCE);
            let after = if hub.is_some() { patience } else { retry::jittered(FIRST) };
            pool.ask_cloud(after, news.map(|news| news.version.digest));
        }
        pool.set_hub(hub);
        Ok(pool)
    }

    /// Keeps what the cloud said when the node joined.
    pub(crate) fn learn(
        data: &Path,
        identity: &Identity,
        news: PoolNews,
    ) -> Result<(), AgentError> {
        let mut held = Held::load(data, CaKeys::of_pem(&identity.ca_pem)?)?;
        held.hear(news);
        held.save().map(drop)
    }

    /// What the node has.
    pub(crate) fn version(&self) -> Version {
        *self.inner.version.borrow()
    }

    /// Who is told what changes among the records, beginning with all of them.
    pub(crate) fn follow(&self) -> Follower {
        self.inner.followers.follow()
    }

    /// The same for what the cloud said, and nothing else.
    fn follow_cloud_alone(&self) -> Follower {
        self.inner.followers_of_cloud.follow()
    }

    /// Reads the records as the cloud signed them.
    fn read_signed<T>(&self, reader: impl FnOnce(&Records) -> T) -> T {
        reader(self.held().signed())
    }

    /// What the pool's nodes know each other by.
    fn key(&self) -> Option<Vec<u8>> {
        let key = self.held().news()?.key.clone()?;
        let byte = |at: usize| u8::from_str_radix(key.get(at..at + 2)?, 16).ok();
        (0..key.len()).step_by(2).map(byte).collect()
    }

    /// The pod networks of a node.
    fn pods_of(&self, node: &str) -> Vec<Cidr> {
        let record = self.read_signed(|records| records.get(&node_key(node)).cloned());
        let record = record.and_then(|text| serde_json::from_str::<NodeRecord>(&text).ok());
        let cidrs = record.unwrap_or_default().pod_cidrs;
        cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect()
    }

    /// Something else is seen of a node. Whether that makes a difference to any endpoint.
    fn see(&self, node: &str, sight: Option<Sight>) -> bool {
        self.show(|shown, signed| shown.see(signed, node, sight))
    }

    /// The cloud can be asked, or cannot.
    fn cut_off(&self, is_cut_off: bool) {
        self.show(|shown, signed| shown.cut_off(signed, is_cut_off));
    }

    fn is_cut_off(&self) -> bool {
        self.held().shown().0.is_cut_off()
    }

    fn show(&self, change: impl FnOnce(&mut Shown, &Records) -> Vec<Arc<str>>) -> bool {
        let mut held = self.held();
        let (shown, signed) = held.shown();
        let changed = change(shown, signed);
        drop(held);
        let is_other = !changed.is_empty();
        if is_other {
            self.inner.followers.tell(&[Touched::Keys(changed)]);
        }
        is_other
    }

    /// Where this node is, as the cloud said last.
    pub(crate) fn vantage(&self) -> Vantage {
        let held = self.held();
        let node = self.inner.name.clone();
        let pool = held.news().map(|news| news.name.clone()).unwrap_or_default();
        let own = held.records().get(&node_key(&node));
        let own = own.and_then(|text| serde_json::from_str::<NodeRecord>(text).ok());
        Vantage { node, pool, zone: own.unwrap_or_default().zone }
    }

    /// Reads the records. Nothing else goes on meanwhile.
    pub(crate) fn read<T>(&self, reader: impl FnOnce(&Records) -> T) -> T {
        reader(self.held().records())
    }

    /// Completes when there is a part, or when none came for so long that it is not waited for any more.
    pub(crate) async fn known(&self) {
        let mut version = self.inner.version.subscribe();
        // A cloud that has told nothing of a part has none.
        let is_to_come = self.held().news().is_some_and(|news| news.version != Version::NONE);
        if is_to_come {
            let known = version.wait_for(|version| *version != Version::NONE);
            let _ = timeout_at(self.inner.waits_until, known).await;
        }
    }

    /// What the node has, and every change of it.
    pub(crate) fn versions(&self) -> watch::Receiver<Version> {
        self.inner.version.subscribe()
    }

    /// The text of a record.
    pub(crate) fn record(&self, key: &str) -> Option<Arc<str>> {
        self.read(|records| records.get(key).cloned())
    }

    /// The cloud pokes: the part is another one now. Who is poked is not to wait for a hub.
    pub(crate) fn moved(&self, revision: u64) {
        if revision != self.version().revision {
            self.ask_cloud(Duration::ZERO, None);
        }
    }

    /// What the cloud says with a bundle.
    pub(crate) fn hear(&self, news: PoolNews) {
        let (hub, version) = (news.hub.clone(), news.version);
        let pool = news.name.clone();
        let moves = self.vantage().pool != pool;
        if self.held().hear(news) || moves {
            self.inner.followers_of_cloud.tell(&[Touched::All]);
        }
        if moves {
            self.inner.followers.tell(&[Touched::All]);
        }
        self.set_hub(hub);
        if version.digest != self.version().digest {
            let listens = self.inner.listens.load(Ordering::Relaxed);
            let patience = HUB_PATIENCE + retry::jittered(HUB_PATIENCE);
            let after = if listens { patience } else { Duration::ZERO };
            self.ask_cloud(after, Some(version.digest));
        }
    }

    /// Completes when the bundle is to be fetched for what it says of the pool.
    pub(crate) async fn wants_bundle(&self) {
        self.inner.bundle_wanted.notified().await;
    }

    /// For as long as the agent lives.
    pub(crate) async fn run(self, cloud: Cloud) {
        tokio::join!(
            self.follow_cloud(&cloud),
            self.follow_hub(),
            self.serve_neighbours(),
            self.keep_on_disk()
        );
    }

    async fn keep_on_disk(&self) {
        let mut version = self.inner.version.subscribe();
        let mut hub = self.inner.hub.subscribe();
        loop {
            let saved = self.held().save();
            if let Err(error) = &saved {
                tracing::warn!(error = chain(error), "the pool's part is not on disk");
            }
            // What a new node hears first is not to wait.
            let pause = if matches!(saved, Ok(false)) { Duration::ZERO } else { SAVE_AFTER };
            let next = Instant::now() + pause;
            tokio::select! {
                changed = version.changed() => if changed.is_err() { return },
                changed = hub.changed() => if changed.is_err() { return },
            }
            sleep_until(next).await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes frames, from wherever.
    fn take(&self, frames: Bytes) -> Result<(), Refused> {
        let mut held = self.held();
        let taken = held.take(frames);
        let (version, touched) = (held.version(), held.take_touched());
        drop(held);
        self.inner.followers.tell(&touched);
        self.inner.followers_of_cloud.tell(&touched);
        self.inner.version.send_if_modified(|known| std::mem::replace(known, version) != version);
        taken.map(drop)
    }

    fn set_hub(&self, hub: Option<Hub>) {
        let serves = hub.as_ref().is_some_and(|hub| hub.node == self.inner.name);
        let mut held = self.held();
        held.serve(serves);
        let lacks = serves && held.asks_since() == Version::NONE;
        drop(held);
        if lacks {
            self.ask_cloud(Duration::ZERO, None);
        }
        self.inner.hub.send_if_modified(|known| {
            let changed = *known != hub;
            *known = hub;
            changed
        });
    }

    /// Has the cloud asked after this time, or sooner; not if the part has that digest by then, and nothing else
    /// is a reason to ask.
    fn ask_cloud(&self, after: Duration, unless: Option<u64>) {
        let new = Due { at: Instant::now() + after, unless };
        let mut due = self.inner.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = Some(due.map_or(new, |old| Due {
            at: old.at.min(new.at),
            unless: old.unless.filter(|digest| new.unless == Some(*digest)),
        }));
        drop(due);
        self.inner.due_changed.notify_one();
    }

    /// Whether this node serves its pool.
    fn is_hub(&self, hub: Option<&Hub>) -> bool {
        hub.is_some_and(|hub| hub.node == self.inner.name)
    }
}
