//! All that can be set about an agent.

use std::{net::SocketAddr, path::PathBuf};

use toono_http::client::Endpoint;
use toono_images::RegistryConfig;
use toono_net::LinkName;
use toono_pki::{BootstrapToken, CaPin};
use toono_podmachine::pressure::Rules;
use toono_sandbox::KeeperProgram;

/// The kubelet's own default of `maxPods`.
const MAX_PODS: u32 = 110;

/// What an agent is told when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the server is, for HTTPS and, on the same host, for the session.
    pub server: Endpoint,
    /// The Node's name, a DNS-1123 subdomain.
    pub name: String,
    /// The node pool to join, if any.
    pub pool: Option<String>,
    /// Everything that outlives the agent. Created where it is missing.
    pub data: PathBuf,
    /// What the first start needs; later ones ignore it.
    pub bootstrap: Option<Bootstrap>,
    /// The cgroup below which pods get theirs, such as `/toono`. Agents that share a machine need
    /// one each.
    pub cgroup_parent: String,
    /// The bridge of the pod network.
    pub bridge: LinkName,
    /// The node's resolvers (resolv.conf(5)): whom its DNS asks, and whom pods ask without it.
    pub resolv_conf: PathBuf,
    /// Where images come from.
    pub registries: RegistryConfig,
    /// Whether layers of images come from nodes of the same pool, and go to them.
    pub neighbour_layers: bool,
    /// How to start a keeper.
    pub keeper: KeeperProgram,
    /// What of the machine pods may have.
    pub room: Room,
    /// Pods that run whatever the cloud says, one a file; none for no such directory.
    pub manifests: Option<PathBuf>,
    /// Where upgrades may be approved by TCP as well, by everyone who can connect.
    pub ota_listen: Option<SocketAddr>,
    /// Told as the node's runtime and component version.
    pub version: String,
}

/// What of the machine pods may have together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What is kept from them.
    pub reserved: Reserve,
    /// What must be left of each, lest pods are evicted.
    pub eviction: Rules,
    /// How many there may be.
    pub max_pods: u32,
}

/// What is kept from pods, for all else that runs on the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Thousandths of a core.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the disk.
    pub storage: i64,
}

impl Default for Room {
    /// As with the kubelet.
    fn default() -> Self {
        Self { reserved: Reserve::default(), eviction: Rules::default(), max_pods: MAX_PODS }
    }
}

/// How a node proves itself before it has an identity.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// As `kubeadm token create` prints it.
    pub token: BootstrapToken,
    /// The CA's key that the server must prove.
    pub ca_pin: CaPin,
}
