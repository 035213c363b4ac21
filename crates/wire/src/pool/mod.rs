//! What every node of a pool must know: Services and their endpoints, as records that change one by one.
//!
//! A *part* is a set of [`Records`], each a key and a compact JSON text; [`Version`] names what a part is at
//! one moment. [`Frame`](frame::Frame)s carry it, whole or since a version, from whoever has it to whoever
//! believes the cloud's signature. It decides nothing: which records a pool has is the cloud's to say.
//!
//! One endpoint is one record, so that a pod that moves costs a record and no EndpointSlice of a hundred; what
//! the endpoints of a slice have in common is a record of the slice's.

pub mod frame;
mod layers;
pub mod near;
mod part;
mod pass;
mod records;

pub use layers::{
    BadLayerRequest, BadLayerSources, LayerRequest, LayerSources, LayerWish, MAX_LAYER_ANSWER,
    MAX_LAYER_SOURCES,
};
pub use part::{Misfit, Part, Touched};
pub use pass::{BadPass, Pass};
pub use records::{Records, record_digest};

use serde::{Deserialize, Serialize};

/// Where a hub serves.
pub const HUB_PORT: u16 = 10_271;
/// Where each node of a pool serves images' layers to the others.
pub const LAYERS_PORT: u16 = 10_274;

/// What a part is at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Grows with each change at one server; says nothing about what another server has under it.
    pub revision: u64,
    /// [`Records::digest`].
    pub digest: u64,
}

impl Version {
    /// The version of who has nothing.
    pub const NONE: Self = Self { revision: 0, digest: 0 };

    /// What it adds to the bundle digest that a heartbeat carries: the low 32 bits of its digest.
    #[must_use]
    pub fn share(self) -> u32 {
        let [.., a, b, c, d] = self.digest.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// What the cloud tells a node of its pool's part, beside the node's own bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolNews {
    /// The pool; empty for nodes without one.
    pub name: String,
    /// What the part is now.
    #[serde(flatten)]
    pub version: Version,
    /// Who serves the part in the pool, if anyone does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<Hub>,
    /// What the hub wants to see: a [`Pass`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
    /// What the pool's nodes know each other by, in hexadecimal; none where there is no pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The node that serves its pool's part to its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hub {
    /// The node's name.
    pub node: String,
    /// Its internal address.
    pub address: std::net::IpAddr,
    /// The TCP port there.
    pub port: u16,
}

/// The key of a Service's record.
#[must_use]
pub fn service_key(namespace: &str, name: &str) -> String {
    format!("service/{namespace}/{name}")
}

/// The key of what the endpoints of an EndpointSlice have in common.
#[must_use]
pub fn slice_key(namespace: &str, slice: &str) -> String {
    format!("slice/{namespace}/{slice}")
}

/// The key of an endpoint: its slice, and its first address, which stands for it there.
#[must_use]
pub fn endpoint_key(namespace: &str, slice: &str, address: &str) -> String {
    format!("endpoint/{namespace}/{slice}/{address}")
}

/// The key of a node's record.
#[must_use]
pub fn node_key(name: &str) -> String {
    format!("node/{name}")
}

/// What its neighbours must know of a node; its name is in its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRecord {
    /// Its internal addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Its pod networks.
    #[serde(rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
    /// Its zone, `topology.kubernetes.io/zone`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

/// What a proxy and a DNS server must know of a Service; the names are `v1.ServiceSpec`'s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceRecord {
    /// `None` for a headless Service, as in its spec; empty for an ExternalName.
    #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    /// `ClusterIP` where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Where an ExternalName points.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_name: String,
    /// As in the spec.
    #[serde(rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<String>,
    /// The addresses of `status.loadBalancer.ingress`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<String>,
    /// As in the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Seconds for which a client stays with one endpoint; 0 for no affinity.
    #[serde(skip_serializing_if = "is_zero")]
    pub affinity_seconds: u32,
    /// `externalTrafficPolicy: Local`.
    #[serde(skip_serializing_if = "is_false")]
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    #[serde(skip_serializing_if = "is_false")]
    pub internal_local: bool,
    /// `publishNotReadyAddresses`.
    #[serde(skip_serializing_if = "is_false")]
    pub publish_not_ready: bool,
    /// OpenYurt's `openyurt.io/topologyKeys`, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topology_keys: String,
    /// OpenYurt's `nodeport.openyurt.io/listen`, as written: which pools' nodes have the node ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Empty when the Service has one port and does not name it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `TCP` where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The Service's own port.
    pub port: u16,
    /// The port on every node; 0 for none.
    #[serde(skip_serializing_if = "is_zero_port")]
    pub node_port: u16,
}

/// What the endpoints of an EndpointSlice have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SliceRecord {
    /// The Service in the same namespace.
    pub service: String,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub family: String,
    /// Where the endpoints listen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
}

/// A port of the endpoints of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The name of the Service's port that leads here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `TCP` where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// 0 for all ports.
    #[serde(skip_serializing_if = "is_zero_port")]
    pub port: u16,
}

/// One endpoint. Its first address is in its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointRecord {
    /// Addresses after the first, which nobody has today.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
    /// The node that it is on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The name that DNS has for it below its Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Its zone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Whose zones should prefer it: `hints.forZones`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
    /// Which nodes should prefer it: `hints.forNodes`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// `conditions.ready` is false. Kubernetes takes an endpoint that does not say for ready.
    #[serde(rename = "unready", skip_serializing_if = "is_false")]
    pub is_unready: bool,
    /// `conditions.serving` is true though it is not ready: it ends, and still answers.
    #[serde(rename = "serving", skip_serializing_if = "is_false")]
    pub still_serves: bool,
    /// `conditions.terminating` is true.
    #[serde(rename = "terminating", skip_serializing_if = "is_false")]
    pub is_terminating: bool,
    /// Its node does not answer. Said by a neighbour to itself alone, never by the cloud: it is used where nothing
    /// else is left.
    #[serde(rename = "silent", skip_serializing_if = "is_false")]
    pub is_silent: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands on references")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands on references")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands on references")]
fn is_zero_port(value: &u16) -> bool {
    *value == 0
}
