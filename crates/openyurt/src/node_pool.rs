//! `NodePool`: nodes of one place. Membership is the node's label [`NODE_POOL`](crate::keys::NODE_POOL).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Taint, apimachinery::pkg::apis::meta::v1::Time};
use serde::{Deserialize, Serialize};

use crate::object::object;

object! {
    /// Nodes of one place, as stored.
    NodePool, ClusterResourceScope, "apps.openyurt.io", "v1beta2", "nodepools", {
        /// What its nodes are to have in common.
        spec: NodePoolSpec,
        /// What its nodes are like.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<NodePoolStatus>,
    }
}

/// What a pool's nodes are to have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodePoolSpec {
    /// [`EDGE`] or [`CLOUD`].
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Pods of its nodes share the network of their host.
    pub host_network: bool,
    /// Given to each of its nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Given to each of its nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Given to each of its nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Its nodes reach one another.
    pub inter_connectivity: bool,
    /// Leaders fetch for the pool what all its nodes must know.
    pub enable_leader_election: bool,
    /// [`RANDOM`] or [`MARK`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_election_strategy: Option<String>,
    /// The labels of nodes that may lead, with [`MARK`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leader_node_label_selector: BTreeMap<String, String>,
    /// How many leaders there are to be; below one means one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_replicas: Option<i32>,
    /// What all nodes of the pool must know, beside [`ALWAYS_SHARED`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pool_scope_metadata: Vec<GroupVersionResource>,
}

/// A pool of nodes at the edge.
pub const EDGE: &str = "Edge";
/// A pool of nodes in the cloud.
pub const CLOUD: &str = "Cloud";
/// Any ready node may lead.
pub const RANDOM: &str = "random";
/// Ready nodes that the selector selects may lead.
pub const MARK: &str = "mark";
/// The condition that says whether there are as many leaders as wanted.
pub const LEADER_READY: &str = "LeaderReady";
/// What all nodes of any pool must know, as group, version and resource.
pub const ALWAYS_SHARED: [(&str, &str, &str); 2] =
    [("", "v1", "services"), ("discovery.k8s.io", "v1", "endpointslices")];

/// Names a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupVersionResource {
    /// Empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// The plural.
    pub resource: String,
}

/// What a pool's nodes are like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// How many of its nodes are ready.
    pub ready_node_num: i32,
    /// How many of its nodes are not ready.
    pub unready_node_num: i32,
    /// Its nodes' names, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Its leaders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leader_endpoints: Vec<Leader>,
    /// How many leaders there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_num: Option<i32>,
    /// When leaders were elected last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_last_elected_time: Option<Time>,
    /// What is there to know beyond that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<NodePoolCondition>,
}

/// A node that fetches for its pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Leader {
    /// The node.
    pub node_name: String,
    /// Its internal IP.
    pub address: String,
}

/// A condition of a pool, or of a YurtAppSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodePoolCondition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When the status changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// Why, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in words for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl NodePool {
    /// Its name; empty only before it was created.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// A label of the pool itself, not of its nodes.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        Some(self.metadata.labels.as_ref()?.get(key)?)
    }

    /// It was deleted and waits for what must be done before.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

impl NodePoolSpec {
    /// How many leaders there are to be.
    #[must_use]
    pub fn leaders_wanted(&self) -> usize {
        usize::try_from(self.leader_replicas.unwrap_or(1).max(1)).unwrap_or(1)
    }

    /// Whether a node that has these labels may lead.
    pub fn may_lead<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.leader_election_strategy.as_deref() != Some(MARK)
            || self
                .leader_node_label_selector
                .iter()
                .all(|(key, value)| label(key) == Some(value.as_str()))
    }

    /// What all its nodes must know, in order, each once.
    #[must_use]
    pub fn shared(&self) -> BTreeSet<GroupVersionResource> {
        let always = ALWAYS_SHARED.map(|(group, version, resource)| GroupVersionResource {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
        });
        always.into_iter().chain(self.pool_scope_metadata.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_is_written_as_it_was_read() {
        let pool = json!({"apiVersion": "apps.openyurt.io/v1beta2", "kind": "NodePool",
            "metadata": {"name": "hangzhou"},
            "spec": {"type": "Edge", "hostNetwork": true, "interConnectivity": false,
                "enableLeaderElection": true, "leaderReplicas": 2, "leaderElectionStrategy": "mark",
                "leaderNodeLabelSelector": {"apps.openyurt.io/leader": "true"},
                "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"readyNodeNum": 1, "unreadyNodeNum": 0, "nodes": ["n"],
                "leaderEndpoints": [{"nodeName": "n", "address": "10.0.0.1"}]}});
        let read: NodePool = serde_json::from_value(pool.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), pool);
        assert_eq!(read.spec.leaders_wanted(), 2);
        assert!(read.spec.may_lead(|_| Some("true")) && !read.spec.may_lead(|_| None));
        assert_eq!(read.spec.shared().len(), 2);
        let bare: NodePool = serde_json::from_value(json!({"metadata": {"name": "p"}})).unwrap();
        assert!(bare.spec.leaders_wanted() == 1 && bare.spec.may_lead(|_| None));
    }
}
