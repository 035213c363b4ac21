//! The words for what comes out: where packets arrive, and what becomes of them. No behaviour.

use std::net::IpAddr;

/// A transport protocol that Services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As `v1.Protocol` spells it; empty is TCP.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Its number in IP headers.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Whose address a front has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// This one.
    Address(IpAddr),
    /// Any of the node's own.
    Node,
}

/// Where packets to a Service arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Front {
    /// The address.
    pub place: Place,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// The number of a group. It depends on what the group is called, so that it is the same after a restart
/// (but for two groups that happen to begin with the same number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// What becomes of the first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// It goes to an endpoint of this group.
    Group {
        /// Which.
        id: GroupId,
        /// How many endpoints it has: at least one.
        size: u32,
        /// For how many seconds a client stays with its endpoint; 0 for no affinity.
        affinity_seconds: u32,
    },
    /// Its sender is told that nobody listens.
    Refuse,
    /// It vanishes: there are endpoints, but none that it may go to.
    Drop,
}

/// What becomes of packets to a front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Treatment {
    /// Of all packets, unless the next says something else.
    pub fate: Fate,
    /// Of packets from outside: neither from this node nor from its pods.
    pub outside: Option<Fate>,
}
