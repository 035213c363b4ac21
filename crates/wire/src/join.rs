//! How a node becomes a member: a bootstrap token buys a certificate and a session key.

use serde::{Deserialize, Serialize};

/// What a joining node says of itself. The bootstrap token travels as the bearer token, as with
/// kubeadm (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// A DNS-1123 subdomain; becomes the Node's name.
    pub node_name: String,
    /// Becomes the label `apps.openyurt.io/nodepool`; none leaves the node in no pool.
    pub pool: Option<String>,
    /// A PKCS#10 request, PEM. Only its public key is used: the server chooses subject and usages.
    pub csr_pem: String,
    /// A `v1.NodeStatus` as JSON: addresses, capacity, allocatable, nodeInfo.
    pub status: serde_json::Value,
}

/// A new member's identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinResponse {
    /// `metadata.uid` of the Node.
    pub node_uid: String,
    /// The client certificate (CN `system:node:NAME`, O `system:nodes`), PEM, leaf first.
    pub certificate_pem: String,
    /// The cluster's CA certificates, PEM.
    pub ca_pem: String,
    /// The session key and its place.
    pub session: SessionGrant,
    /// `spec.podCIDR` of the Node, such as `10.244.3.0/24`.
    pub pod_cidr: String,
    /// The revision of a bundle without pods that a new Node has from the start; 0 when it must ask for it.
    #[serde(default)]
    pub bundle_revision: u64,
}

/// The right to hold a heartbeat session.
#[derive(Clone, Serialize, Deserialize)]
pub struct SessionGrant {
    /// The node's dense number in the liveness table.
    pub index: u32,
    /// Counts the identities that this node's name has had; a stolen older one is refused.
    pub generation: u16,
    /// Which cluster secret the key was derived from.
    pub epoch: u8,
    /// The 32-byte session key, hexadecimal. Derived by the server, never stored there.
    pub key_hex: String,
    /// UDP port on the server's address.
    pub udp_port: u16,
    /// Milliseconds between two heartbeats.
    pub interval_ms: u32,
    /// The highest boot number that the cloud has seen under this key. A node whose own number is
    /// not above it (its disk was rolled back) goes on from here, or its heartbeats count as replays.
    #[serde(default)]
    pub boot_floor: u32,
}

/// An administrator begins an epoch of the cluster secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// The secrets before are known to others: no key of theirs counts from now on. Every node asks for
    /// another one once two heartbeats went unanswered.
    #[serde(default)]
    pub revoke: bool,
}

/// What became of a [`RotateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateReply {
    /// The new epoch.
    pub epoch: u8,
    /// Seconds until keys of it are granted, so that every server knows it before.
    pub granted_in_s: u64,
    /// Older epochs whose keys are still accepted.
    pub accepted: Vec<u8>,
    /// For how long they are at most; they end sooner when every node has moved.
    pub accepted_for_s: u64,
}

impl std::fmt::Debug for SessionGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionGrant")
            .field("index", &self.index)
            .field("generation", &self.generation)
            .field("epoch", &self.epoch)
            .field("udp_port", &self.udp_port)
            .finish_non_exhaustive()
    }
}
