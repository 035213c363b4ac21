//! One worker per pod: started for what the bundle brings, told when it no longer wants them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::{sync::mpsc, task::JoinSet};
use toono_sandbox::{Keeper, SandboxSpec};

use crate::{
    AgentError,
    admission::{Booked, ports_taken},
    bundles::{self, News},
    container::ports,
    eviction::Evict,
    join::chain,
    ota,
    statics::{self, Statics},
    sync::Sync,
    worker::{self, Ending, Node, Order, Worker},
};

/// All pods of the node.
pub(crate) struct Supervisor {
    node: Arc<Node>,
    sync: Sync,
    statics: Statics,
    orders: BTreeMap<String, mpsc::UnboundedSender<Order>>,
    workers: JoinSet<(String, Ending)>,
    booked: Booked,
}

impl Supervisor {
    /// Takes up every pod on disk, and clears away what no pod explains.
    pub(crate) async fn start(
        node: Arc<Node>,
        sync: Sync,
        statics: Statics,
    ) -> Result<Self, AgentError> {
        let (pods, dirs) = {
            let bundles = sync.bundles();
            (bundles.pods()?, bundles.on_disk()?)
        };
        let mut this = Self {
            node,
            sync,
            statics,
            orders: BTreeMap::new(),
            workers: JoinSet::new(),
            booked: Booked::default(),
        };
        let taken_up = |pod: &Pod| {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            // Unwanted and never begun: an agent ended amid storing the bundle that brings it. It
            // comes again, and must not be ended as if it had been wanted before.
            this.wants(uid) || bundles::has_begun(&this.node.data, uid)
        };
        let (mirrors, pods): (Vec<Pod>, Vec<Pod>) = pods.into_iter().partition(statics::is_mirror);
        let pods: Vec<Pod> = pods.into_iter().filter(taken_up).collect();
        let is_told = |pod: &&Pod| this.wants(pod.metadata.uid.as_deref().unwrap_or_default());
        mirrors.iter().filter(is_told).for_each(|pod| this.statics.see(pod));
        let known: BTreeSet<String> =
            pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        for uid in dirs.difference(&known).filter(|uid| !this.wants(uid)) {
            this.clear(uid).await;
        }
        let kept = |uid: &str| known.contains(uid) || this.wants(uid);
        if let Err(error) = this.node.network.keep_only(kept).await {
            tracing::warn!(error = chain(&error), "cables of former pods are left");
        }
        for pod in pods {
            this.desire(pod).await;
        }
        Ok(this)
    }

    /// Follows the bundle for as long as the agent lives.
    pub(crate) async fn run(
        mut self,
        mut changed: mpsc::Receiver<News>,
        mut evictions: mpsc::UnboundedReceiver<Evict>,
    ) {
        loop {
            tokio::select! {
                news = changed.recv() => {
                    let Some(news) = news else { return };
                    if news.referents {
                        // Which of them a pod has is in the pod. One that has ended has nothing to do.
                        self.orders.values().for_each(|it| drop(it.send(Order::Referents)));
                    }
                    if news.pods.iter().any(ota::concerns) {
                        self.node.offers.notify_one();
                    }
                    for pod in news.pods {
                        match statics::is_mirror(&pod) {
                            true => self.statics.see(&pod),
                            false => self.desire(pod).await,
                        }
                    }
                    self.end_unwanted();
                    self.forget_mirrors().await;
                }
                Some(evict) = evictions.recv() => self.evict(evict),
                Some(ended) = self.workers.join_next(), if !self.workers.is_empty() => match ended {
                    Ok((uid, ending)) => self.on_end(&uid, ending),
                    Err(error) => tracing::error!(%error, "a pod's worker failed"),
                },
            }
        }
    }

