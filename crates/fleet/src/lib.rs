//! The cloud end of every node: join, UDP sessions, liveness, bundles, pokes, reports, dial-back tunnels.
//!
//! It knows the API only as a [`kube::Client`] (and, for bulk reads, a [`Feed`]), decides nothing
//! about placement or eviction, and never dials a node: a node is reached only through a tunnel
//! that it opened itself.
//!
//! What lives where: [`Table`](table::Table) holds the members and their sessions,
//! [`Bundles`](bundles::Bundles) what each node must know, both in memory, both rebuilt from the API at
//! start. Heartbeats never become writes; a change of readiness does.

mod accounts;
mod arrival;
mod bundles;
mod calls;
mod certificates;
mod cidr;
mod config;
mod elsewhere;
mod events;
mod feed;
mod fleet;
mod follow;
mod identities;
mod join;
mod leased;
mod liveness;
mod looks;
mod objects;
mod overview;
mod parts;
mod peers;
mod pokes;
mod readiness;
mod report;
mod routes;
mod secrets;
mod servers;
mod slots;
mod sockets;
mod table;
mod tunnel;
mod udp;
mod uplink;

pub use cidr::{BadCidr, BadNodeMask, ClusterCidr};
pub use config::{FleetConfig, Grace};
pub use feed::{Change, Feed, WatchFeed};
pub use fleet::{Fleet, FleetError};
pub use secrets::Rotate;
pub use servers::KnownServer;
pub use toono_session::{ClusterSecret, Keyring};
pub use toono_wire::join::{RotateReply, RotateRequest, Server};
pub use tunnel::{DIAL_TIMEOUT, FleetLinkError};
