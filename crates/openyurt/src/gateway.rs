//! `Gateway`: how the nodes of one network are reached from others.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::object::object;

object! {
    /// How the nodes of one network are reached from others.
    Gateway, ClusterResourceScope, "raven.openyurt.io", "v1beta1", "gateways", {
        /// Which nodes, by which ends.
        spec: GatewaySpec,
        /// The nodes and the ends that there are.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<GatewayStatus>,
    }
}

/// Which nodes, by which ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Selects the nodes behind it; those that carry its name as label [`GATEWAY`](crate::keys::GATEWAY) when not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// `PublicIP` or `LoadBalancer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expose_type: Option<String>,
    /// Nodes that may be its ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// How requests are forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_config: Option<ProxyConfig>,
    /// How packets are carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_config: Option<TunnelConfig>,
}

/// A node that is an end of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// The node.
    pub node_name: String,
    /// `proxy` or `tunnel`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The port it is exposed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// The node is behind a NAT.
    #[serde(rename = "underNAT")]
    pub under_nat: bool,
    /// The kind of that NAT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_type: Option<String>,
    /// The address it is exposed at.
    #[serde(rename = "publicIP", skip_serializing_if = "Option::is_none")]
    pub public_ip: Option<String>,
    /// The port that the NAT shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<i32>,
    /// Settings of the node's agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

/// How requests are forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyConfig {
    /// How many ends do it.
    #[serde(rename = "Replicas")]
    pub replicas: i32,
    /// Ports of plain requests.
    #[serde(rename = "proxyHTTPPort", skip_serializing_if = "Option::is_none")]
    pub proxy_http_port: Option<String>,
    /// Ports of TLS requests.
    #[serde(rename = "proxyHTTPSPort", skip_serializing_if = "Option::is_none")]
    pub proxy_https_port: Option<String>,
}

/// How packets are carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelConfig {
    /// How many ends do it.
    #[serde(rename = "Replicas")]
    pub replicas: i32,
}

/// The nodes and the ends that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayStatus {
    /// The nodes behind it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<GatewayNode>,
    /// Nodes that are its ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub active_endpoints: Vec<Endpoint>,
}

/// A node behind a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayNode {
    /// The node.
    pub node_name: String,
    /// Its address within its network.
    #[serde(rename = "privateIP")]
    pub private_ip: String,
    /// The addresses of its pods.
    pub subnets: Vec<String>,
}
