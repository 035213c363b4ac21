//! The fleet as the binary sees it: made once, run once, asked by the API server.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ring::rand::SecureRandom;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};
use toono_http::{Body, Handler};
use toono_pki::ClusterCa;
use toono_session::{BundleDigest, Fresh, NodeIndex, NodeUid, ServerSessions, Standing};
use toono_wire::referent::ReferentKind;

use crate::{
    Feed, FleetConfig, FleetLinkError, WatchFeed,
    accounts::{self, Accounts},
    bundles::Bundles,
    calls::Calls,
    events::Recorder,
    follow,
    leased::Leased,
    liveness,
    objects::NodeObject,
    parts::{self, Hubs, PoolParts, Versions},
    peers,
    pokes::Pokes,
    readiness, routes,
    secrets::Keeper,
    slots::Slots,
    sockets::Sockets,
    table::Table,
    tunnel::Tunnels,
    udp,
};

/// The cloud end of all nodes. Clones share everything.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

/// The fleet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The system gave no random numbers.
    #[error("the system's random number generator failed")]
    Random,
    /// [`FleetConfig::secrets`] is empty.
    #[error("no cluster secret is configured")]
    NoSecret,
}

pub(crate) struct Inner {
    pub(crate) config: FleetConfig,
    pub(crate) calls: Calls,
    pub(crate) ca: Arc<ClusterCa>,
    pub(crate) feed: Arc<dyn Feed>,
    started: Instant,
    state: Mutex<State>,
    /// Woken when [`State::pokes`] has something to send.
    pub(crate) poked: Notify,
    /// Woken when [`State::returned`] has someone.
    pub(crate) readiness: Notify,
    /// Whether all Nodes have been read, once.
    pub(crate) loaded: watch::Sender<bool>,
    /// Woken when there are other servers than before.
    pub(crate) peers: Notify,
    pub(crate) tunnels: Tunnels,
    pub(crate) recorder: Recorder,
    pub(crate) keeper: Keeper,
    pub(crate) sockets: Sockets,
    pub(crate) parts: PoolParts,
}

/// What the loops and requests share. Held for microseconds, never across an await.
pub(crate) struct State {
    pub(crate) table: Table,
    pub(crate) leased: Leased,
    pub(crate) bundles: Bundles,
    pub(crate) accounts: Accounts,
    pub(crate) pokes: Pokes,
    /// Members whose return is to be written; each is marked as being written, so it is here once.
    pub(crate) returned: Vec<NodeIndex>,
    pub(crate) slots: Slots,
    pub(crate) versions: Versions,
    pub(crate) hubs: Hubs,
    /// Joins that wait to see their Node come from the API, by its name.
    pub(crate) awaited: HashMap<String, mpsc::Sender<NodeUid>>,
}

impl Fleet {
    /// A fleet over the API that `client` reaches, reading in bulk by list and watch.
    ///
    /// # Errors
    /// Without a secret, or without randomness for this process' instance id.
    pub fn new(
        config: FleetConfig,
        client: kube::Client,
        ca: Arc<ClusterCa>,
    ) -> Result<Self, FleetError> {
        let feed = Arc::new(WatchFeed::new(client.clone()));
        Self::with_feed(config, client, ca, feed)
    }

