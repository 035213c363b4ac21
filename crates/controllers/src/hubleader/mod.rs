//! Who fetches for a pool what all its nodes must know: ready nodes of it that its owner lets lead. Said in the
//! pool's status, in a ConfigMap that every node of the pool reads, and by a ClusterRole of what they may fetch.

mod config;
mod elect;
mod role;

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toono_openyurt::{
    NodePool,
    node_pool::{LEADER_READY, Leader, NodePoolCondition, NodePoolStatus},
};

use crate::{
    conditions,
    context::Context,
    error::{SyncError, is_not_found},
    informer::{Change, Index},
    key::Key,
    kinds::{kind, node::Node},
    object::Metadata as _,
    patch,
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};

/// Who says it in events.
const COMPONENT: &str = "hubleader-controller";

/// A node by where it is reached.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Reached {
    metadata: ObjectMeta,
    status: ReachedStatus,
}
kind!(Reached, ClusterResourceScope, "", "v1", "Node", "nodes");

/// The part of a node's status that says where it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ReachedStatus {
    addresses: Vec<Address>,
}

/// One of a node's addresses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(rename = "type")]
    type_: String,
    address: String,
}

/// The controller of leaders.
pub(crate) struct Controller {
    pools: Arc<WorkQueue<Key>>,
    role: Arc<WorkQueue<&'static str>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let pools: Arc<WorkQueue<Key>> = Arc::new(WorkQueue::new());
        let role = Arc::new(WorkQueue::new());
        context.node_pools.on_change({
            let (pools, role) = (Arc::clone(&pools), Arc::clone(&role));
            move |change| {
                if let Some(pool) = &change.new {
                    pools.add(Key::of(&pool.metadata));
                }
                if shared(change.old.as_ref()) != shared(change.new.as_ref()) {
                    role.add(role::NAME);
                }
            }
        });
        context.nodes.on_change({
            let (pools, all) = (Arc::clone(&pools), context.node_pools.reader());
            move |change| {
                for name in pools_to_elect(change) {
                    let key = Key::new("", name);
                    if all.get(&key).is_some_and(|pool| elects(&pool)) {
                        pools.add(key);
                    }
                }
            }
        });
        Self { pools, role }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.nodes.wait_synced().await;
        context.node_pools.wait_synced().await;
        self.role.add(role::NAME);
        let shared = &context;
        let pool = |key: Key| async move { sync(shared, &key).await };
        let role = |_| async move { role::sync(shared).await };
        futures::join!(
            worker::run(COMPONENT, context.config.concurrent_syncs, self.pools, pool),
            worker::run(COMPONENT, 1, self.role, role),
        );
    }
}

/// Whether a pool wants leaders. Nodes that do not reach one another have no use for them.
fn elects(pool: &NodePool) -> bool {
    pool.spec.enable_leader_election && pool.spec.inter_connectivity && !pool.is_leaving()
}

fn shared(
    pool: Option<&Arc<NodePool>>,
) -> Option<&[toono_openyurt::node_pool::GroupVersionResource]> {
    pool.map(|pool| &*pool.spec.pool_scope_metadata)
}

/// The pools that may need another leader when a node changes so.
fn pools_to_elect(change: &Change<Node>) -> Vec<&str> {
    let (old, new) = (change.old.as_deref(), change.new.as_deref());
    if let (Some(old), Some(new)) = (old, new)
        && old.is_ready() == new.is_ready()
        && old.has_labels_of(new)
    {
        return Vec::new();
    }
    let mut pools: Vec<&str> =
        old.into_iter().chain(new).map(Node::pool).filter(|pool| !pool.is_empty()).collect();
    pools.dedup();
    pools
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(pool) = context.node_pools.get(key).filter(|pool| !pool.is_leaving()) else {
        return Ok(None);
    };
    let status = pool.status.clone().unwrap_or_default();
    let leaders = match elects(&pool) {
        true => lead(context, &pool, &status.leader_endpoints).await?,
        false => Vec::new(),
    };
    if let Some(change) = told(&pool, &status, &leaders) {
        let api: Api<NodePool> = Api::all(context.client.clone());
        let change = patch::on_top_of(&*pool, json!({"status": change}));
        match patch::merge_status(&api, &key.name, &change).await {
            Ok(_) => tell(context, &pool, &status.leader_endpoints, &leaders),
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => {
                return Err(SyncError::api("tell the leaders of", "NodePool", key)(error));
            }
        }
    }
    config::sync(context, &pool, &leaders).await?;
    Ok(None)
}

/// The leaders that there are to be: those that still can, and others in the place of those that cannot. Ordered by
/// name.
async fn lead(
    context: &Context,
    pool: &NodePool,
    known: &[Leader],
) -> Result<Vec<Leader>, SyncError> {
    let members = context.nodes.by(Index::Pool, pool.name());
    let able = members.iter().filter(|node| {
        node.is_ready() && !node.metadata.is_leaving() && pool.spec.may_lead(|key| node.label(key))
    });
    let able: Vec<&str> = able.map(|node| node.metadata.name()).collect();
    let known: Vec<&str> = known.iter().map(|leader| leader.node_name.as_str()).collect();
    let mut leaders = Vec::new();
    for name in elect::order(&able, &known) {
        if leaders.len() == pool.spec.leaders_wanted() {
            break;
        }
        if let Some(address) = internal_ip(context, name).await? {
            leaders.push(Leader { node_name: name.to_owned(), address });
        }
    }
    leaders.sort_unstable();
    Ok(leaders)
}

