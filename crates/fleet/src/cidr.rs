//! The cluster's pod addresses and how they are dealt out: the n-th subnet goes to node n.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A node's share where nobody says otherwise, as with Kubernetes: 254 pods.
const NODE_PREFIX: u8 = 24;
/// The smallest share that has an address for a pod, besides the network's, the bridge's and the broadcast.
const LONGEST_NODE_PREFIX: u8 = 30;

/// An IPv4 network that all pods' addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterCidr {
    base: u32,
    prefix: u8,
    node_prefix: u8,
}

/// The text is no usable cluster network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no IPv4 network, such as 10.244.0.0/16, that is not all of IPv4")]
pub struct BadCidr {
    text: String,
}

/// No node can have a share of this size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nodes cannot have /{mask} of {network}: from /{} to /{LONGEST_NODE_PREFIX} are possible",
    network.prefix
)]
pub struct BadNodeMask {
    network: ClusterCidr,
    mask: u8,
}

impl ClusterCidr {
    /// `10.244.0.0/16`, as Flannel's and kubeadm's examples.
    pub const DEFAULT: Self = Self { base: 0x0af4_0000, prefix: 16, node_prefix: NODE_PREFIX };

    /// The same network, of which each node gets a subnet with this prefix length: what
    /// kube-controller-manager calls `--node-cidr-mask-size`.
    ///
    /// # Errors
    /// When it is not within the network, or leaves no address for a pod.
    pub fn with_node_mask(self, mask: u8) -> Result<Self, BadNodeMask> {
        if (self.prefix..=LONGEST_NODE_PREFIX).contains(&mask) {
            Ok(Self { node_prefix: mask, ..self })
        } else {
            Err(BadNodeMask { network: self, mask })
        }
    }

    /// The subnet of the node with this index, or none when the network holds no more.
    #[must_use]
    pub fn subnet(&self, index: u32) -> Option<String> {
        if u64::from(index) >= u64::from(self.subnets()) {
            return None;
        }
        let Self { base, node_prefix, .. } = *self;
        let address = base.checked_add(index.checked_shl(32 - u32::from(node_prefix))?)?;
        Some(format!("{}/{node_prefix}", Ipv4Addr::from(address)))
    }

    /// How many nodes it has room for.
    #[must_use]
    pub fn subnets(&self) -> u32 {
        1 << (self.node_prefix - self.prefix)
    }
}

impl FromStr for ClusterCidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let base = u32::from(address);
        // A network longer than a node's usual share is one node's.
        let node_prefix = prefix.max(NODE_PREFIX);
        if !(1..=LONGEST_NODE_PREFIX).contains(&prefix) || base & (u32::MAX >> prefix) != 0 {
            return Err(bad());
        }
        Ok(Self { base, prefix, node_prefix })
    }
}

impl fmt::Display for ClusterCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_dealt_in_order_until_none_is_left() {
        let cidr: ClusterCidr = "10.244.0.0/16".parse().unwrap();
        assert_eq!(cidr, ClusterCidr::DEFAULT);
        assert_eq!(cidr.subnet(0).unwrap(), "10.244.0.0/24");
        assert_eq!(cidr.subnet(255).unwrap(), "10.244.255.0/24");
        assert_eq!(cidr.subnet(256), None);
        let wide: ClusterCidr = "10.0.0.0/8".parse().unwrap();
        assert_eq!(wide.subnet(65_535).unwrap(), "10.255.255.0/24");
        assert_eq!(wide.subnet(u32::MAX), None);
        assert_eq!(
            "0.0.0.0/1".parse::<ClusterCidr>().unwrap().subnet(8_388_607).unwrap(),
            "127.255.255.0/24"
        );
        for bad in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/31", "0.0.0.0/0", "::/64", "10.0.0.0/x"]
        {
            assert!(bad.parse::<ClusterCidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn smaller_shares_make_room_for_more_nodes() {
        let cidr: ClusterCidr = "10.0.0.0/8".parse().unwrap();
        let many = cidr.with_node_mask(28).unwrap();
        assert_eq!(
            (many.subnets(), many.subnet(1_048_575).unwrap().as_str()),
            (1 << 20, "10.255.255.240/28")
        );
        assert_eq!(many.subnet(1), Some("10.0.0.16/28".to_owned()));
        assert_eq!(cidr.with_node_mask(8).unwrap().subnet(0), Some("10.0.0.0/8".to_owned()));
        for bad in [7, 31] {
            let error = cidr.with_node_mask(bad).unwrap_err().to_string();
            assert!(error.contains("from /8 to /30"), "{error}");
        }
        assert_eq!("10.0.0.0/25".parse::<ClusterCidr>().unwrap().subnet(0).unwrap(), "10.0.0.0/25");
    }
}
