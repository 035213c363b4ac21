//! Route netlink: one async handle per network namespace, with idempotent operations in the files beside
//! this one. It owns the socket and the errors. It must not decide what should exist.

mod address;
mod link;
mod neighbour;
mod route;

use std::io;
use std::sync::Arc;

use rtnetlink::Handle;

pub use link::{Link, LinkKind, VethPeer};
pub use neighbour::Neighbour;
pub use route::{NEIGHBOUR_PROTOCOL, ROUTE_PROTOCOL, Route};

use crate::netns::{self, NetNs, NetNsError};

/// A route netlink socket in one network namespace. Clones share the socket, which is closed with the last of
/// them. It stays in its namespace whichever thread uses it.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    netns: NetNs,
}

/// What failed about links, addresses, routes or neighbours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The namespace could not be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// No netlink socket.
    #[error("cannot open a netlink socket in {netns}")]
    Socket {
        /// The namespace.
        netns: Arc<str>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {action} {object} in {netns}")]
    Refused {
        /// What was tried, such as `add`.
        action: &'static str,
        /// On what, such as `the address 10.0.0.1/24 on eth0`.
        object: String,
        /// The namespace.
        netns: Arc<str>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no such link.
    #[error("there is no link {link} in {netns}")]
    NoLink {
        /// The link asked for.
        link: String,
        /// The namespace.
        netns: Arc<str>,
    },
    /// The link's name is taken by something that does not carry the wanted mark or is of another kind.
    #[error("the link {link} in {netns} is somebody else's: {found}")]
    Foreign {
        /// The link.
        link: String,
        /// The namespace.
        netns: Arc<str>,
        /// Its kind and alias.
        found: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl Netlink {
    /// A socket in `netns`. Must be called within a tokio runtime, which then drives the socket.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, NetlinkError> {
        let runtime = tokio::runtime::Handle::try_current();
        let runtime = runtime.map_err(|error| socket_error(netns, io::Error::other(error)))?;
        let opened = netns.run(|| {
            // The reactor is the caller's; only the socket is made on the namespace's thread.
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        })?;
        let (connection, handle, _unsolicited) =
            opened.map_err(|error| socket_error(netns, error))?;
        runtime.spawn(connection);
        Ok(Self { handle, netns: netns.clone() })
    }

    /// A socket in the namespace of the calling thread.
    pub fn current() -> Result<Self, NetlinkError> {
        Self::in_namespace(&netns::current()?)
    }

    /// The namespace that this handle works in.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    fn refused(
        &self,
        action: &'static str,
        object: impl Into<String>,
        error: rtnetlink::Error,
    ) -> NetlinkError {
        NetlinkError::Refused {
            action,
            object: object.into(),
            netns: self.label(),
            source: into_io(error),
        }
    }

    fn label(&self) -> Arc<str> {
        self.netns.label().into()
    }
}

fn socket_error(netns: &NetNs, source: io::Error) -> NetlinkError {
    NetlinkError::Socket { netns: netns.label().into(), source }
}

/// The error number of a refusal; any other failure as its text.
fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

/// Whether the kernel refused with this error number.
fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code().abs() == errno)
}