/// Where the nodes of its pool reach a node. Asked when it matters: caches hold no addresses.
async fn internal_ip(context: &Context, name: &str) -> Result<Option<String>, SyncError> {
    let key = Key::new("", name);
    let api: Api<Reached> = Api::all(context.client.clone());
    let node = api.get_opt(name).await.map_err(SyncError::api("read", "Node", &key))?;
    let addresses = node.into_iter().flat_map(|node| node.status.addresses);
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
    let found = internal.find(|address| address.address.parse::<IpAddr>().is_ok());
    Ok(found.map(|address| address.address))
}

/// What changes in a pool's status; none when it says all that already.
fn told(pool: &NodePool, status: &NodePoolStatus, leaders: &[Leader]) -> Option<serde_json::Value> {
    let mut conditions = status.conditions.clone();
    let is_same_condition = match condition(pool, leaders) {
        Some(condition) => !conditions::set(&mut conditions, condition),
        None => {
            conditions.retain(|condition| condition.type_ != LEADER_READY);
            conditions.len() == status.conditions.len()
        }
    };
    let mut known = status.leader_endpoints.clone();
    known.sort_unstable();
    let number = i32::try_from(leaders.len()).unwrap_or(i32::MAX);
    let is_same_number = status.leader_num.unwrap_or_default() == number;
    if known == leaders && is_same_condition && is_same_number {
        return None;
    }
    let mut change =
        json!({"leaderEndpoints": leaders, "leaderNum": number, "conditions": conditions});
    if known != leaders
        && !leaders.is_empty()
        && let Some(fields) = patch::map_at(&mut change, &[])
    {
        let now = Time(jiff::Timestamp::now());
        fields.insert("leaderLastElectedTime".to_owned(), json!(now));
    }
    Some(change)
}

/// Whether there are as many leaders as wanted; nothing where none are wanted.
fn condition(pool: &NodePool, leaders: &[Leader]) -> Option<NodePoolCondition> {
    let spec = &pool.spec;
    if !spec.enable_leader_election {
        return None;
    }
    let wanted = spec.leaders_wanted();
    let (ready, reason, message) = if !spec.inter_connectivity {
        let why =
            "The pool's nodes do not reach one another: interConnectivity is false".to_owned();
        (false, "NotInterconnected", why)
    } else if leaders.len() < wanted {
        let why = format!(
            "{} of {wanted} leaders: no other node of the pool is ready, has an internal IP{}",
            leaders.len(),
            match spec.may_lead(|_| None) {
                true => "",
                false => " and the labels of leaderNodeLabelSelector",
            }
        );
        (false, "TooFewLeaders", why)
    } else {
        let names: Vec<&str> = leaders.iter().map(|leader| leader.node_name.as_str()).collect();
        (true, "LeadersElected", names.join(", "))
    };
    Some(NodePoolCondition {
        type_: LEADER_READY.to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
    })
}

fn tell(context: &Context, pool: &NodePool, old: &[Leader], new: &[Leader]) {
    for leader in new.iter().filter(|leader| !old.contains(leader)) {
        let message = format!("Node {} leads the pool, at {}", leader.node_name, leader.address);
        context.recorder.record(COMPONENT, pool, Severity::Normal, "LeaderElected", message);
    }
    for leader in old.iter().filter(|leader| !new.contains(leader)) {
        let message = format!("Node {} leads the pool no more", leader.node_name);
        context.recorder.record(COMPONENT, pool, Severity::Normal, "LeaderLost", message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pool(spec: Value, status: Value) -> NodePool {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status}))
            .unwrap()
    }

    fn leaders(names: &[&str]) -> Vec<Leader> {
        let leader =
            |name: &&str| Leader { node_name: (*name).to_owned(), address: "10.0.0.1".to_owned() };
        names.iter().map(leader).collect()
    }

    #[test]
    fn the_condition_is_true_when_there_are_as_many_leaders_as_wanted() {
        let wants = |replicas: i32, connected: bool| {
            pool(
                json!({"enableLeaderElection": true, "interConnectivity": connected,
                "leaderReplicas": replicas}),
                Value::Null,
            )
        };
        let said = |pool: &NodePool, names: &[&str]| {
            let condition = condition(pool, &leaders(names)).unwrap();
            (condition.status, condition.reason.unwrap())
        };
        let expect = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(said(&wants(2, true), &["a", "b"]), expect("True", "LeadersElected"));
        assert_eq!(said(&wants(2, true), &["a"]), expect("False", "TooFewLeaders"));
        assert_eq!(said(&wants(1, false), &[]), expect("False", "NotInterconnected"));
        assert_eq!(condition(&pool(json!({}), Value::Null), &[]), None);
    }

    #[test]
    fn a_status_is_written_when_leaders_change() {
        let spec = json!({"enableLeaderElection": true, "interConnectivity": true});
        let bare = pool(spec.clone(), Value::Null);
        let first = told(&bare, &NodePoolStatus::default(), &leaders(&["a"])).unwrap();
        assert_eq!(
            (&first["leaderNum"], &first["conditions"][0]["status"]),
            (&json!(1), &json!("True"))
        );
        assert!(first["leaderLastElectedTime"].is_string());
        let known = pool(spec, first);
        let status = known.status.clone().unwrap();
        assert_eq!(told(&known, &status, &leaders(&["a"])), None);
        let lost = told(&known, &status, &[]).unwrap();
        assert_eq!((&lost["leaderNum"], lost.get("leaderLastElectedTime")), (&json!(0), None));
        let off = pool(json!({}), Value::Null);
        let off = told(&off, &status, &[]).unwrap();
        assert_eq!((&off["leaderEndpoints"], &off["conditions"]), (&json!([]), &json!([])));
    }
}
