//! YurtAppSet: the same Deployment or StatefulSet in each of many pools, with what is different in some of them.
//!
//! [`app`] reads what a set asks for, [`choice`] finds its pools, [`render`] and [`tweak`] make the workload of each,
//! [`live`] compares it with what there is, [`plan`] says what to make and delete, [`status`] what to tell: all pure.
//! [`sync`] does it, pool by pool in [`look`]. A pool whose workload cannot be made or changed holds up no other.

mod app;
mod choice;
mod history;
mod live;
mod look;
mod memory;
mod plan;
mod render;
mod status;
mod sync;
#[cfg(test)]
mod tests;
mod tweak;
mod write;

use std::{collections::BTreeMap, sync::Arc};

use futures::FutureExt;
use kube::Resource;
use toono_openyurt::{NodePool, YurtAppSet, keys::REF_YURT_APP_SET, yurt_app_set::YurtAppSetSpec};

use crate::{
    context::Context,
    error::SyncError,
    expectations::Expectations,
    informer::{Change, Reader},
    key::Key,
    object::{Claimable, Metadata},
    pods::{controller_of, uid},
    queue::WorkQueue,
    worker::{self, Again},
};
use memory::Memories;
use sync::Sync;

const COMPONENT: &str = "yurtappset-controller";

/// The controller of YurtAppSets.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    expectations: Arc<Expectations>,
    memories: Memories,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        let expectations = Arc::new(Expectations::default());
        context.yurt_app_sets.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(set) = change.latest() {
                    queue.add(Key::of(&set.metadata));
                }
            }
        });
        context.node_pools.on_change({
            let queue = Arc::clone(&queue);
            let sets = context.yurt_app_sets.reader();
            move |change| pool_changed(change, &sets, &queue)
        });
        let told = |sets: Reader<YurtAppSet>| Owners {
            queue: Arc::clone(&queue),
            expectations: Arc::clone(&expectations),
            sets,
        };
        let owners = told(context.yurt_app_sets.reader());
        context.deployments.on_change(move |change| owners.changed(change));
        let owners = told(context.yurt_app_sets.reader());
        context.stateful_sets.on_change(move |change| owners.changed(change));
        Self { queue, expectations, memories: Memories::default() }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.yurt_app_sets.wait_synced().await;
        context.node_pools.wait_synced().await;
        context.deployments.wait_synced().await;
        context.stateful_sets.wait_synced().await;
        context.revisions.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let (this, context) = (&self, &context);
        let sync = |key: Key| async move { this.sync(context, &key).await };
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }

    async fn sync(&self, context: &Context, key: &Key) -> Result<Again, SyncError> {
        let Some(set) = context.yurt_app_sets.get(key) else {
            self.memories.forget(key);
            self.expectations.forget(key);
            return Ok(None);
        };
        // What it owns goes with it.
        if set.metadata.is_leaving() || !self.expectations.satisfied(key) {
            return Ok(None);
        }
        let mut memory = self.memories.take(key, uid(&set.metadata));
        let sync = Sync { context, set: &set, key, expectations: &self.expectations };
        let again = sync.run(&mut memory).boxed().await;
        self.memories.put(key, memory);
        again
    }
}

/// Tells the sets of what happens to their workloads.
struct Owners {
    queue: Arc<WorkQueue<Key>>,
    expectations: Arc<Expectations>,
    sets: Reader<YurtAppSet>,
}

impl Owners {
    fn changed<K: Resource<DynamicType = ()>>(&self, change: &Change<K>) {
        let owner = |one: &Option<Arc<K>>| self.owner(one.as_deref()?);
        let (before, after) = (owner(&change.old), owner(&change.new));
        if let (None, Some(key)) = (&change.old, &after) {
            self.expectations.creation_observed(key);
        }
        let leaving = change.new.as_ref().is_none_or(|new| new.meta().is_leaving());
        if let (true, Some(old), Some(key)) = (leaving, &change.old, &before) {
            self.expectations.deletion_observed(key, &Key::of(old.meta()));
        }
        before.into_iter().chain(after).for_each(|key| self.queue.add(key));
        // One that nobody owns may be adopted.
        if let Some(new) = change.new.as_deref().filter(|new| controller_of(new.meta()).is_none())
            && let Some(set) = new.meta().labels().and_then(|labels| labels.get(REF_YURT_APP_SET))
        {
            self.queue.add(Key::new(new.meta().namespace(), set));
        }
    }

    /// The set that a workload's reference means, if that very one still exists.
    fn owner<K: Resource<DynamicType = ()>>(&self, workload: &K) -> Option<Key> {
        let owner = controller_of(workload.meta()).filter(|owner| owner.kind == "YurtAppSet")?;
        let key = Key::new(workload.meta().namespace(), &owner.name);
        let set = self.sets.get(&key)?;
        (uid(&set.metadata) == owner.uid).then_some(key)
    }
}

/// Only whether a pool is there, and its labels, decide which sets it is of.
fn pool_changed(change: &Change<NodePool>, sets: &Reader<YurtAppSet>, queue: &WorkQueue<Key>) {
    let labels = |pool: &Option<Arc<NodePool>>| pool.as_ref().map(|pool| labels_of(pool));
    if labels(&change.known) == labels(&change.new) {
        return;
    }
    let Some(pool) = change.latest() else { return };
    for set in sets.all() {
        if may_concern(&set.spec, pool.metadata.name()) {
            queue.add(Key::of(&set.metadata));
        }
    }
}

fn labels_of(pool: &NodePool) -> BTreeMap<String, String> {
    pool.metadata.labels.clone().unwrap_or_default()
}

/// Whether the set or a tweak of it names the pool, or selects pools by labels.
fn may_concern(spec: &YurtAppSetSpec, pool: &str) -> bool {
    let named = |pools: &[String]| pools.iter().any(|name| name == pool);
    spec.node_pool_selector.is_some()
        || named(&spec.pools)
        || spec
            .workload
            .workload_tweaks
            .iter()
            .any(|tweak| tweak.node_pool_selector.is_some() || named(&tweak.pools))
}
