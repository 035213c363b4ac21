//! Desired state on its way down: all that one node must know, whole or since a revision.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{pool::PoolNews, referent::ReferentName};

/// What changed for a node since the revision it asked about.
///
/// A bundle heals itself: `present` always names every pod of the node, and `referenced` all that they reference,
/// so a node that missed a deletion, or holds more than it should, converges from any bundle. And `digest` tells whether what the
/// node has after it is what the cloud means it to have; if not, the node fetches the whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// The revision that the node holds once it has stored this bundle.
    pub revision: u64,
    /// Pods added or changed since the asked revision: `v1.Pod` objects, as stored.
    pub pods: Vec<Box<RawValue>>,
    /// The uid of every pod bound to the node, changed or not.
    pub present: Vec<String>,
    /// [`Referent`](crate::referent::Referent)s that changed since the asked revision, or that none of the pods
    /// referenced then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referents: Vec<Box<RawValue>>,
    /// Every ConfigMap and Secret that there is of those that a pod of the node references which has not ended,
    /// changed or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referenced: Vec<ReferentName>,
    /// The digest of exactly the pods that are present and of all that is referenced, `pods` and `referents` as they
    /// are here. Heartbeats carry it back.
    pub digest: u32,
    /// What the pool's part is now, if the cloud has read it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolNews>,
}
