//! Kernel networking: by netlink, network namespaces, links, addresses, routes, neighbours, sysctls and
//! nftables and flows; and datagrams by the batch. It owns how each of these is asked for, marked and read back. It must not know what a pod, a
//! pool or a Service is, must not decide what should exist, and starts no program.
//!
//! Every operation is idempotent: `ensure_*` and `apply` describe a state, compare it with what the kernel
//! has, and change only what differs. Links carry a [`Mark`] in their alias and nftables rules one in their
//! user data, so that whoever made them finds all of them again, also after a crash.

mod address;
pub mod conntrack;
pub mod datagrams;
mod name;
pub mod netlink;
pub mod netns;
pub mod nft;

pub use address::{Cidr, CidrError, MacAddress, MacAddressError};
pub use name::{LinkName, LinkNameError, MARK_PREFIX, Mark, MarkError};
pub use netlink::{
    Link, LinkKind, NEIGHBOUR_PROTOCOL, Neighbour, Netlink, NetlinkError, Route, VethPeer,
};
pub use netns::{NetNs, NetNsError};
