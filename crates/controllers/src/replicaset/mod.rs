//! ReplicaSet: as many pods as asked for, neither more nor fewer.

pub(crate) mod ranking;
mod status;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::core::Selector;

use crate::{
    claim::{self, selector, selects},
    context::Context,
    error::SyncError,
    expectations::Expectations,
    informer::{Change, Index, Reader},
    key::Key,
    kinds::pod::Pod,
    object::Metadata,
    podcontrol::{MAX_PODS_AT_ONCE, PodControl, pod_from_template},
    pods::{controller_of, is_active, node_name, uid},
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "replicaset-controller";

/// The replica set controller.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    expectations: Arc<Expectations>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        let expectations = Arc::new(Expectations::default());
        context.replica_sets.on_change({
            let (queue, expectations) = (Arc::clone(&queue), Arc::clone(&expectations));
            move |change| {
                let Some(replica_set) = change.latest() else { return };
                let key = Key::of(&replica_set.metadata);
                if change.new.is_none() {
                    expectations.forget(&key);
                }
                queue.add(key);
            }
        });
        context.pods.on_change({
            let (queue, expectations) = (Arc::clone(&queue), Arc::clone(&expectations));
            let replica_sets = context.replica_sets.reader();
            move |change| pod_changed(change, &replica_sets, &queue, &expectations)
        });
        Self { queue, expectations }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.replica_sets.wait_synced().await;
        context.pods.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let (this, context) = (&self, &context);
        let sync = |key: Key| async move { this.sync(context, &key).await };
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }

    async fn sync(&self, context: &Context, key: &Key) -> Result<Again, SyncError> {
        let Some(replica_set) = context.replica_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(None);
        };
        let Some(spec) = &replica_set.spec else { return Ok(None) };
        // Asked before the pods are read: what arrives in between only makes the count truer.
        let may_manage = self.expectations.satisfied(key);
        let Some(selector) = selector("ReplicaSet", key, &spec.selector)? else { return Ok(None) };
        let mut pods = claim::claim(context, &*replica_set, &selector, &context.pods).await?;
        pods.retain(|pod| is_active(pod));
        let managed = if may_manage && replica_set.metadata.deletion_timestamp.is_none() {
            self.manage(context, &replica_set, key, &pods).await
        } else {
            Ok(())
        };
        let now = Timestamp::now();
        let status = status::Numbers::count(&replica_set, &pods, now);
        status::write(context, &replica_set, &status, managed.as_ref().err()).await?;
        managed?;
        let min_ready = u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0);
        let waits = min_ready > 0 && status.ready != status.available;
        Ok(waits.then(|| Duration::from_secs(min_ready)))
    }

    async fn manage(
        &self,
        context: &Context,
        replica_set: &ReplicaSet,
        key: &Key,
        pods: &[Arc<Pod>],
    ) -> Result<(), SyncError> {
        let control = PodControl {
            context,
            expectations: &self.expectations,
            component: COMPONENT,
            owner: replica_set,
            key,
        };
        let wanted = wanted(replica_set);
        if pods.len() < wanted {
            let template = replica_set
                .spec
                .as_ref()
                .and_then(|spec| spec.template.clone())
                .unwrap_or_default();
            let missing = (wanted - pods.len()).min(MAX_PODS_AT_ONCE);
            let new = (0..missing).map(|_| pod_from_template(replica_set, &template)).collect();
            return control.create(new).await;
        }
        if pods.len() > wanted {
            let excess = pods.len() - wanted;
            let siblings = siblings_by_node(context, replica_set);
            let doomed = ranking::to_delete(pods.to_vec(), excess, Timestamp::now(), |node| {
                siblings.get(node).copied().unwrap_or(0)
            });
            return control.delete(&doomed).await;
        }
        Ok(())
    }
}

fn wanted(replica_set: &ReplicaSet) -> usize {
    let replicas = replica_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// How many active pods of the same owner's replica sets are on each node: pods go first where
/// most of their kin are.
fn siblings_by_node(
    context: &Context,
    replica_set: &ReplicaSet,
) -> std::collections::HashMap<String, usize> {
    let sets = match controller_of(&replica_set.metadata) {
        Some(owner) => context.replica_sets.by(Index::Owner, &owner.uid),
        None => vec![Arc::new(replica_set.clone())],
    };
    let mut nodes = std::collections::HashMap::new();
    for set in sets {
        for pod in context.pods.by(Index::Owner, uid(&set.metadata)) {
            if let Some(node) = node_name(&pod).filter(|_| is_active(&pod)) {
                *nodes.entry(node.to_owned()).or_default() += 1;
            }
        }
    }
    nodes
}

/// The replica set that a reference means, if that very one still exists.
fn referenced(replica_sets: &Reader<ReplicaSet>, pod: &Pod) -> Option<Key> {
    let reference =
        controller_of(&pod.metadata).filter(|reference| reference.kind == "ReplicaSet")?;
    let key = Key::new(pod.metadata.namespace(), &reference.name);
    let replica_set = replica_sets.get(&key)?;
    (uid(&replica_set.metadata) == reference.uid).then_some(key)
}

fn pod_changed(
    change: &Change<Pod>,
    replica_sets: &Reader<ReplicaSet>,
    queue: &WorkQueue<Key>,
    expectations: &Expectations,
) {
    let old_owner = change.old.as_ref().and_then(|pod| referenced(replica_sets, pod));
    let new_owner = change.new.as_ref().and_then(|pod| referenced(replica_sets, pod));
    let leaving = |pod: &Arc<Pod>| pod.metadata.is_leaving();
    if let Some(owner) = &new_owner {
        if change.old.is_none() {
            expectations.creation_observed(owner);
        }
        if let Some(pod) = change.new.as_ref().filter(|pod| leaving(pod)) {
            expectations.deletion_observed(owner, &Key::of(&pod.metadata));
        }
        queue.add(owner.clone());
    }
    if let Some(owner) = old_owner.filter(|owner| Some(owner) != new_owner.as_ref()) {
        if let Some(pod) = &change.old {
            expectations.deletion_observed(&owner, &Key::of(&pod.metadata));
        }
        queue.add(owner);
    }
    // A matching orphan may be adopted.
    if let Some(pod) =
        change.new.as_ref().filter(|pod| controller_of(&pod.metadata).is_none() && !leaving(pod))
    {
        let namespace = pod.metadata.namespace();
        for replica_set in replica_sets.by(Index::Namespace, namespace) {
            let selector = replica_set.spec.as_ref().map(|spec| spec.selector.clone());
            let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
            if selector.is_some_and(|selector| selects(&selector, &**pod)) {
                queue.add(Key::of(&replica_set.metadata));
            }
        }
    }
}
