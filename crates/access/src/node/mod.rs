//! What a node may read and write: only itself, and what its pods need.

pub(crate) mod authorize;
pub(crate) mod graph;
pub(crate) mod restriction;

use toono_api::UserInfo;

/// Who a request is from, as far as nodes are concerned.
pub(crate) enum Identity<'a> {
    /// This node.
    Node(&'a str),
    /// A member of the nodes' group whose name does not tell which node it is.
    Unknown,
    /// Somebody else.
    Other,
}

/// Which node the user is.
pub(crate) fn identity(user: &UserInfo) -> Identity<'_> {
    match user.node_name() {
        Some("") => Identity::Unknown,
        Some(node) => Identity::Node(node),
        None => Identity::Other,
    }
}

/// Namespace of the leases by which nodes say that they live.
pub(crate) const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The annotation that tells that a pod is the image of one that a node runs by itself.
pub(crate) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
