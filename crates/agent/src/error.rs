//! Why an agent ends. Everything that passes is retried instead, and is no error here.

use std::{io, path::PathBuf};

use toono_http::client::Endpoint;

/// Why an agent could not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Namespaces, mounts and links need root.
    #[error("a node must run as root, not as user {uid}")]
    NotRoot {
        /// The effective user.
        uid: u32,
    },
    /// The data directory belongs to a living agent.
    #[error("the data directory {} is in use by another node", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The data directory belongs to a node of another name.
    #[error("the data directory {} belongs to the node {found}, not {wanted}", dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        wanted: String,
    },
    /// A file of the data directory cannot be read or written.
    #[error("cannot {verb} {}", path.display())]
    Disk {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The identity on disk does not make sense.
    #[error("the identity in {} is not valid: {reason}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no identity, and nothing to get one with.
    #[error("this node has not joined yet: a token and the CA's hash are needed once")]
    NoBootstrap,
    /// The server is not the one that the pin names.
    #[error("{server} does not hold the CA with the given hash")]
    WrongCa {
        /// Who answered.
        server: Endpoint,
        /// What TLS says.
        source: io::Error,
    },
    /// The server refuses the token.
    #[error("{server} refuses the bootstrap token")]
    TokenRefused {
        /// Who answered.
        server: Endpoint,
    },
    /// A living node has this name.
    #[error("{server} refuses the name {name}: {reason}")]
    NameTaken {
        /// Who answered.
        server: Endpoint,
        /// The name.
        name: String,
        /// The server's words.
        reason: String,
    },
    /// The server refuses the join for another reason.
    #[error("{server} refuses to let this node join ({status}): {reason}")]
    JoinRefused {
        /// Who answered.
        server: Endpoint,
        /// The HTTP status.
        status: u16,
        /// The server's words.
        reason: String,
    },
    /// The server's answer is not one.
    #[error("{server} answered the join with something else: {reason}")]
    BadJoin {
        /// Who answered.
        server: Endpoint,
        /// What is wrong.
        reason: String,
    },
    /// Keys or certificates cannot be used.
    #[error("cannot set up the node's keys")]
    Keys(#[from] toono_pki::PkiError),
    /// The image store cannot be opened.
    #[error(transparent)]
    Images(#[from] toono_images::StoreError),
    /// The pod network cannot be set up.
    #[error("cannot set up the pod network {cidr}")]
    Network {
        /// The node's pod CIDR.
        cidr: String,
        /// Why.
        source: Box<crate::network::NetworkError>,
    },
}

impl AgentError {
    /// What a person can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotRoot { .. } => "run it as root, for example with sudo",
            Self::Locked { .. } => "end the other node first, or give this one its own --data",
            Self::OtherNode { .. } => "use that name, or `toono node reset` to forget the node",
            Self::Disk { .. } => "check the disk's space and the directory's permissions",
            Self::Identity { .. } => "`toono node reset`, then join again with a new token",
            Self::NoBootstrap => {
                "give --token and --ca-cert-hash; `toono token create` on the server prints both"
            }
            Self::WrongCa { .. } => {
                "compare --ca-cert-hash with what the server prints, and check --server"
            }
            Self::TokenRefused { .. } => "tokens expire: make a new one with `toono token create`",
            Self::NameTaken { .. } => "choose another --name, or delete the old Node first",
            Self::JoinRefused { .. } | Self::BadJoin { .. } => {
                "check that --server is a Toono server of this version"
            }
            Self::Keys(_) => "`toono node reset`, then join again with a new token",
            Self::Images(_) => "check the disk's space and the directory's permissions",
            Self::Network { .. } => {
                "the kernel needs bridge, veth and nf_tables with masquerading; is one disabled?"
            }
        }
    }
}
