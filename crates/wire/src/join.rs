//! How a node becomes a member: a bootstrap token buys a certificate and a session key.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::pool::{PoolNews, ServiceRecord};

/// What a joining node says of itself. The bootstrap token travels as the bearer token, as with
/// kubeadm (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// A DNS-1123 subdomain; becomes the Node's name.
    pub node_name: String,
    /// Becomes the label `apps.openyurt.io/nodepool` of a Node that is in no pool; one that joins anew stays in its own.
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
    /// What the pool's part is, and who serves it there; none before the server has read it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolNews>,
    /// Where the cluster's DNS is; none before the server knows of its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<ClusterDns>,
}

/// The cluster's DNS, as pods are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDns {
    /// What the names of Services end with.
    pub domain: String,
    /// The addresses of the Service; none when it has none.
    pub addresses: Vec<IpAddr>,
}

impl ClusterDns {
    /// The domain of clusters whose administrators chose no other.
    pub const DOMAIN: &'static str = "cluster.local";
    /// The namespace and the name of the Service, as every cluster has them.
    pub const SERVICE: (&'static str, &'static str) = ("kube-system", "kube-dns");

    /// What the Service's record, as JSON, says.
    #[must_use]
    pub fn of_record(domain: &str, text: &str) -> Option<Self> {
        let record: ServiceRecord = serde_json::from_str(text).ok()?;
        let addresses = record.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        Some(Self { domain: domain.to_owned(), addresses })
    }
}

/// A node asks for its next certificate, by the one that it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// A PKCS#10 request, PEM, as in [`JoinRequest::csr_pem`].
    pub csr_pem: String,
}

/// A node's next certificate. The one that it asked by stays good until the next is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateReply {
    /// As [`JoinResponse::certificate_pem`].
    pub certificate_pem: String,
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
    /// The servers of a cluster that has several; none where there is one, which the node knows already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Server>,
}

/// One of several servers, as a node dials it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Server {
    /// Its name, which stays the same when it starts anew.
    pub name: String,
    /// A DNS name or an address; IPv6 without brackets.
    pub host: String,
    /// For HTTPS.
    pub port: u16,
    /// For datagrams.
    pub udp_port: u16,
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
