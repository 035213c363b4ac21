//! Internet prefixes and hardware addresses as types. It owns their text forms, and asks the kernel nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address with a prefix length, such as `192.168.1.1/24`. The host part is kept: as the address of a
/// link it says both who and where; [`Cidr::network`] drops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

/// Why a text is not an address with a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address with a prefix length, such as 192.168.1.1/24")]
pub struct CidrError {
    /// The refused text.
    pub text: String,
}

impl Cidr {
    /// `address/length`. The length is at most 32 for IPv4 and 128 for IPv6.
    pub fn new(address: impl Into<IpAddr>, length: u8) -> Result<Self, CidrError> {
        let address = address.into();
        if length <= bits(address) {
            Ok(Self { address, length })
        } else {
            Err(CidrError { text: format!("{address}/{length}") })
        }
    }

    /// One single address: `/32` or `/128`.
    pub fn host(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        Self { address, length: bits(address) }
    }

    /// Every address of the family of `address`: the destination of a default route.
    pub(crate) fn any_like(address: IpAddr) -> Self {
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { address: any, length: 0 }
    }

    /// The address, host part included.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits name the network.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The same network with a zero host part.
    pub fn network(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Self { address, length: self.length }
    }

    /// Whether `address` lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, length: self.length }.network().address == self.network().address
    }

    /// Whether the two networks share an address.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.network().address) || other.contains(self.network().address)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || CidrError { text: text.to_owned() };
        let (address, length) = text.split_once('/').ok_or_else(error)?;
        if length.starts_with('+') {
            return Err(error());
        }
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let length = length.parse().map_err(|_| error())?;
        Self::new(address, length).map_err(|_| error())
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress([u8; 6]);

/// Why a text or a byte string is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an Ethernet address, such as 02:00:5e:00:53:01")]
pub struct MacAddressError {
    /// The refused text, or the bytes in its form.
    pub text: String,
}

impl MacAddress {
    /// The address of these six bytes.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// A locally administered unicast address that depends on `seed` alone. A link whose address is chosen
    /// rather than drawn keeps it when it is made anew, so its peers' neighbour tables stay right.
    pub fn derived(seed: &str) -> Self {
        // FNV-1a, 64 bits: not secret, only spread out.
        let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let [a, b, c, d, e, ..] = hash.to_be_bytes();
        Self([0x02, a, b, c, d, e])
    }

    /// The six bytes.
    pub const fn bytes(&self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<&[u8]> for MacAddress {
    type Error = MacAddressError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        <[u8; 6]>::try_from(bytes)
            .map(Self)
            .map_err(|_| MacAddressError { text: format!("{bytes:02x?}") })
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacAddressError { text: text.to_owned() };
        let bytes = text
            .split(':')
            .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None })
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(error)?;
        Self::try_from(bytes.as_slice()).map_err(|_| error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_parse_print_and_mask() {
        for (text, network) in [
            ("192.168.1.17/24", "192.168.1.0/24"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::1/0", "::/0"),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!(cidr.to_string(), text);
            assert_eq!(cidr.network().to_string(), network);
        }
        for bad in ["", "10.0.0.1", "10.0.0.1/33", "10.0.0.1/+8", "::1/129", "x/8", "10.0.0.1/"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_contain_and_overlap() {
        let wide: Cidr = "100.64.0.0/16".parse().unwrap();
        let narrow: Cidr = "100.64.3.1/24".parse().unwrap();
        let other: Cidr = "100.65.0.0/24".parse().unwrap();
        assert!(wide.contains("100.64.9.9".parse().unwrap()));
        assert!(!wide.contains("::1".parse().unwrap()));
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide) && !wide.overlaps(&other));
    }

    #[test]
    fn hardware_addresses() {
        let mac: MacAddress = "02:00:5e:00:53:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:00:53:01");
        assert!("02:00:5e:00:53".parse::<MacAddress>().is_err());
        let derived = MacAddress::derived("lab");
        assert_eq!(derived, MacAddress::derived("lab"));
        assert_ne!(derived, MacAddress::derived("bal"));
        assert_eq!(derived.bytes()[0] & 0x03, 0x02, "local and unicast");
    }
}
