//! DNS for the pods of one node: what the cluster's own names mean, and what an upstream said of all others.
//!
//! [`Server`] takes questions and says what to send: an answer, a question to an upstream, or nothing. The cluster's
//! names are read from the pool's part as it is ([`Zone`] keeps an index of it, and no copy); answers of an upstream
//! are kept in a [`Cache`] of bounded size, and told beyond their time while no upstream answers (RFC 8767).
//!
//! It opens no socket and reads no clock: datagrams, time and the upstream's answers are handed in. It follows
//! Kubernetes' DNS specification (<https://github.com/kubernetes/dns/blob/master/docs/specification.md>).

mod cache;
mod counters;
mod index;
mod message;
mod name;
mod reply;
mod server;
mod upstream;
mod write;
mod zone;

pub use cache::Cache;
pub use counters::Counters;
pub use message::{Edns, Question, Refused, kind};
pub use name::{BadName, Name};
pub use server::{Reaction, Server, Way, Whom};
pub use upstream::{Ask, Judged, Said};
pub use zone::{Data, Found, Record, Zone};

/// Longest question or answer in one datagram: what crosses every usual link in one piece
/// (<https://www.dnsflagday.net/2020/>).
pub const MAX_DATAGRAM: usize = 1_232;
/// Longest message at all: its length has 16 bits where it travels by TCP (RFC 1035, 4.2.2).
pub const MAX_MESSAGE: usize = 65_535;
