//! `NodeBucket`: some of a pool's nodes. It carries its pool's name as the label
//! [`POOL_OF_OBJECT`](crate::keys::POOL_OF_OBJECT).

use serde::{Deserialize, Serialize};

use crate::object::object;

/// How many nodes a bucket holds at most.
pub const MAX_NODES: usize = 100;

object! {
    /// Some of a pool's nodes.
    NodeBucket, ClusterResourceScope, "apps.openyurt.io", "v1alpha1", "nodebuckets", {
        /// How many they are.
        num_nodes: i32,
        /// The nodes.
        nodes: Vec<BucketNode>,
    }
}

/// A node in a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketNode {
    /// Its name.
    pub name: String,
}
