//! Desired state on its way down: all that one node must know, whole or since a revision.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What changed for a node since the revision it asked about.
///
/// A bundle heals itself: `present` always names every pod of the node, so a node that missed a
/// deletion, or holds more than it should, converges from any bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// The revision that the node holds once it has stored this bundle.
    pub revision: u64,
    /// Pods added or changed since the asked revision: `v1.Pod` objects, as stored.
    pub pods: Vec<Box<RawValue>>,
    /// The uid of every pod bound to the node, changed or not.
    pub present: Vec<String>,
}
