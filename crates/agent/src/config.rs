//! All that can be set about an agent.

use std::path::PathBuf;

use toono_http::client::Endpoint;
use toono_images::RegistryConfig;
use toono_net::LinkName;
use toono_pki::{BootstrapToken, CaPin};
use toono_sandbox::KeeperProgram;

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
    /// Where images come from.
    pub registries: RegistryConfig,
    /// How to start a keeper.
    pub keeper: KeeperProgram,
    /// Told as the node's runtime and component version.
    pub version: String,
}

/// How a node proves itself before it has an identity.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// As `kubeadm token create` prints it.
    pub token: BootstrapToken,
    /// The CA's key that the server must prove.
    pub ca_pin: CaPin,
}
