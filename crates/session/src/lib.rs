//! The heartbeat protocol: keys, counters, replay rules, both ends; no socket, no clock, no randomness.
//!
//! One authenticated datagram per node and interval, no connection, no handshake, no stored key.
//! The node's end is [`NodeSession`], the cloud's end [`ServerSessions`]. Callers pass in time (as a
//! [`Duration`](std::time::Duration) since an origin of their own, never going back) and random
//! numbers, and carry the [`Datagram`]s.
//!
//! The rules, and what each one is for, are in `docs/protocol.md`.

mod datagram;
mod digest;
mod key;
mod keyring;
mod node;
mod server;
pub mod servers;

pub use datagram::Datagram;
pub use digest::{
    BundleDigest, Counted, Desired, PodDigest, PodFacts, ReferentDigest, Standing, gates,
};
pub use key::{ClusterSecret, NodeUid, SessionKey};
pub use keyring::{BadKeyring, Keyring, MAX_EPOCHS};
pub use node::{Dropped, GrantError, NodeEvent, NodeSession, Observed, SessionExhausted};
pub use server::{Address, Answer, Fresh, NodeIndex, Opened, Record, Refused, ServerSessions};
pub use toono_wire::datagram::{Poke, ReplyFlags};
