//! The cluster's pod addresses and how they are dealt out: the n-th subnet goes to node n.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// One node's share: 254 pods.
const NODE_PREFIX: u8 = 24;

/// An IPv4 network that all pods' addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterCidr {
    base: u32,
    prefix: u8,
}

/// The text is no usable cluster network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no IPv4 network of a prefix length from 1 to {NODE_PREFIX}, such as 10.244.0.0/16"
)]
pub struct BadCidr {
    text: String,
}

impl ClusterCidr {
    /// `10.244.0.0/16`, as Flannel's and kubeadm's examples.
    pub const DEFAULT: Self = Self { base: 0x0af4_0000, prefix: 16 };

    /// The subnet of the node with this index, or none when the network holds no more.
    #[must_use]
    pub fn subnet(&self, index: u32) -> Option<String> {
        if u64::from(index) >= u64::from(self.subnets()) {
            return None;
        }
        let address = self.base.checked_add(index.checked_shl(32 - u32::from(NODE_PREFIX))?)?;
        Some(format!("{}/{NODE_PREFIX}", Ipv4Addr::from(address)))
    }

    /// How many nodes it has room for.
    #[must_use]
    pub fn subnets(&self) -> u32 {
        1 << (NODE_PREFIX - self.prefix)
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
        if !(1..=NODE_PREFIX).contains(&prefix) || base & (u32::MAX >> prefix) != 0 {
            return Err(bad());
        }
        Ok(Self { base, prefix })
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
        for bad in ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/25", "0.0.0.0/0", "::/64", "10.0.0.0/x"]
        {
            assert!(bad.parse::<ClusterCidr>().is_err(), "{bad}");
        }
    }
}
