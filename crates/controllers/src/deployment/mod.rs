//! Deployment: rolls from one pod template to the next by scaling replica sets.

mod arithmetic;
mod conditions;
mod recreate;
mod revision;
mod rolling;
mod rollout;
mod scaling;
mod sets;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use crate::{
    claim::{self, selector},
    context::Context,
    error::SyncError,
    informer::{Change, Reader},
    key::Key,
    object::Metadata,
    pods::{controller_of, uid},
    queue::WorkQueue,
    worker::{self, Again},
};
pub(crate) use arithmetic::resolve;
use rollout::Rollout;

const COMPONENT: &str = "deployment-controller";

/// The deployment controller.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.deployments.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(deployment) = change.latest() {
                    queue.add(Key::of(&deployment.metadata));
                }
            }
        });
        context.replica_sets.on_change({
            let queue = Arc::clone(&queue);
            let deployments = context.deployments.reader();
            move |change| replica_set_changed(change, &deployments, &queue)
        });
        // Recreate waits until the last old pod is gone, which no replica set's status tells.
        context.pods.on_change({
            let queue = Arc::clone(&queue);
            let replica_sets = context.replica_sets.reader();
            let deployments = context.deployments.reader();
            move |change| {
                let Some(pod) = change.old.as_ref().filter(|_| change.new.is_none()) else {
                    return;
                };
                let Some(owner) =
                    controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet")
                else {
                    return;
                };
                let namespace = pod.metadata.namespace();
                if let Some(replica_set) = replica_sets.get(&Key::new(namespace, &owner.name))
                    && let Some(key) = referenced(&deployments, &replica_set)
                {
                    queue.add(key);
                }
            }
        });
        Self { queue }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.deployments.wait_synced().await;
        context.replica_sets.wait_synced().await;
        context.pods.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let context = &context;
        let sync = |key: Key| async move { sync(context, &key).await };
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(deployment) = context.deployments.get(key) else { return Ok(None) };
    let Some(spec) = &deployment.spec else { return Ok(None) };
    let Some(selector) = selector("Deployment", key, &spec.selector)? else { return Ok(None) };
    let sets = claim::claim(context, &*deployment, &selector, &context.replica_sets).await?;
    let mut rollout = Rollout::new(context, (*deployment).clone(), sets);
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.find_sets();
        return rollout.write_plain_status().await.map(|()| None);
    }
    rollout.note_pausing().await?;
    if spec.paused == Some(true) {
        rollout.scale_proportionally().await?;
        rollout.remove_old_revisions().await?;
        return rollout.write_plain_status().await.map(|()| None);
    }
    if rollout.is_scaling() {
        rollout.scale_proportionally().await?;
        return rollout.write_plain_status().await.map(|()| None);
    }
    match spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) {
        Some("Recreate") => rollout.recreate().await,
        _ => rollout.roll().await,
    }
}

/// The deployment that controls a replica set, if that very one still exists.
fn referenced(deployments: &Reader<Deployment>, replica_set: &ReplicaSet) -> Option<Key> {
    let owner = controller_of(&replica_set.metadata).filter(|owner| owner.kind == "Deployment")?;
    let key = Key::new(replica_set.metadata.namespace.as_deref().unwrap_or_default(), &owner.name);
    let deployment = deployments.get(&key)?;
    (uid(&deployment.metadata) == owner.uid).then_some(key)
}

fn replica_set_changed(
    change: &Change<ReplicaSet>,
    deployments: &Reader<Deployment>,
    queue: &WorkQueue<Key>,
) {
    for replica_set in [&change.old, &change.new].into_iter().flatten() {
        if let Some(key) = referenced(deployments, replica_set) {
            queue.add(key);
        }
    }
    // A matching orphan may be adopted.
    if let Some(orphan) = change.new.as_ref().filter(|set| controller_of(&set.metadata).is_none()) {
        let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
        for deployment in deployments.by(crate::informer::Index::Namespace, namespace) {
            let key = Key::of(&deployment.metadata);
            let Some(spec) = &deployment.spec else { continue };
            if let Ok(Some(selector)) = selector("Deployment", &key, &spec.selector)
                && claim::selects(&selector, &**orphan)
            {
                queue.add(key);
            }
        }
    }
}
