//! Status on its way up, in one batched request, and the overview that `toono status` prints.

use serde::{Deserialize, Serialize};

/// What a node has observed since its last acknowledged report. Sending one twice is harmless.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The digest that heartbeats will carry once this report is acknowledged in full; 0 for none.
    #[serde(default)]
    pub digest: u32,
    /// A `v1.NodeStatus`, present when it changed. The Ready condition in it is the node's own view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<serde_json::Value>,
    /// Pods whose status changed.
    #[serde(default)]
    pub pods: Vec<PodReport>,
    /// Events to record, oldest first.
    #[serde(default)]
    pub events: Vec<EventReport>,
}

/// One pod's status.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodReport {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// `metadata.uid`: a report about an earlier pod of the same name changes nothing.
    pub uid: String,
    /// A `v1.PodStatus`.
    pub status: serde_json::Value,
    /// All containers are gone and the pod had a deletion timestamp: the object may be removed.
    #[serde(default)]
    pub gone: bool,
}

/// One `v1.Event` about a pod of this node, or about the node itself when `pod_uid` is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventReport {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod; empty for an event about the node.
    pub pod_uid: String,
    /// `spec.containers{NAME}`, or empty.
    pub field_path: String,
    /// `Normal` or `Warning`.
    pub kind: String,
    /// A short CamelCase reason, as the kubelet's (`Pulled`, `Started`, `BackOff`, …).
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// RFC 3339, the node's clock.
    pub at: String,
}

/// The server's answer to a [`Report`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReportReply {
    /// Uids whose pod no longer exists: the node may forget them.
    pub gone: Vec<String>,
    /// Uids that could not be written now; the node sends them again with the next report.
    pub retry: Vec<String>,
}

/// The fleet at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overview {
    /// The server's version.
    pub version: String,
    /// Seconds since the server started.
    pub uptime_s: u64,
    /// The store's revision that the fleet has seen.
    pub revision: u64,
    /// One row a node, by name.
    pub nodes: Vec<NodeOverview>,
}

/// One node's row of the [`Overview`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeOverview {
    /// The Node's name.
    pub name: String,
    /// Its pool, empty for none.
    pub pool: String,
    /// As the Node's Ready condition: `True`, `False` or `Unknown`.
    pub ready: String,
    /// Milliseconds since the last fresh heartbeat; none before the first since the server started.
    pub heartbeat_age_ms: Option<u64>,
    /// `udp`, `websocket`, or `none` before the first heartbeat.
    pub session: String,
    /// Where its datagrams come from.
    pub address: Option<String>,
    /// Pods bound to it.
    pub pods: u32,
    /// The bundle revision it holds, and the one it should hold.
    pub bundle_observed: u64,
    /// The revision of its newest desired state.
    pub bundle_desired: u64,
    /// Open dial-back tunnels.
    pub tunnels: u32,
}
