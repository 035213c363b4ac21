//! Which address a Service gets in the cluster, and which port on nodes: the choice alone.
//!
//! Who has what is asked of the caller. As in Kubernetes, the lower part of a range is left to those
//! who choose for themselves, as long as there is room above it.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// The addresses of Services: an IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRange {
    network: u32,
    bits: u32,
}

/// The ports of Services on nodes, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not an address and a length of its prefix.
    #[error("must be an IPv4 network such as 10.43.0.0/16")]
    Network,
    /// Too small for two Services, or larger than can be searched.
    #[error("must have a prefix of 12 to 29 bits")]
    Size,
    /// Not two ports in order.
    #[error("must be two ports such as 30000-32767")]
    Ports,
}

/// Largest network: a million addresses.
const SHORTEST_PREFIX_BITS: u32 = 12;
/// Smallest network: six addresses.
const LONGEST_PREFIX_BITS: u32 = 29;

impl Default for ServiceRange {
    fn default() -> Self {
        Self { network: Ipv4Addr::new(10, 43, 0, 0).to_bits(), bits: 16 }
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 30_000, last: 32_767 }
    }
}

impl FromStr for ServiceRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (address, bits) = text.split_once('/').ok_or(RangeError::Network)?;
        let address: Ipv4Addr = address.parse().map_err(|_| RangeError::Network)?;
        let bits: u32 = bits.parse().map_err(|_| RangeError::Network)?;
        if !(SHORTEST_PREFIX_BITS..=LONGEST_PREFIX_BITS).contains(&bits) {
            return Err(RangeError::Size);
        }
        Ok(Self { network: address.to_bits() & (u32::MAX << (32 - bits)), bits })
    }
}

impl FromStr for PortRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (first, last) = text.split_once('-').ok_or(RangeError::Ports)?;
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(RangeError::Ports),
        }
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.network), self.bits)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl ServiceRange {
    /// The address of the Service by which pods reach the server.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | 1)
    }

    /// The address of the cluster's DNS: the tenth, as most clusters have it; none in a range that small.
    #[must_use]
    pub fn dns(&self) -> Option<Ipv4Addr> {
        let tenth = Ipv4Addr::from_bits(self.network.saturating_add(10));
        self.contains(tenth).then_some(tenth)
    }

    /// How many addresses Services can have: all but the network's own and its broadcast.
    fn size(self) -> u32 {
        (1 << (32 - self.bits)) - 2
    }

    /// Whether a Service can have the address.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.network);
        (1..=self.size()).contains(&offset)
    }

    /// A free address. `random` decides among the free ones.
    #[must_use]
    pub fn pick(&self, random: u64, used: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let offset = pick(self.size(), random, |offset| used(self.at(offset)))?;
        Some(self.at(offset))
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network + 1 + offset)
    }
}

impl PortRange {
    /// Whether a Service can have the port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// A free port. `random` decides among the free ones.
    #[must_use]
    pub fn pick(&self, random: u64, used: impl Fn(u16) -> bool) -> Option<u16> {
        let at = |offset: u32| u16::try_from(u32::from(self.first) + offset).unwrap_or(self.last);
        let size = u32::from(self.last - self.first) + 1;
        pick(size, random, |offset| used(at(offset))).map(at)
    }
}

/// How much of a range is left to those who choose for themselves.
fn reserved(size: u32) -> u32 {
    if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size) }
}

/// A free place of `0..size`: above the reserved part if there is one, else below.
fn pick(size: u32, random: u64, used: impl Fn(u32) -> bool) -> Option<u32> {
    let reserved = reserved(size);
    let from = |low: u32, count: u32| {
        let start = u32::try_from(random % u64::from(count.max(1))).unwrap_or(0);
        (0..count).map(move |step| low + (start + step) % count)
    };
    from(reserved, size - reserved).chain(from(0, reserved)).find(|offset| !used(*offset))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_and_printed() {
        let range: ServiceRange = "10.96.1.5/12".parse().unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/12");
        assert_eq!(range.first().to_string(), "10.96.0.1");
        assert_eq!(ServiceRange::default().to_string(), "10.43.0.0/16");
        assert_eq!(PortRange::default().to_string(), "30000-32767");
        for bad in ["", "10.0.0.0", "10.0.0.0/30", "10.0.0.0/8", "::/64"] {
            assert!(bad.parse::<ServiceRange>().is_err(), "{bad}");
        }
        for bad in ["", "1", "2-1", "0-5", "1-70000"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
        let small: ServiceRange = "10.0.0.0/29".parse().unwrap();
        let inside = |text: &str| small.contains(text.parse().unwrap());
        assert!(inside("10.0.0.1") && inside("10.0.0.6"));
        assert!(!inside("10.0.0.0") && !inside("10.0.0.7") && !inside("9.255.255.255"));
    }

    proptest! {
        /// A range gives each of its places once, and then none; its lower part comes last.
        #[test]
        fn everything_is_given_once(bits in 24u32..=29, random: u64) {
            let range: ServiceRange = format!("10.1.2.0/{bits}").parse().unwrap();
            let mut used = BTreeSet::new();
            while let Some(address) = range.pick(random, |address| used.contains(&address)) {
                prop_assert!(range.contains(address));
                let offset = address.to_bits() - range.network - 1;
                if offset < reserved(range.size()) {
                    prop_assert!(used.len() as u32 >= range.size() - reserved(range.size()));
                }
                prop_assert!(used.insert(address));
            }
            prop_assert_eq!(used.len() as u32, range.size());
        }

        #[test]
        fn ports_stay_in_their_range(random: u64) {
            let range: PortRange = "30000-30010".parse().unwrap();
            let mut used = BTreeSet::new();
            while let Some(port) = range.pick(random, |port| used.contains(&port)) {
                prop_assert!(range.contains(port) && used.insert(port));
            }
            prop_assert_eq!(used.len(), 11);
        }
    }
}
