//! One node of a pool: it gets what its pool gives, or gives back what a pool gave that it is no longer in.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Taint, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Api;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toono_openyurt::{NodePool, keys};

use super::{
    COMPONENT,
    attributes::{self, Attributes, wanted},
};
use crate::{
    context::Context,
    error::{SyncError, is_invalid, is_not_found},
    key::Key,
    kinds::{kind, node::Node},
    patch,
    recorder::Severity,
    worker::Again,
};

/// A node by what pools change of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Member {
    metadata: ObjectMeta,
    spec: MemberSpec,
}
kind!(Member, ClusterResourceScope, "", "v1", "Node", "nodes");

/// The part of a node's spec that pools change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct MemberSpec {
    taints: Option<Vec<Taint>>,
}

/// Whether there is nothing to do for a node.
pub(super) fn is_right(node: &Node, pool: impl Fn(&Key) -> Option<Arc<NodePool>>) -> bool {
    match node.pool() {
        "" => {
            node.given().is_none()
                && node
                    .label(keys::DESIRED_NODE_POOL)
                    .is_none_or(|asked| pool(&Key::new("", asked)).is_none())
        }
        name => {
            let given = node.given().map(|text| &**text);
            match pool(&Key::new("", name)) {
                Some(pool) => attributes::is_right(given, &wanted(Some(&pool))),
                None => given.is_none(),
            }
        }
    }
}

pub(super) async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(cached) = context.nodes.get(key) else { return Ok(None) };
    if is_right(&cached, |pool| context.node_pools.get(pool)) {
        return Ok(None);
    }
    let api: Api<Member> = Api::all(context.client.clone());
    let failed = SyncError::api("read", "Node", key);
    let Some(member) = api.get_opt(&key.name).await.map_err(failed)? else { return Ok(None) };
    let label = |key: &str| member.metadata.labels.as_ref().and_then(|all| all.get(key).cloned());
    let (current, asked) =
        (label(keys::NODE_POOL).filter(|pool| !pool.is_empty()), label(keys::DESIRED_NODE_POOL));
    let joins = current.is_none();
    let name = current.or(asked).unwrap_or_default();
    let pool = context.node_pools.get(&Key::new("", &name));
    let change = attributes::patch(&of(&member), &wanted(pool.as_deref()));
    let mut change = change.unwrap_or_else(|| json!({"metadata": {"labels": {}}}));
    if joins
        && pool.is_some()
        && let Some(labels) = patch::map_at(&mut change, &["metadata", "labels"])
    {
        labels.insert(keys::NODE_POOL.to_owned(), json!(name));
    }
    match patch::merge(&api, &key.name, &patch::on_top_of(&member, change)).await {
        Ok(_) => {
            tell(context, &cached, pool.as_deref(), joins);
            Ok(None)
        }
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => {
            if let Some(pool) = pool.as_deref().filter(|_| is_invalid(&error)) {
                let why = format!("Node {} cannot have what the pool gives: {error}", key.name);
                context.recorder.record(
                    COMPONENT,
                    pool,
                    Severity::Warning,
                    "InvalidAttributes",
                    why,
                );
            }
            Err(SyncError::api("give what its pool gives to", "Node", key)(error))
        }
    }
}

fn tell(context: &Context, node: &Node, pool: Option<&NodePool>, joins: bool) {
    let (reason, message) = match pool {
        Some(pool) if joins => {
            ("JoinedNodePool", format!("Joined the pool {}, as asked for", pool.name()))
        }
        Some(pool) => {
            ("NodePoolAttributes", format!("Has what the pool {} gives its nodes", pool.name()))
        }
        None => ("LeftNodePool", "Has no more what the pool it was in gave it".to_owned()),
    };
    context.recorder.record(COMPONENT, node, Severity::Normal, reason, message);
}

fn of(member: &Member) -> Attributes {
    Attributes {
        labels: member.metadata.labels.clone().unwrap_or_default(),
        annotations: member.metadata.annotations.clone().unwrap_or_default(),
        taints: member.spec.taints.clone().unwrap_or_default(),
    }
}