    fn on_end(&mut self, uid: &str, ending: Ending) {
        if self.orders.get(uid).is_none_or(|orders| !orders.is_closed()) {
            // The next worker of the same pod is at work already.
            return;
        }
        self.orders.remove(uid);
        self.booked.remove(uid);
        if ending == Ending::Unwanted && self.wants(uid) {
            tracing::warn!(uid, "a pod is wanted again that was ended; the whole bundle is due");
            self.sync.fetch_all();
        }
    }

    async fn desire(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pod = match self.orders.get(&uid) {
            Some(orders) => match orders.send(Order::Desire(Box::new(pod))) {
                Ok(()) => return,
                // Its worker has just finished with an earlier state of it.
                Err(mpsc::error::SendError(Order::Desire(pod))) => *pod,
                Err(_) => return,
            },
            None => pod,
        };
        let is_new = !bundles::has_begun(&self.node.data, &uid);
        match Worker::take_up(self.node.clone(), &pod).await {
            Ok(mut worker) => {
                let now = self.node.clock.now();
                let ports = ports::wanted(&pod);
                let admitted = self.booked.admit(&self.node, &pod, now);
                let free = || worker.is_over() || self.node.services.claim(&uid, &ports);
                match admitted.and_then(|()| if free() { Ok(()) } else { Err(ports_taken()) }) {
                    // What runs here already has its place.
                    Err(refused) if is_new && !statics::is_static(&pod) => worker.refuse(&refused),
                    _ => self.booked.add(&uid, &pod),
                }
                let (sender, orders) = mpsc::unbounded_channel();
                self.orders.insert(uid.clone(), sender);
                if !self.wants(&uid) {
                    self.end(&uid);
                }
                self.workers.spawn(async move {
                    let ending = worker.run(orders).await;
                    (uid, ending)
                });
            }
            Err(error) => tracing::warn!(%error, "a pod cannot be run"),
        }
    }

    fn evict(&self, evict: Evict) {
        if let Some(orders) = self.orders.get(&evict.uid) {
            // One whose worker has ended has nothing left to give.
            let _ = orders.send(Order::Evict(evict));
        }
    }

    /// Whether the cloud, or a file, wants the pod here. Without a bundle the cloud may want whatever is here,
    /// but not what it never gave.
    fn wants(&self, uid: &str) -> bool {
        if statics::is_static_uid(uid) {
            self.statics.wants(uid)
        } else {
            self.sync.bundles().wants(uid)
        }
    }

    fn end_unwanted(&self) {
        for uid in self.orders.keys().filter(|uid| !self.wants(uid)) {
            self.end(uid);
        }
    }

    /// What only showed a pod has nothing to end.
    async fn forget_mirrors(&self) {
        for uid in self.statics.forget(|uid| self.sync.bundles().wants(uid)) {
            self.clear(&uid).await;
        }
    }

    fn end(&self, uid: &str) {
        if self.orders.get(uid).is_some_and(|orders| orders.send(Order::Remove).is_err()) {
            tracing::debug!(uid, "its worker has ended already");
        }
    }

    /// Removes the directory of a pod that nobody knows, with what may still run in it.
    async fn clear(&self, uid: &str) {
        let dir = bundles::pod_dir(&self.node.data, uid);
        tracing::warn!(uid, "clearing what is left of an unknown pod");
        let spec = SandboxSpec::leftover(dir.clone(), uid, &self.node.cgroup_parent);
        let cleared = clear_sandbox(&spec).await;
        if let Err(error) = cleared.and_then(|()| worker::remove_dir(&dir).map_err(|it| chain(&it)))
        {
            tracing::warn!(uid, error, "not cleared");
        }
    }
}

/// Ends a keeper that may still live, and removes what it leaves.
pub(crate) async fn clear_sandbox(spec: &SandboxSpec) -> Result<(), String> {
    if let Ok(Some(keeper)) = Keeper::adopt(&spec.dir).await
        && let Err(error) = keeper.shutdown().await
    {
        tracing::warn!(uid = spec.pod_uid, %error, "a keeper does not end by itself");
    }
    toono_sandbox::reclaim(spec).await.map_err(|error| error.to_string())
}