    /// As [`new`](Self::new), with bulk reads from elsewhere.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_feed(
        config: FleetConfig,
        client: kube::Client,
        ca: Arc<ClusterCa>,
        feed: Arc<dyn Feed>,
    ) -> Result<Self, FleetError> {
        if config.secrets.is_empty() {
            return Err(FleetError::NoSecret);
        }
        // 0 means "no instance" on the wire.
        let instance = random_u64().ok_or(FleetError::Random)?.max(1);
        let sessions = ServerSessions::new(instance, config.secrets.clone());
        let state = State {
            table: Table::new(sessions),
            leased: Leased::default(),
            bundles: Bundles::default(),
            accounts: Accounts::default(),
            pokes: Pokes::default(),
            returned: Vec::new(),
            slots: Slots::default(),
            versions: Versions::default(),
            hubs: Hubs::default(),
            awaited: HashMap::new(),
        };
        let inner = Inner {
            config,
            calls: Calls(client),
            ca,
            feed,
            started: Instant::now(),
            state: Mutex::new(state),
            poked: Notify::new(),
            readiness: Notify::new(),
            loaded: watch::Sender::new(false),
            peers: Notify::new(),
            tunnels: Tunnels::default(),
            recorder: Recorder::default(),
            keeper: Keeper::default(),
            sockets: Sockets::default(),
            parts: PoolParts::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Answers requests below `/fleet/`. Each must carry a `toono_api::UserInfo` in its extensions.
    #[must_use]
    pub fn handler(&self) -> Handler {
        let inner = self.inner.clone();
        Arc::new(move |request| Box::pin(routes::answer(inner.clone(), request)))
    }

    /// Serves sessions on `socket` and follows the API until `shutdown` completes.
    pub async fn run(&self, socket: UdpSocket, shutdown: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        let sessions = udp::run(self.inner.clone(), socket);
        tasks.spawn(async move {
            if let Err(error) = sessions.await {
                tracing::error!(%error, "sessions are not served");
            }
        });
        tasks.spawn(follow::nodes(self.inner.clone(), self.inner.feed.nodes()));
        let mut read = Vec::new();
        let (config_maps, secrets) = (self.inner.feed.config_maps(), self.inner.feed.secrets());
        for (kind, all) in [(ReferentKind::ConfigMap, config_maps), (ReferentKind::Secret, secrets)]
        {
            let (tells, told) = oneshot::channel();
            tasks.spawn(follow::referents(self.inner.clone(), kind, all, tells));
            read.push(told);
        }
        let (tells, told) = oneshot::channel();
        tasks.spawn(accounts::follow(self.inner.clone(), tells));
        read.push(told);
        tasks.spawn(follow::pods(self.inner.clone(), read));
        let (services, slices) = (self.inner.feed.services(), self.inner.feed.endpoint_slices());
        tasks.spawn(parts::follow(self.inner.clone(), services, slices));
        tasks.spawn(parts::leaders(self.inner.clone(), self.inner.feed.node_pools()));
        tasks.spawn(parts::cue(self.inner.clone()));
        tasks.spawn(readiness::watch_over(self.inner.clone()));
        tasks.spawn(liveness::watch_over(self.inner.clone()));
        tasks.spawn(peers::tell_all(self.inner.clone()));
        tokio::select! {
            () = shutdown => {}
            // The loops do not end by themselves; a panic in one must not leave half a fleet.
            Some(ended) = tasks.join_next() => {
                tracing::error!(result = ?ended, "a loop of the fleet ended");
            }
        }
        tasks.shutdown().await;
    }

    /// Until the Nodes that there were at the start are known, so that their heartbeats are answered.
    pub async fn loaded(&self) {
        // The sender is this fleet's own.
        let _ = self.inner.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// Sends a request to a node through a tunnel that the node opens when asked to.
    ///
    /// # Errors
    /// When the node is unknown, does not dial back in time, or the tunnel breaks.
    pub async fn send(
        &self,
        node: &str,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, FleetLinkError> {
        crate::tunnel::send(&self.inner, node, request).await
    }
}

impl State {
    /// How what a member said last that it holds stands to what it should: of its own bundle, and of its pool's
    /// part.
    pub(crate) fn standing(&self, index: NodeIndex, fresh: &Fresh) -> Option<Standing> {
        let member = self.table.member(index)?;
        let share = self.versions.of(&member.pool).map_or(0, |part| part.share());
        let digest = BundleDigest(fresh.bundle_digest.wrapping_sub(share));
        Some(self.bundles.standing(member.bundle, fresh.observed_revision, digest))
    }

    /// Takes a Node as the API has it, unless something newer is known.
    pub(crate) fn admit(&mut self, node: &NodeObject, now: Duration) -> Option<NodeIndex> {
        self.leased.admit(node, now);
        let index = self.table.admit(node, now)?;
        let bundle = self.bundles.enter(&node.metadata.name, index);
        self.hubs.admit(index, node);
        if let Some(member) = self.table.member_mut(index) {
            member.bundle = bundle;
        }
        Some(index)
    }

    /// As [`admit`](Self::admit), what the API tells in the order of its revisions.
    pub(crate) fn follow(&mut self, node: &NodeObject, now: Duration) {
        self.admit(node, now);
        if let Some(join) = self.awaited.get(&node.metadata.name) {
            // A join that has no room for one more does not wait for this one.
            let _ = join.try_send(NodeUid::new(&node.metadata.uid));
        }
    }

    /// Forgets a Node, if it is this one.
    pub(crate) fn remove(&mut self, name: &str, uid: NodeUid) {
        self.leased.remove(name, Some(uid));
        let index = self.table.index(name);
        if let Some(member) = self.table.remove(name, Some(uid)) {
            self.bundles.leave(member.bundle);
            index.into_iter().for_each(|index| self.hubs.remove(index));
        }
    }
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the fleet was made; the time of all its tables.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// When that was by the clock. It may have been set since; how long ago it was stays right.
    pub(crate) fn moment(&self, at: Duration) -> Option<jiff::Timestamp> {
        let ago = jiff::SignedDuration::try_from(self.now().saturating_sub(at)).ok()?;
        jiff::Timestamp::now().checked_sub(ago).ok()
    }

    pub(crate) fn alive(&self, state: &State, index: NodeIndex) -> bool {
        state.table.alive(index, self.now(), &self.config.grace)
    }
}

/// A number that no one can guess.
pub(crate) fn random_u64() -> Option<u64> {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u64::from_be_bytes(bytes))
}
