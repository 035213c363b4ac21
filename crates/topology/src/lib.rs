//! What a node must do with packets to Services: from the records of the pool's part to *fronts* (addresses
//! and ports that clients know) and *groups* (endpoints that one of is chosen).
//!
//! It computes, incrementally: of a change only the Services that it touches are looked at, and what comes
//! out is what differs. It knows no packet filter and no socket, decides nothing about DNS, and must give
//! after any series of changes what it would give from scratch.
//!
//! The rules are those of kube-proxy (<https://kubernetes.io/docs/reference/networking/virtual-ips/>).

mod front;
mod groups;
mod plan;
mod state;
mod tracked;

pub use front::{Fate, Front, GroupId, Place, Protocol, Treatment};
pub use plan::HostPort;
pub use state::{Changes, Family, Topology};
pub use tracked::Change;
