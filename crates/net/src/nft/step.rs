//! Steps of a rule that work with registers: what is loaded, looked up in sets and maps, remembered there, and
//! made of it. To bytes and back; pure.
//!
//! A key of several parts lies in registers that follow each other, as its set has them: an address has one
//! (IPv4) or four (IPv6), anything else one.

use super::{
    message::{Attributes, Reader},
    model::SetName,
};

/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFT_REG32_00`. Four registers lie in each of the larger ones, `NFT_REG_1` to `NFT_REG_4`; the kernel calls
/// the first of four by the larger one's number.
const FIRST: u32 = 8;
const PER_LARGE: u32 = 4;
const LARGE: u32 = 4;

/// `enum nft_payload_bases`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// `NFT_META_L4PROTO`; `NFT_CT_DST`, `NFT_CT_PROTO_DST`; `IP_CT_DIR_ORIGINAL`.
const META_PROTOCOL: u32 = 16;
const CT_DESTINATION: u32 = 9;
const CT_DESTINATION_PORT: u32 = 12;
const ORIGINAL: u8 = 0;
/// `NFT_NG_RANDOM`.
const RANDOM: u32 = 1;
/// `NFT_LOOKUP_F_INV`.
const INVERTED: u32 = 1;
/// `NFT_DYNSET_OP_UPDATE`, `NFT_DYNSET_OP_DELETE`.
const UPDATE: u32 = 1;
const DELETE: u32 = 2;
/// `NFT_NAT_DNAT`; `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const TO_DESTINATION: u32 = 1;
const PROTOCOL_IPV4: u32 = 2;
const PROTOCOL_IPV6: u32 = 10;
/// `NFT_REJECT_TCP_RST`; `NFT_REJECT_ICMP_UNREACH`, and its codes for a port of nobody (RFC 792, RFC 4443).
const RESET: u32 = 1;
const UNREACHABLE: u32 = 0;
const PORT_UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE_V6: u8 = 4;

/// A register of four bytes. The very first one is left to conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(u8);

/// A version of the internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What can be loaded into registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The packet's source address.
    From(Version),
    /// The packet's destination address.
    To(Version),
    /// The transport protocol.
    Protocol,
    /// The destination port.
    ToPort,
    /// The destination that the connection was made to, before any translation.
    OriginalTo,
    /// The port that it was made to.
    OriginalToPort,
    /// A number from 0 up to, and without, this one.
    Random(u32),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Load registers; what cannot be loaded ends the rule.
    Load {
        /// What.
        source: Source,
        /// The first of the registers.
        into: Register,
    },
    /// Go on if the set has the key, or if it has not.
    Member {
        /// The set.
        set: SetName,
        /// The first register of the key.
        key: Register,
        /// Whether the set must not have it.
        negated: bool,
    },
    /// Load what the key leads to; a key that is not there ends the rule.
    Lookup {
        /// The map.
        map: SetName,
        /// The first register of the key.
        key: Register,
        /// The first register of the value.
        into: Register,
    },
    /// Decide as the map says, if it has the key.
    Decide {
        /// The map.
        map: SetName,
        /// The first register of the key.
        key: Register,
    },
    /// Put the value under the key, or let what is there live on.
    Remember {
        /// The map.
        map: SetName,
        /// The first register of the key.
        key: Register,
        /// The first register of the value.
        value: Register,
        /// For how long.
        seconds: u32,
    },
    /// Take the key out.
    Forget {
        /// The map.
        map: SetName,
        /// The first register of the key.
        key: Register,
        /// The first register of some value: the kernel wants one, and makes nothing of it.
        value: Register,
    },
    /// Lead the connection to another destination.
    Translate {
        /// Which protocol.
        version: Version,
        /// The first register of the address.
        address: Register,
        /// The register of the port.
        port: Register,
    },
    /// Tell the sender that nobody listens at the port.
    Refuse(Version),
    /// Reset the connection, which must be one of TCP.
    Reset,
}

impl Register {
    /// The register with this number, from 1 to 15. The kernel refuses rules with others.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    fn encode(self) -> u32 {
        FIRST + u32::from(self.0)
    }

    fn decode(number: u32) -> Option<Self> {
        let place = match number {
            1..=LARGE => (number - 1) * PER_LARGE,
            _ => number.checked_sub(FIRST)?,
        };
        u8::try_from(place).ok().filter(|place| (1..16).contains(place)).map(Self)
    }
}

impl Version {
    /// The offsets of the source and the destination in the header, and the length of each.
    fn addresses(self) -> (u32, u32, u32) {
        match self {
            Self::V4 => (12, 16, 4),
            Self::V6 => (8, 24, 16),
        }
    }

    fn protocol(self) -> u32 {
        match self {
            Self::V4 => PROTOCOL_IPV4,
            Self::V6 => PROTOCOL_IPV6,
        }
    }

    fn port_unreachable(self) -> u8 {
        match self {
            Self::V4 => PORT_UNREACHABLE,
            Self::V6 => PORT_UNREACHABLE_V6,
        }
    }
}

