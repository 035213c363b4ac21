//! The kernel's table of flows: what was translated where, and forgetting it. It owns the attributes of
//! `linux/netfilter/nfnetlink_conntrack.h`, and does not decide which flows are to go.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    netns::{self, NetNs, NetNsError},
    nft::{
        message::{Attributes, CONNTRACK, Reader},
        socket::Socket,
    },
};

/// `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE`.
const GET: u8 = 1;
const DELETE: u8 = 2;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
/// `CTA_TUPLE_IP`, `CTA_TUPLE_PROTO`.
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// `CTA_IP_V4_SRC` and what follows it.
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;
/// `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT`, `CTA_PROTO_DST_PORT`.
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// The flows of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
    netns: Arc<str>,
}

/// What failed about flows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConntrackError {
    /// The namespace could not be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The kernel refused.
    #[error("cannot {action} in {netns}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The namespace.
        netns: Arc<str>,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A flow of datagrams or a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The number of the transport protocol.
    pub protocol: u8,
    /// Who began it.
    pub source: SocketAddr,
    /// Where its packets were sent to.
    pub destination: SocketAddr,
    /// Who answers, that is where its packets were led.
    pub answers: SocketAddr,
    family: u8,
    /// The tuple by which the kernel finds it, and its number.
    tuple: Vec<u8>,
    id: Option<u32>,
}

impl Conntrack {
    /// Opens the flows of the namespace that the calling thread is in.
    pub fn current() -> Result<Self, ConntrackError> {
        Self::in_namespace(&netns::current()?)
    }

    /// Opens the flows of `netns`.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, ConntrackError> {
        let label: Arc<str> = netns.label().into();
        let failed = |source| ConntrackError::Refused {
            action: "open a socket",
            netns: label.clone(),
            source,
        };
        Ok(Self { socket: netns.run(Socket::open)?.map_err(failed)?, netns: label })
    }

    /// The flows of a transport protocol.
    pub fn flows(&mut self, protocol: u8) -> Result<Vec<Flow>, ConntrackError> {
        let listed = self.socket.list(CONNTRACK, GET, 0, &Attributes::default());
        let objects = listed.map_err(|source| self.refused("list the flows", source))?;
        let flows = objects.iter().filter_map(|object| flow(object.family, &object.attributes()));
        Ok(flows.filter(|flow| flow.protocol == protocol).collect())
    }

    /// Forgets the flow: its next packet is the first of a new one. Whether it was there.
    pub fn forget(&mut self, flow: &Flow) -> Result<bool, ConntrackError> {
        let mut attributes = Attributes::default().nested_bytes(ORIGINAL, &flow.tuple);
        if let Some(id) = flow.id {
            attributes = attributes.number(ID, id);
        }
        match self.socket.ask(CONNTRACK, DELETE, 0, flow.family, &attributes) {
            Ok(_) => Ok(true),
            Err(source) if source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(source) => Err(self.refused("forget a flow", source)),
        }
    }

    fn refused(&self, action: &'static str, source: io::Error) -> ConntrackError {
        ConntrackError::Refused { action, netns: self.netns.clone(), source }
    }
}

fn flow(family: u8, attributes: &Reader<'_>) -> Option<Flow> {
    let original = attributes.find(ORIGINAL)?;
    let (protocol, source, destination) = tuple(&Reader::new(original))?;
    let (_, answers, _) = tuple(&attributes.nested(REPLY)?)?;
    let (tuple, id) = (original.to_vec(), attributes.number(ID));
    Some(Flow { protocol, source, destination, answers, family, tuple, id })
}

/// Protocol, source and destination; protocols without ports are left out.
fn tuple(tuple: &Reader<'_>) -> Option<(u8, SocketAddr, SocketAddr)> {
    let addresses = tuple.nested(TUPLE_ADDRESSES)?;
    let v4 = |kind| {
        let bytes: [u8; 4] = addresses.find(kind)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(bytes)))
    };
    let v6 = |kind| {
        let bytes: [u8; 16] = addresses.find(kind)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(bytes)))
    };
    let source = v4(V4_SOURCE).or_else(|| v6(V6_SOURCE))?;
    let destination = v4(V4_DESTINATION).or_else(|| v6(V6_DESTINATION))?;
    let protocol = tuple.nested(TUPLE_PROTOCOL)?;
    Some((
        protocol.byte(PROTOCOL_NUMBER)?,
        SocketAddr::new(source, protocol.short(SOURCE_PORT)?),
        SocketAddr::new(destination, protocol.short(DESTINATION_PORT)?),
    ))
}
