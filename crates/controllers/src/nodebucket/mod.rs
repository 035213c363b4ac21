//! The nodes of a pool in buckets, so that whoever follows them reads a hundred names when one changes.

mod fill;

use std::{sync::Arc, time::Duration};

use kube::{Api, api::DeleteParams};
use serde_json::json;
use toono_openyurt::{NodeBucket, NodePool, keys};

use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    informer::{Index, Informer},
    key::Key,
    kinds::create,
    names, nodepool,
    object::Metadata as _,
    patch,
    queue::WorkQueue,
    worker::{self, Again},
};

/// Who says it in logs.
const COMPONENT: &str = "nodebucket-controller";
/// Changes of nodes are written once in so long.
const PAUSE: Duration = Duration::from_secs(1);

/// The controller of buckets.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    buckets: Informer<NodeBucket>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
        let mut buckets = Informer::<NodeBucket>::new(vec![(Index::Pool, by_pool)]);
        buckets.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                let pool = change.latest().and_then(|bucket| pool_of(bucket));
                if let Some(pool) = pool {
                    queue.add_after(Key::new("", pool), PAUSE);
                }
            }
        });
        context.node_pools.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let (None, Some(pool)) = (&change.old, &change.new) {
                    queue.add_after(Key::of(&pool.metadata), PAUSE);
                }
            }
        });
        context.nodes.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                let place = |node: &_| nodepool::place(node);
                let (old, new) = (change.old.as_deref(), change.new.as_deref());
                if old.and_then(place) != new.and_then(place) {
                    for node in old.into_iter().chain(new).filter(|node| !node.pool().is_empty()) {
                        queue.add_after(Key::new("", node.pool()), PAUSE);
                    }
                }
            }
        });
        Self { queue, buckets }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let (buckets, shared) = (&self.buckets, &context);
        let sync = |key: Key| async move { sync(shared, buckets, &key).await };
        let work = async {
            context.nodes.wait_synced().await;
            context.node_pools.wait_synced().await;
            buckets.wait_synced().await;
            let workers = context.config.concurrent_syncs;
            worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
        };
        futures::join!(buckets.run(Api::all(context.client.clone())), work);
    }
}

fn pool_of(bucket: &NodeBucket) -> Option<&str> {
    Some(bucket.metadata.labels.as_ref()?.get(keys::POOL_OF_OBJECT)?)
}

fn by_pool(bucket: &NodeBucket) -> Vec<Arc<str>> {
    pool_of(bucket).map(Into::into).into_iter().collect()
}

async fn sync(
    context: &Context,
    buckets: &Informer<NodeBucket>,
    key: &Key,
) -> Result<Again, SyncError> {
    // The buckets of a pool that is gone go with it.
    let Some(pool) = context.node_pools.get(key) else { return Ok(None) };
    let nodes = context.nodes.by(Index::Pool, &key.name);
    let nodes = nodes.iter().map(|node| node.metadata.name());
    let present = buckets.by(Index::Pool, &key.name);
    let plan = fill::plan(nodes, &present);
    for nodes in plan.create {
        make(context, &pool, &nodes).await?;
    }
    let api: Api<NodeBucket> = Api::all(context.client.clone());
    for (bucket, nodes) in plan.change {
        let name = bucket.metadata.name();
        let change = patch::on_top_of(&*bucket, content(&nodes));
        match patch::merge(&api, name, &change).await {
            Err(error) if !is_not_found(&error) => {
                return Err(SyncError::api("write", "NodeBucket", &Key::new("", name))(error));
            }
            _ => {}
        }
    }
    for bucket in plan.delete {
        let name = bucket.metadata.name();
        match api.delete(name, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => {
                return Err(SyncError::api("delete", "NodeBucket", &Key::new("", name))(error));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn content(nodes: &[String]) -> serde_json::Value {
    let names: Vec<_> = nodes.iter().map(|name| json!({"name": name})).collect();
    json!({"numNodes": nodes.len(), "nodes": names})
}

async fn make(context: &Context, pool: &NodePool, nodes: &[String]) -> Result<(), SyncError> {
    let name = names::generate(&format!("{}-", pool.name()));
    let owner = json!({"apiVersion": "apps.openyurt.io/v1beta2", "kind": "NodePool", "name": pool.name(),
        "uid": pool.metadata.uid, "controller": true, "blockOwnerDeletion": true});
    let mut bucket = content(nodes);
    if let Some(fields) = patch::map_at(&mut bucket, &[]) {
        let metadata = json!({"name": name, "labels": {keys::POOL_OF_OBJECT: pool.name()},
            "ownerReferences": [owner]});
        fields.insert("metadata".to_owned(), metadata);
    }
    let made = create::<NodeBucket>(&context.client, None, bucket).await;
    made.map(drop).map_err(SyncError::api("create", "NodeBucket", &Key::new("", &name)))
}
