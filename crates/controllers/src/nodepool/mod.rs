//! Node pools: what a pool gives its nodes, and what it says of them. A node is in the pool that its label names.

mod attributes;
mod members;
mod status;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use toono_openyurt::{NodePool, keys};

use crate::{
    context::Context,
    informer::{Change, Index},
    key::Key,
    kinds::node::Node,
    queue::WorkQueue,
    worker,
};

/// Who says it in events.
const COMPONENT: &str = "nodepool-controller";
/// Nodes that are seen to at once: a pool whose labels change is a write for each of its nodes, and writes that are
/// under way together share a sync of the disk.
const NODES_AT_ONCE: usize = 64;
/// Before the name of a pool, where nodes are that ask for it; no name of a pool has it.
const ASKED: &str = "?";

/// Where the index of nodes has a node: under its pool, or under the one that it asks for.
pub(crate) fn place(node: &Node) -> Option<Arc<str>> {
    match node.pool() {
        "" => node.label(keys::DESIRED_NODE_POOL).filter(|pool| !pool.is_empty()).map(asked),
        pool => Some(pool.into()),
    }
}

fn asked(pool: &str) -> Arc<str> {
    format!("{ASKED}{pool}").into()
}

/// The controller of pools and of what they give their nodes.
pub(crate) struct Controller {
    pools: Arc<WorkQueue<Key>>,
    nodes: Arc<WorkQueue<Key>>,
    /// Whether all pools are known: before, a node without one may have one.
    knows_pools: Arc<AtomicBool>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let pools: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
        let nodes = Arc::new(WorkQueue::new());
        let knows_pools = Arc::new(AtomicBool::new(false));
        context.nodes.on_change({
            let (pools, nodes) = (Arc::clone(&pools), Arc::clone(&nodes));
            let (known, all) = (Arc::clone(&knows_pools), context.node_pools.reader());
            move |change| {
                for pool in pools_to_recount(change) {
                    pools.add_after(Key::new("", pool), status::PAUSE);
                }
                if let Some(node) = &change.new
                    && known.load(Ordering::Acquire)
                    && !members::is_right(node, |pool| all.get(pool))
                {
                    nodes.add(Key::of(&node.metadata));
                }
            }
        });
        context.node_pools.on_change({
            let (pools, nodes) = (Arc::clone(&pools), Arc::clone(&nodes));
            let members = context.nodes.reader();
            move |change| {
                let Some(pool) = change.latest() else { return };
                let key = Key::of(&pool.metadata);
                match is_status_alone(change) {
                    true => pools.add_after(key, status::PAUSE),
                    false => pools.add(key),
                }
                if !gives_the_same(change) {
                    let asking = members.by(Index::Pool, &asked(pool.name()));
                    for node in members.by(Index::Pool, pool.name()).iter().chain(&asking) {
                        if !members::is_right(node, |_| change.new.clone()) {
                            nodes.add(Key::of(&node.metadata));
                        }
                    }
                }
            }
        });
        Self { pools, nodes, knows_pools }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.nodes.wait_synced().await;
        context.node_pools.wait_synced().await;
        self.knows_pools.store(true, Ordering::Release);
        for node in context.nodes.all() {
            if !members::is_right(&node, |pool| context.node_pools.get(pool)) {
                self.nodes.add(Key::of(&node.metadata));
            }
        }
        let shared = &context;
        let pool = |key: Key| async move { status::sync(shared, &key).await };
        let node = |key: Key| async move { members::sync(shared, &key).await };
        futures::join!(
            worker::run(COMPONENT, context.config.concurrent_syncs, self.pools, pool),
            worker::run(COMPONENT, NODES_AT_ONCE, self.nodes, node),
        );
    }
}

/// The pools whose counts a change of a node changes.
fn pools_to_recount(change: &Change<Node>) -> Vec<&str> {
    let facts = |node: &'_ Arc<Node>| (place(node), node.is_ready());
    if change.old.as_ref().map(facts) == change.new.as_ref().map(facts) {
        return Vec::new();
    }
    let nodes = change.old.iter().chain(&change.new);
    let mut pools: Vec<&str> =
        nodes.map(|node| node.pool()).filter(|pool| !pool.is_empty()).collect();
    pools.dedup();
    pools
}

/// Whether a pool gives its nodes what it gave them before.
fn gives_the_same(change: &Change<NodePool>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => old.spec == new.spec,
        _ => false,
    }
}

/// Whether nothing changed but what is told of a pool, by us more often than not.
fn is_status_alone(change: &Change<NodePool>) -> bool {
    let desired = |pool: &Arc<NodePool>| {
        let metadata = &pool.metadata;
        (metadata.deletion_timestamp.clone(), metadata.labels.clone(), metadata.finalizers.clone())
    };
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => old.spec == new.spec && desired(old) == desired(new),
        _ => false,
    }
}
