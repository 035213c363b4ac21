//! What a lab is to look like: its name, its pools, and the names and addresses that follow from them. It
//! owns the plan, and touches nothing.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toono_net::{Cidr, LinkName, Mark};

/// The name of the lab that `toono up` makes.
pub const DEFAULT_NAME: &str = "toono";

/// The default network between the cloud and the sites' routers. It is for carriers' NAT (RFC 6598), which is
/// what it plays here, and so it is nobody's LAN.
pub const DEFAULT_SUBNET: &str = "100.64.0.0/24";

/// The longest name of a lab: what leaves room for `-w199` in the 15 bytes of a link's name.
const NAME_MAX: usize = 10;

/// The most pools: the routers' addresses end at 10 + 199 in the smallest network.
const POOLS_MAX: usize = 200;

/// The most nodes of a pool: a `/24` from `.10` on.
const NODES_MAX: usize = 200;

/// Where routers begin in the lab's network, and nodes in a LAN.
const FIRST_HOST: u8 = 10;

/// The name of a lab: `toono`, or `toono-` and up to four lower-case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

/// A lab as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabConfig {
    /// Its name, of which the names of all its namespaces and links are made.
    pub name: LabName,
    /// The network between the cloud and the routers: IPv4, `/24` or larger.
    pub subnet: String,
    /// Its pools, one site each.
    pub pools: Vec<PoolSpec>,
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// `pool-` and lower-case letters and digits.
    pub name: String,
    /// How many nodes it has.
    pub nodes: usize,
}

/// Why a lab cannot be as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The name is not one of a lab.
    #[error(
        "{name:?} cannot name a lab: it must be \"toono\", or \"toono-\" and 1 to 4 lower-case letters and digits"
    )]
    Name {
        /// The refused name.
        name: String,
    },
    /// The name is not one of a pool, or is used twice.
    #[error(
        "{name:?} cannot name a pool: it must be \"pool-\" and 1 to 20 lower-case letters and digits, once each"
    )]
    PoolName {
        /// The refused name.
        name: String,
    },
    /// The network is none, or too small.
    #[error(
        "{subnet:?} cannot be the network of a lab: it must be an IPv4 network of /24 or larger"
    )]
    Subnet {
        /// The refused text.
        subnet: String,
    },
    /// Too many, or none.
    #[error("a lab has 1 to 200 pools of 0 to 200 nodes, not {pools} pools of up to {nodes}")]
    Size {
        /// Pools asked for.
        pools: usize,
        /// The largest number of nodes asked for.
        nodes: usize,
    },
}

impl LabName {
    /// Takes `name` when it is one of a lab.
    pub fn new(name: impl Into<String>) -> Result<Self, ConfigError> {
        let name = name.into();
        let tail = name.strip_prefix(DEFAULT_NAME);
        let valid = match tail.map(|tail| tail.strip_prefix('-')) {
            Some(None) => tail == Some(""),
            // "pool" begins what comes after a lab's name in the names of its namespaces.
            Some(Some(own)) => is_plain(own) && own != "pool" && name.len() <= NAME_MAX,
            None => false,
        };
        if valid { Ok(Self(name)) } else { Err(ConfigError::Name { name }) }
    }

