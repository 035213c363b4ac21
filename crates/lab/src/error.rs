//! What can fail about a lab, and what to do about it.

use std::io;
use std::path::PathBuf;

use toono_net::nft::{NameError, NftError};
use toono_net::{LinkNameError, MarkError, NetNsError, NetlinkError};

use crate::ConfigError;

/// What failed about a lab.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The lab cannot be as it was asked for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A network namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A link, an address or a route.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A table of nftables.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A name that the kernel would refuse.
    #[error(transparent)]
    LinkName(#[from] LinkNameError),
    /// A mark that is none.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// A name of a table or a chain that is none.
    #[error(transparent)]
    NftName(#[from] NameError),
    /// An address that is none.
    #[error(transparent)]
    Cidr(#[from] toono_net::CidrError),
    /// The lab's network is in use on this machine.
    #[error("the lab's network {subnet} overlaps {found} of this machine")]
    SubnetTaken {
        /// The lab's network.
        subnet: String,
        /// The address or route in its way.
        found: String,
    },
    /// There is no lab of this name.
    #[error("there is no lab {name}")]
    NoLab {
        /// The name asked for.
        name: String,
    },
    /// The lab has no such pool.
    #[error("the lab {lab} has no pool {pool}, and no node of this name")]
    NoPool {
        /// The lab.
        lab: String,
        /// The pool asked for.
        pool: String,
    },
    /// The lab has no such node.
    #[error("the lab {lab} has no node {node}")]
    NoNode {
        /// The lab.
        lab: String,
        /// The node asked for.
        node: String,
    },
    /// The file that says what the lab should be.
    #[error("cannot {action} the lab's file {}", path.display())]
    State {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A command in a node's namespace.
    #[error("cannot run {program} on {node}")]
    Shell {
        /// The program.
        program: String,
        /// The node.
        node: String,
        /// The cause.
        source: io::Error,
    },
}

impl LabError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        let refused = |errno: Option<i32>| match errno {
            Some(libc::EPERM | libc::EACCES) => Some("run as root"),
            Some(libc::EOPNOTSUPP) => {
                Some("the kernel lacks veth, bridge or nf_tables; load these modules")
            }
            _ => None,
        };
        match self {
            Self::SubnetTaken { .. } => {
                Some("choose another network for the lab, or remove what is in its way")
            }
            Self::Netlink(NetlinkError::Foreign { .. }) => {
                Some("choose another name for the lab, or delete the link if it is not needed")
            }
            Self::NoLab { .. } => Some("`toono up` makes one"),
            Self::NoPool { .. } | Self::NoNode { .. } => {
                Some("`toono status` lists pools and nodes")
            }
            Self::State { .. } => Some("`toono down` and `toono up` make the lab anew"),
            Self::Netlink(error) => refused(error.errno()),
            Self::Nft(NftError::Socket { source, .. } | NftError::Refused { source, .. })
            | Self::NetNs(NetNsError::Refused { source, .. }) => refused(source.raw_os_error()),
            _ => None,
        }
    }
}