/// The expression's name and its attributes.
pub(super) fn encode(step: &Step) -> (&'static str, Attributes) {
    let none = Attributes::default();
    let of = |set: &SetName| Attributes::default().text(1, set.as_str());
    match step {
        Step::Load { source, into } => encode_load(*source, into.encode()),
        Step::Member { set, key, negated } => {
            let flags = if *negated { INVERTED } else { 0 };
            ("lookup", of(set).number(2, key.encode()).number(5, flags))
        }
        Step::Lookup { map, key, into } => {
            ("lookup", of(map).number(2, key.encode()).number(3, into.encode()))
        }
        Step::Decide { map, key } => ("lookup", of(map).number(2, key.encode()).number(3, VERDICT)),
        Step::Remember { map, key, value, seconds } => {
            let registers = of(map).number(3, UPDATE).number(4, key.encode());
            let timeout_ms = u64::from(*seconds).saturating_mul(1000);
            ("dynset", registers.number(5, value.encode()).long(6, timeout_ms))
        }
        Step::Forget { map, key, value } => {
            let registers = of(map).number(3, DELETE).number(4, key.encode());
            ("dynset", registers.number(5, value.encode()))
        }
        Step::Translate { version, address, port } => {
            let kind = none.number(1, TO_DESTINATION).number(2, version.protocol());
            let kind = kind.number(3, address.encode());
            ("nat", kind.number(5, port.encode()))
        }
        Step::Reset => ("reject", none.number(1, RESET).bytes(2, &[0])),
        Step::Refuse(version) => {
            ("reject", none.number(1, UNREACHABLE).bytes(2, &[version.port_unreachable()]))
        }
    }
}

fn encode_load(source: Source, into: u32) -> (&'static str, Attributes) {
    let none = Attributes::default().number(1, into);
    let payload = |base, offset, length| {
        ("payload", none.clone().number(2, base).number(3, offset).number(4, length))
    };
    let original = |key| ("ct", none.clone().number(2, key).bytes(3, &[ORIGINAL]));
    match source {
        Source::From(version) => {
            let (offset, _, length) = version.addresses();
            payload(NETWORK, offset, length)
        }
        Source::To(version) => {
            let (_, offset, length) = version.addresses();
            payload(NETWORK, offset, length)
        }
        Source::Protocol => ("meta", none.number(2, META_PROTOCOL)),
        Source::ToPort => payload(TRANSPORT, 2, 2),
        Source::OriginalTo => original(CT_DESTINATION),
        Source::OriginalToPort => original(CT_DESTINATION_PORT),
        Source::Random(below) => ("numgen", none.number(2, below).number(3, RANDOM)),
    }
}

/// The step that an expression is, if it is one.
pub(super) fn decode(name: &str, data: &Reader<'_>) -> Option<Step> {
    let register = |kind| Register::decode(data.number(kind)?);
    let set = || SetName::new(data.text(1)?).ok();
    match name {
        "payload" | "meta" | "ct" | "numgen" => {
            let into = register(1)?;
            Some(Step::Load { source: decode_load(name, data)?, into })
        }
        "lookup" => {
            let negated = data.number(5).unwrap_or(0) & INVERTED != 0;
            let key = register(2)?;
            match data.number(3) {
                None => Some(Step::Member { set: set()?, key, negated }),
                Some(VERDICT) => Some(Step::Decide { map: set()?, key }),
                Some(into) => {
                    Some(Step::Lookup { map: set()?, key, into: Register::decode(into)? })
                }
            }
        }
        "dynset" => match data.number(3)? {
            DELETE => {
                let (key, value) = (register(4)?, register(5)?);
                Some(Step::Forget { map: set()?, key, value })
            }
            UPDATE => {
                let seconds = u32::try_from(data.long(6)? / 1000).ok()?;
                let (key, value) = (register(4)?, register(5)?);
                Some(Step::Remember { map: set()?, key, value, seconds })
            }
            _ => None,
        },
        "nat" if data.number(1) == Some(TO_DESTINATION) => {
            let version = version_of(|version| data.number(2) == Some(version.protocol()))?;
            Some(Step::Translate { version, address: register(3)?, port: register(5)? })
        }
        "reject" if data.number(1) == Some(RESET) => Some(Step::Reset),
        "reject" if data.number(1) == Some(UNREACHABLE) => {
            version_of(|version| data.byte(2) == Some(version.port_unreachable())).map(Step::Refuse)
        }
        _ => None,
    }
}

fn version_of(is: impl Fn(Version) -> bool) -> Option<Version> {
    [Version::V4, Version::V6].into_iter().find(|version| is(*version))
}

fn decode_load(name: &str, data: &Reader<'_>) -> Option<Source> {
    let second = data.number(2)?;
    match (name, second) {
        ("meta", META_PROTOCOL) => Some(Source::Protocol),
        ("ct", key) if data.byte(3) == Some(ORIGINAL) => match key {
            CT_DESTINATION => Some(Source::OriginalTo),
            CT_DESTINATION_PORT => Some(Source::OriginalToPort),
            _ => None,
        },
        ("numgen", below) if data.number(3) == Some(RANDOM) => Some(Source::Random(below)),
        ("payload", TRANSPORT) if (data.number(3), data.number(4)) == (Some(2), Some(2)) => {
            Some(Source::ToPort)
        }
        ("payload", NETWORK) => {
            let (offset, length) = (data.number(3)?, data.number(4)?);
            let from = |version: Version| version.addresses().0 == offset;
            let to = |version: Version| version.addresses().1 == offset;
            let version = version_of(|version| version.addresses().2 == length)?;
            match () {
                () if from(version) => Some(Source::From(version)),
                () if to(version) => Some(Source::To(version)),
                () => None,
            }
        }
        _ => None,
    }
}
