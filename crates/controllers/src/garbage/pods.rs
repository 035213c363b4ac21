//! Pods of nodes that no longer exist: nobody is left to end them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    context::Context,
    error::{SyncError, chain, is_conflict, is_not_found},
    informer::{Change, Index, Reader},
    key::Key,
    kinds::{
        node::{Node, WatchedNode},
        pod::{Pod, WatchedPod},
    },
    patch,
    pods::{is_finished, node_name, uid},
};

/// Names of nodes that may be missing while pods are bound to them, and since when. They are found as nodes and
/// pods change, so that nobody looks through a million pods.
pub(crate) struct Suspects {
    nodes: Reader<Node>,
    /// Until nodes and pods have been read every node would be missing.
    watching: AtomicBool,
    since: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Suspects {
    pub(crate) fn new(context: &mut Context) -> Arc<Self> {
        let suspects = Arc::new(Self {
            nodes: context.nodes.reader(),
            watching: AtomicBool::new(false),
            since: Mutex::default(),
        });
        context.pods.on_change({
            let suspects = Arc::clone(&suspects);
            move |change: &Change<Pod>| {
                if let Some(node) = change.new.as_deref().and_then(node_name) {
                    suspects.bound_to(node);
                }
            }
        });
        context.nodes.on_change({
            let suspects = Arc::clone(&suspects);
            move |change: &Change<Node>| {
                if let (None, Some(old)) = (&change.new, &change.old) {
                    suspects.bound_to(&Key::of(&old.metadata).name);
                }
            }
        });
        suspects
    }

    /// Something is bound to this node.
    fn bound_to(&self, node: &str) {
        if self.watching.load(Ordering::Relaxed) && !self.exists(node) {
            self.since().entry(node.into()).or_insert_with(Instant::now);
        }
    }

    fn exists(&self, node: &str) -> bool {
        self.nodes.get(&Key::new("", node)).is_some()
    }

    fn since(&self) -> MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for ever.
    pub(super) async fn run(&self, context: &Context) {
        let quarantine = Duration::from_secs(context.config.missing_node_seconds);
        context.nodes.wait_synced().await;
        context.pods.wait_synced().await;
        self.watching.store(true, Ordering::Relaxed);
        context.pods.values(Index::Node).iter().for_each(|node| self.bound_to(node));
        loop {
            if let Err(error) = self.collect(context, quarantine).await {
                warn!(error = chain(&error), "pods of missing nodes are collected later");
            }
            tokio::time::sleep(quarantine / 2).await;
        }
    }

    async fn collect(&self, context: &Context, quarantine: Duration) -> Result<(), SyncError> {
        let suspects: Vec<_> =
            self.since().iter().map(|(name, since)| (Arc::clone(name), *since)).collect();
        for (name, since) in suspects {
            let pods = context.pods.by(Index::Node, &name);
            if pods.is_empty() || self.exists(&name) {
                self.since().remove(&name);
                // One that was bound in between may have told of itself before that.
                if !context.pods.by(Index::Node, &name).is_empty() {
                    self.bound_to(&name);
                }
            } else if since.elapsed() >= quarantine && is_gone(context, &name).await? {
                for pod in pods {
                    end(context, &pod).await?;
                }
            }
        }
        Ok(())
    }
}

async fn is_gone(context: &Context, node: &str) -> Result<bool, SyncError> {
    let api: Api<WatchedNode> = Api::all(context.client.clone());
    let found =
        api.get_opt(node).await.map_err(SyncError::api("get", "Node", &Key::new("", node)))?;
    Ok(found.is_none())
}

async fn end(context: &Context, pod: &Pod) -> Result<(), SyncError> {
    let key = Key::of(&pod.metadata);
    let api: Api<WatchedPod> = context.api(&key.namespace);
    if !is_finished(pod) {
        // Its owner must see a failure, not a pod that vanished.
        let change = patch::on_top_of(pod, json!({"status": {"phase": "Failed"}}));
        if let Err(error) = patch::merge_status(&api, &key.name, &change).await
            && !is_not_found(&error)
        {
            return Err(SyncError::api("update the status of", "Pod", &key)(error));
        }
    }
    let only_this =
        Preconditions { uid: Some(uid(&pod.metadata).to_owned()), resource_version: None };
    let at_once = DeleteParams::default().grace_period(0).preconditions(only_this);
    match api.delete(&key.name, &at_once).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(SyncError::api("delete", "Pod", &key)(error)),
    }
}
