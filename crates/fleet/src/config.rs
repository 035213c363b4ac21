//! What a fleet is told when it starts.

use std::time::Duration;

use toono_session::ClusterSecret;

use crate::ClusterCidr;

/// Settings of one fleet.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// Secrets that session keys are derived from, the current epoch's first. All servers of a
    /// cluster hold the same ones, and keep them across restarts.
    pub secrets: Vec<ClusterSecret>,
    /// Where pods' addresses come from.
    pub cluster_cidr: ClusterCidr,
    /// Time between two heartbeats of a node.
    pub heartbeat: Duration,
    /// A node silent for this long is not ready; Kubernetes' `--node-monitor-grace-period`.
    pub grace: Duration,
    /// The UDP port that nodes are told to send heartbeats to, on the server's address.
    pub udp_port: u16,
    /// A dial-back tunnel that carries no request for this long is closed: no connection stands
    /// while no one asks.
    pub tunnel_linger: Duration,
    /// What the overview names as the server's version.
    pub version: String,
}

impl FleetConfig {
    /// The defaults: a heartbeat each 10 s, 40 s of grace, tunnels lingering 15 s, pods in 10.244.0.0/16.
    #[must_use]
    pub fn new(secrets: Vec<ClusterSecret>, udp_port: u16, version: impl Into<String>) -> Self {
        Self {
            secrets,
            cluster_cidr: ClusterCidr::DEFAULT,
            heartbeat: Duration::from_secs(10),
            grace: Duration::from_secs(40),
            udp_port,
            tunnel_linger: Duration::from_secs(15),
            version: version.into(),
        }
    }
}
