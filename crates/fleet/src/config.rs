//! What a fleet is told when it starts.

use std::{collections::HashMap, time::Duration};

use toono_pki::CLIENT_LIFETIME;
use toono_session::ClusterSecret;

use crate::ClusterCidr;

/// How long nodes may be silent: Kubernetes' `--node-monitor-grace-period`, and where a pool has one of its
/// own, that. A pool behind a link that falls often may be given more, one whose pods are to move soon less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grace {
    all: Duration,
    pools: HashMap<Box<str>, Duration>,
}

impl Grace {
    /// The same for all nodes.
    #[must_use]
    pub fn of_all(grace: Duration) -> Self {
        Self { all: grace, pools: HashMap::new() }
    }

    /// Another one for the nodes of a pool.
    #[must_use]
    pub fn with_pool(mut self, pool: &str, grace: Duration) -> Self {
        self.pools.insert(pool.into(), grace);
        self
    }

    /// That of a pool's nodes.
    pub(crate) fn of(&self, pool: &str) -> Duration {
        // Most clusters have none of their own, and this is asked at each heartbeat.
        if self.pools.is_empty() {
            return self.all;
        }
        self.pools.get(pool).copied().unwrap_or(self.all)
    }
}

impl Default for Grace {
    /// As in Kubernetes before 1.32, and as is said of the edge: four heartbeats.
    fn default() -> Self {
        Self::of_all(Duration::from_secs(40))
    }
}

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
    /// How long a node may be silent until it is not ready.
    pub grace: Grace,
    /// The UDP port that nodes are told to send heartbeats to, on the server's address.
    pub udp_port: u16,
    /// A dial-back tunnel that carries no request for this long is closed: no connection stands
    /// while no one asks.
    pub tunnel_linger: Duration,
    /// For how long a node's certificate is good; it asks for the next one long before.
    pub certificate_lifetime: Duration,
    /// What the overview names as the server's version.
    pub version: String,
}

impl FleetConfig {
    /// The defaults: a heartbeat each 10 s, 40 s of grace, tunnels lingering 15 s, pods in 10.244.0.0/16,
    /// certificates for a year.
    #[must_use]
    pub fn new(secrets: Vec<ClusterSecret>, udp_port: u16, version: impl Into<String>) -> Self {
        Self {
            secrets,
            cluster_cidr: ClusterCidr::DEFAULT,
            heartbeat: Duration::from_secs(10),
            grace: Grace::default(),
            udp_port,
            tunnel_linger: Duration::from_secs(15),
            certificate_lifetime: CLIENT_LIFETIME.unsigned_abs(),
            version: version.into(),
        }
    }
}
