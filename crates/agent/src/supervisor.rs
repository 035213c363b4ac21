//! One worker per pod: started for what the bundle brings, told when it no longer wants them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::{sync::mpsc, task::JoinSet};
use toono_sandbox::{Keeper, SandboxSpec};

use crate::{
    AgentError, bundles,
    join::chain,
    sync::Sync,
    worker::{self, Ending, Node, Order, Worker},
};

/// All pods of the node.
pub(crate) struct Supervisor {
    node: Arc<Node>,
    sync: Sync,
    orders: BTreeMap<String, mpsc::UnboundedSender<Order>>,
    workers: JoinSet<(String, Ending)>,
}

impl Supervisor {
    /// Takes up every pod on disk, and clears away what no pod explains.
    pub(crate) async fn start(node: Arc<Node>, sync: Sync) -> Result<Self, AgentError> {
        let (pods, dirs) = {
            let bundles = sync.bundles();
            (bundles.pods()?, bundles.on_disk()?)
        };
        let mut this = Self { node, sync, orders: BTreeMap::new(), workers: JoinSet::new() };
        let taken_up = |pod: &Pod| {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            // Unwanted and never begun: an agent ended amid storing the bundle that brings it. It
            // comes again, and must not be ended as if it had been wanted before.
            this.sync.bundles().wants(uid) || bundles::has_begun(&this.node.data, uid)
        };
        let pods: Vec<Pod> = pods.into_iter().filter(taken_up).collect();
        let known: BTreeSet<String> =
            pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        for uid in dirs.difference(&known).filter(|uid| !this.sync.bundles().wants(uid)) {
            this.clear(uid).await;
        }
        let kept = |uid: &str| known.contains(uid) || this.sync.bundles().wants(uid);
        if let Err(error) = this.node.network.keep_only(kept).await {
            tracing::warn!(error = chain(&error), "cables of former pods are left");
        }
        for pod in pods {
            this.desire(pod).await;
        }
        Ok(this)
    }

    /// Follows the bundle for as long as the agent lives.
    pub(crate) async fn run(mut self, mut changed: mpsc::Receiver<Vec<Pod>>) {
        loop {
            tokio::select! {
                pods = changed.recv() => {
                    let Some(pods) = pods else { return };
                    for pod in pods {
                        self.desire(pod).await;
                    }
                    self.end_unwanted();
                }
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
        if ending == Ending::Unwanted && self.sync.bundles().wants(uid) {
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
        match Worker::take_up(self.node.clone(), &pod).await {
            Ok(worker) => {
                let (sender, orders) = mpsc::unbounded_channel();
                self.orders.insert(uid.clone(), sender);
                if !self.sync.bundles().wants(&uid) {
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

    fn end_unwanted(&self) {
        let bundles = self.sync.bundles();
        for uid in self.orders.keys().filter(|uid| !bundles.wants(uid)) {
            self.end(uid);
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
        let spec = SandboxSpec {
            dir: dir.clone(),
            pod_uid: uid.to_owned(),
            hostname: String::new(),
            cgroup_parent: self.node.cgroup_parent.clone(),
            host_network: false,
            title: String::new(),
            program: self.node.keeper.clone(),
        };
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
