//! One pool: how many nodes it has and which, its own label, and that it stays while it has nodes.

use std::time::Duration;

use kube::Api;
use serde_json::{Value, json};
use toono_openyurt::{
    NodePool, keys,
    node_pool::{EDGE, NodePoolCondition},
};

use super::COMPONENT;
use crate::{
    conditions,
    context::Context,
    error::{SyncError, is_not_found},
    informer::Index,
    key::Key,
    object::Metadata as _,
    patch,
    recorder::Severity,
    worker::Again,
};

/// Changes of nodes are counted once in so long: a pool of ten thousand nodes that all return is some writes of it,
/// not ten thousand.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Nodes that a message names.
const NAMED: usize = 10;
/// The condition of a deleted pool that is still there.
const DELETABLE: &str = "Deletable";

/// What a pool's nodes are like.
#[derive(Debug, PartialEq, Eq)]
struct Census {
    ready: usize,
    names: Vec<String>,
}

pub(super) async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(pool) = context.node_pools.get(key) else { return Ok(None) };
    let census = Census::of(context, pool.name());
    let api: Api<NodePool> = Api::all(context.client.clone());
    if pool.is_leaving() && census.names.is_empty() {
        return release(&api, &pool, key).await;
    }
    let mut version = None;
    if let Some(change) = own_marks(&pool) {
        let patch = patch::on_top_of(&*pool, change);
        match patch::merge(&api, &key.name, &patch).await {
            Ok(written) => version = Some(written),
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(SyncError::api("mark", "NodePool", key)(error)),
        }
    }
    let pool = version.as_ref().unwrap_or(&pool);
    let Some(status) = told(pool, &census) else { return Ok(None) };
    match patch::merge_status(&api, &key.name, &patch::on_top_of(pool, json!({"status": status})))
        .await
    {
        Ok(_) if pool.is_leaving() => {
            let why = kept_by(&census.names);
            context.recorder.record(COMPONENT, pool, Severity::Warning, "PoolNotEmpty", why);
            Ok(None)
        }
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("update the status of", "NodePool", key)(error)),
    }
}

/// Lets a deleted pool go.
async fn release(api: &Api<NodePool>, pool: &NodePool, key: &Key) -> Result<Again, SyncError> {
    let finalizers = pool.metadata.finalizers.as_deref().unwrap_or_default();
    let left: Vec<&String> =
        finalizers.iter().filter(|name| *name != keys::NODE_POOL_FINALIZER).collect();
    if left.len() == finalizers.len() {
        return Ok(None);
    }
    let change = json!({"metadata": {"finalizers": left}});
    match patch::merge(api, &key.name, &patch::on_top_of(pool, change)).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("let go", "NodePool", key)(error)),
    }
}

/// The label of its type and the finalizer, where they are missing.
fn own_marks(pool: &NodePool) -> Option<Value> {
    let type_ = pool.spec.type_.as_deref().unwrap_or(EDGE).to_lowercase();
    let mut finalizers = pool.metadata.finalizers.clone().unwrap_or_default();
    let is_kept =
        pool.is_leaving() || finalizers.iter().any(|name| name == keys::NODE_POOL_FINALIZER);
    if is_kept && pool.label(keys::NODE_POOL_TYPE) == Some(&type_) {
        return None;
    }
    if !is_kept {
        finalizers.push(keys::NODE_POOL_FINALIZER.to_owned());
    }
    Some(json!({"metadata": {"labels": {keys::NODE_POOL_TYPE: type_}, "finalizers": finalizers}}))
}

/// What changes in a pool's status; none when it says all that already.
fn told(pool: &NodePool, census: &Census) -> Option<Value> {
    let status = pool.status.clone().unwrap_or_default();
    let ready = i32::try_from(census.ready).unwrap_or(i32::MAX);
    let unready = i32::try_from(census.names.len() - census.ready).unwrap_or(i32::MAX);
    let mut conditions = status.conditions.clone();
    let changed = match pool.is_leaving() {
        true => conditions::set(
            &mut conditions,
            NodePoolCondition {
                type_: DELETABLE.to_owned(),
                status: "False".to_owned(),
                reason: Some("PoolNotEmpty".to_owned()),
                message: Some(kept_by(&census.names)),
                last_transition_time: None,
            },
        ),
        false => false,
    };
    let is_told = pool.status.is_some()
        && (status.ready_node_num, status.unready_node_num) == (ready, unready)
        && status.nodes == census.names;
    if is_told && !changed {
        return None;
    }
    let mut told = json!({"readyNodeNum": ready, "unreadyNodeNum": unready, "nodes": census.names});
    if changed && let Some(fields) = patch::map_at(&mut told, &[]) {
        fields.insert("conditions".to_owned(), json!(conditions));
    }
    Some(told)
}

/// Why a deleted pool is still there.
fn kept_by(nodes: &[String]) -> String {
    let named: Vec<&str> = nodes.iter().take(NAMED).map(String::as_str).collect();
    let more = match nodes.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "The pool is deleted when it has no nodes; it has {}{more}: move them to another pool, or take the label {} off",
        named.join(", "),
        keys::NODE_POOL
    )
}

impl Census {
    fn of(context: &Context, pool: &str) -> Self {
        let nodes = context.nodes.by(Index::Pool, pool);
        let ready = nodes.iter().filter(|node| node.is_ready()).count();
        let mut names: Vec<String> =
            nodes.iter().map(|node| node.metadata.name().to_owned()).collect();
        names.sort_unstable();
        Self { ready, names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_when_it_says_something_new() {
        let pool = |status: Value| -> NodePool {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
        };
        let census = |ready, names: &[&str]| Census {
            ready,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let empty = json!({"readyNodeNum": 0, "unreadyNodeNum": 0, "nodes": []});
        assert_eq!(told(&pool(Value::Null), &census(0, &[])), Some(empty.clone()));
        assert_eq!(told(&pool(empty), &census(0, &[])), None);
        let one = json!({"readyNodeNum": 1, "unreadyNodeNum": 1, "nodes": ["a", "b"]});
        assert_eq!(told(&pool(one.clone()), &census(1, &["a", "b"])), None);
        let fewer = json!({"readyNodeNum": 0, "unreadyNodeNum": 2, "nodes": ["a", "b"]});
        assert_eq!(told(&pool(one), &census(0, &["a", "b"])), Some(fewer));
    }

    #[test]
    fn a_pool_that_is_deleted_with_nodes_says_which() {
        let names: Vec<String> = (0..12).map(|number| format!("n{number}")).collect();
        assert!(kept_by(&names).contains("n0, n1") && kept_by(&names).contains("n9 and 2 more"));
        let leaving: NodePool = serde_json::from_value(json!({"metadata": {"name": "p",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {keys::NODE_POOL_TYPE: "edge"}}}))
        .unwrap();
        assert_eq!(own_marks(&leaving), None);
        let told = told(&leaving, &Census { ready: 0, names }).unwrap();
        assert_eq!(told["conditions"][0]["reason"], "PoolNotEmpty");
    }
}
