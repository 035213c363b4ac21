//! The fleet as the binary sees it: made once, run once, asked by the API server.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ring::rand::SecureRandom;
use tokio::{net::UdpSocket, sync::Notify, task::JoinSet};
use toono_http::{Body, Handler};
use toono_pki::ClusterCa;
use toono_session::{NodeIndex, NodeUid, ServerSessions};

use crate::{
    Feed, FleetConfig, FleetLinkError, WatchFeed,
    bundles::Bundles,
    calls::Calls,
    events::Recorder,
    follow,
    leased::Leased,
    liveness,
    objects::NodeObject,
    pokes::Pokes,
    readiness, routes,
    secrets::{Keeper, Rekeys},
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
    feed: Arc<dyn Feed>,
    started: Instant,
    state: Mutex<State>,
    /// Woken when [`State::pokes`] has something to send.
    pub(crate) poked: Notify,
    /// Woken when [`State::returned`] has someone.
    pub(crate) readiness: Notify,
    pub(crate) tunnels: Tunnels,
    pub(crate) recorder: Recorder,
    pub(crate) keeper: Keeper,
    pub(crate) sockets: Sockets,
}

/// What the loops and requests share. Held for microseconds, never across an await.
pub(crate) struct State {
    pub(crate) table: Table,
    pub(crate) leased: Leased,
    pub(crate) bundles: Bundles,
    pub(crate) pokes: Pokes,
    /// Members whose return is to be written; each is marked as being written, so it is here once.
    pub(crate) returned: Vec<NodeIndex>,
    /// Members heard for the first time, to be asked to compare their bundles.
    pub(crate) arrived: VecDeque<NodeIndex>,
    pub(crate) rekeys: Rekeys,
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
            pokes: Pokes::default(),
            returned: Vec::new(),
            arrived: VecDeque::new(),
            rekeys: Rekeys::default(),
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
            tunnels: Tunnels::default(),
            recorder: Recorder::default(),
            keeper: Keeper::default(),
            sockets: Sockets::default(),
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
        tasks.spawn(udp::serve(self.inner.clone(), socket));
        tasks.spawn(follow::nodes(self.inner.clone(), self.inner.feed.nodes()));
        tasks.spawn(follow::pods(self.inner.clone(), self.inner.feed.pods()));
        tasks.spawn(readiness::watch_over(self.inner.clone()));
        tasks.spawn(liveness::watch_over(self.inner.clone()));
        tasks.spawn(follow::sweep(self.inner.clone()));
        tokio::select! {
            () = shutdown => {}
            // The loops do not end by themselves; a panic in one must not leave half a fleet.
            Some(ended) = tasks.join_next() => {
                tracing::error!(result = ?ended, "a loop of the fleet ended");
            }
        }
        tasks.shutdown().await;
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
    /// Takes a Node as the API has it, unless something newer is known.
    pub(crate) fn admit(&mut self, node: &NodeObject, now: Duration) -> Option<NodeIndex> {
        self.leased.admit(node, now);
        let index = self.table.admit(node, now)?;
        let bundle = self.bundles.enter(&node.metadata.name, index);
        if let Some(member) = self.table.member_mut(index) {
            member.bundle = bundle;
        }
        Some(index)
    }

    /// Forgets a Node, if it is this one.
    pub(crate) fn remove(&mut self, name: &str, uid: NodeUid) {
        self.leased.remove(name, Some(uid));
        if let Some(member) = self.table.remove(name, Some(uid)) {
            self.bundles.leave(member.bundle);
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
