//! What a node and its pods use, as the node tells the cloud when somebody asks it there.

use serde::{Deserialize, Serialize};

/// Where the node's own API tells it, beside the kubelet's paths.
pub const PATH: &str = "/toono/usage";

/// A node, and its pods that have containers running.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsage {
    /// The machine as a whole.
    pub node: Usage,
    /// Its pods, in no order.
    pub pods: Vec<PodUsage>,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodUsage {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// Each running container by its name.
    pub containers: Vec<(String, Usage)>,
}

/// What is used of processors and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Billionths of a core, on average over the window; none when there is no window yet.
    pub nano_cores: Option<u64>,
    /// The window's length.
    pub window_ms: u64,
    /// The working set.
    pub memory_bytes: u64,
}