    /// The name of the lab that belongs to a directory, the same for ever, so that several fit on one machine.
    pub fn of_directory(path: &Path) -> Result<Self, ConfigError> {
        Self::new(format!("{DEFAULT_NAME}-{}", short_hash(path)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the names of this lab's namespaces start with, and those of no other lab.
    pub(crate) fn netns_prefix(&self) -> String {
        format!("{self}-pool-")
    }

    /// What everything of this lab is marked with.
    pub(crate) fn mark(&self) -> Result<Mark, toono_net::MarkError> {
        Mark::new(format!("toono:lab/{self}"))
    }

    /// The bridge on the host, where the cloud meets the routers.
    pub(crate) fn bridge(&self) -> Result<LinkName, toono_net::LinkNameError> {
        LinkName::new(format!("{self}-wan"))
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for LabName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

/// Four characters of a path: FNV-1a with a finishing mix (without one, the last letters of a path
/// would not reach the upper bits), so that it is the same for ever.
fn short_hash(path: &Path) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (0..4)
        .filter_map(|place| ALPHABET.get(usize::try_from(hash >> (44 + 5 * place)).ok()? & 31))
        .map(|byte| char::from(*byte))
        .collect()
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

impl LabConfig {
    /// A lab of pools of equal size, named `pool-a`, `pool-b`, … `pool-z`, `pool-aa`, …
    pub fn uniform(name: LabName, pools: usize, nodes_per_pool: usize) -> Self {
        let pools = (0..pools)
            .map(|index| PoolSpec {
                name: format!("pool-{}", letters(index)),
                nodes: nodes_per_pool,
            })
            .collect();
        Self { name, subnet: DEFAULT_SUBNET.to_owned(), pools }
    }

    /// The address of the cloud, where the sites' nodes reach it.
    pub fn cloud_address(&self) -> Result<Ipv4Addr, ConfigError> {
        self.plan().map(|plan| plan.cloud.0)
    }

    /// Every name and address that follows.
    pub(crate) fn plan(&self) -> Result<Plan, ConfigError> {
        let subnet = self.parse_subnet()?;
        let largest = self.pools.iter().map(|pool| pool.nodes).max().unwrap_or(0);
        if self.pools.is_empty() || self.pools.len() > POOLS_MAX || largest > NODES_MAX {
            return Err(ConfigError::Size { pools: self.pools.len(), nodes: largest });
        }
        let mut pools: Vec<PoolPlan> = Vec::new();
        for (number, spec) in (0_u8..).zip(&self.pools) {
            let own =
                spec.name.strip_prefix("pool-").filter(|own| is_plain(own) && own.len() <= 20);
            if own.is_none() || pools.iter().any(|pool| pool.name == spec.name) {
                return Err(ConfigError::PoolName { name: spec.name.clone() });
            }
            pools.push(self.plan_pool(number, spec, subnet));
        }
        Ok(Plan { cloud: (host(subnet.0, 1), subnet.1), pools })
    }

    fn plan_pool(&self, number: u8, spec: &PoolSpec, subnet: (Ipv4Addr, u8)) -> PoolPlan {
        let site = Ipv4Addr::new(192, 168, number.saturating_add(1), 0);
        let nodes = (0..spec.nodes).filter_map(|index| u8::try_from(index).ok()).map(|index| {
            let name = format!("{}-{}", spec.name, u16::from(index) + 1);
            NodePlan {
                netns: format!("{}-{name}", self.name),
                port: format!("node-{}", u16::from(index) + 1),
                address: host(site, FIRST_HOST.saturating_add(index)),
                name,
            }
        });
        PoolPlan {
            name: spec.name.clone(),
            router: format!("{}-{}-router", self.name, spec.name),
            uplink: format!("{}-w{number}", self.name),
            wan: (host(subnet.0, FIRST_HOST.saturating_add(number)), subnet.1),
            lan: host(site, 1),
            nodes: nodes.collect(),
        }
    }

    fn parse_subnet(&self) -> Result<(Ipv4Addr, u8), ConfigError> {
        let error = || ConfigError::Subnet { subnet: self.subnet.clone() };
        let cidr: Cidr = self.subnet.parse().map_err(|_| error())?;
        match cidr.network().address() {
            std::net::IpAddr::V4(network) if (8..=24).contains(&cidr.length()) => {
                Ok((network, cidr.length()))
            }
            _ => Err(error()),
        }
    }
}

/// `a` … `z`, `aa` …
fn letters(index: usize) -> String {
    let last = char::from(b'a' + u8::try_from(index % 26).unwrap_or(0));
    match index / 26 {
        0 => last.to_string(),
        more => format!("{}{last}", letters(more - 1)),
    }
}

fn host(network: Ipv4Addr, number: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(network.to_bits() | u32::from(number))
}

/// Every name and address of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The cloud's address and the length of the network's prefix.
    pub(crate) cloud: (Ipv4Addr, u8),
    pub(crate) pools: Vec<PoolPlan>,
}

/// Every name and address of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolPlan {
    pub(crate) name: String,
    /// The router's namespace.
    pub(crate) router: String,
    /// The host's end of the cable to the router.
    pub(crate) uplink: String,
    pub(crate) wan: (Ipv4Addr, u8),
    /// The router's address in the LAN, a `/24`.
    pub(crate) lan: Ipv4Addr,
    pub(crate) nodes: Vec<NodePlan>,
}

/// Every name and address of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePlan {
    pub(crate) name: String,
    pub(crate) netns: String,
    /// The router's end of the cable to the node.
    pub(crate) port: String,
    pub(crate) address: Ipv4Addr,
}

impl Plan {
    pub(crate) fn pool(&self, name: &str) -> Option<&PoolPlan> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    pub(crate) fn node(&self, name: &str) -> Option<&NodePlan> {
        self.pools.iter().flat_map(|pool| &pool.nodes).find(|node| node.name == name)
    }

    /// The names of all namespaces.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.pools.iter().flat_map(|pool| {
            std::iter::once(pool.router.as_str())
                .chain(pool.nodes.iter().map(|node| node.netns.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_labs() {
        for good in ["toono", "toono-a", "toono-ab12"] {
            let name = LabName::new(good).unwrap();
            assert!(LinkName::new(format!("{name}-w199")).is_ok());
            assert!(name.bridge().is_ok() && name.mark().is_ok());
        }
        for bad in
            ["", "lab", "toonoo", "toono-", "toono-pool", "toono-abcde", "toono-A", "toono-a-b"]
        {
            assert!(LabName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plan_has_the_names_and_addresses() {
        let config = LabConfig::uniform(LabName::new("toono").unwrap(), 2, 2);
        let plan = config.plan().unwrap();
        assert_eq!(config.cloud_address().unwrap(), Ipv4Addr::new(100, 64, 0, 1));
        let pool = plan.pool("pool-b").unwrap();
        assert_eq!(
            (pool.router.as_str(), pool.uplink.as_str()),
            ("toono-pool-b-router", "toono-w1")
        );
        assert_eq!(pool.wan, (Ipv4Addr::new(100, 64, 0, 11), 24));
        let node = plan.node("pool-b-2").unwrap();
        assert_eq!(
            (node.netns.as_str(), node.address),
            ("toono-pool-b-2", Ipv4Addr::new(192, 168, 2, 11))
        );
        assert!(plan.namespaces().all(|name| name.starts_with(&config.name.netns_prefix())));
        assert_eq!(letters(25) + &letters(26) + &letters(27), "zaaab");
    }

    #[test]
    fn what_cannot_be() {
        let config = LabConfig::uniform(LabName::new("toono").unwrap(), 2, 2);
        for subnet in ["", "100.64.0.0", "100.64.0.0/25", "fd00::/64"] {
            let bad = LabConfig { subnet: subnet.to_owned(), ..config.clone() };
            assert!(matches!(bad.plan(), Err(ConfigError::Subnet { .. })), "{subnet}");
        }
        for names in
            [["pool-a", "pool-a"], ["pool-a", "b"], ["pool-a", "pool-"], ["pool-a", "pool-a-1"]]
        {
            let pools = names.map(|name| PoolSpec { name: name.to_owned(), nodes: 1 }).to_vec();
            let bad = LabConfig { pools, ..config.clone() };
            assert!(matches!(bad.plan(), Err(ConfigError::PoolName { .. })), "{names:?}");
        }
        for (pools, nodes) in [(0, 1), (201, 1), (1, 201)] {
            let bad = LabConfig::uniform(config.name.clone(), pools, nodes);
            assert!(matches!(bad.plan(), Err(ConfigError::Size { .. })), "{pools} {nodes}");
        }
    }
}
