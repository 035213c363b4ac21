//! The fleet against real UDP, real HTTP and an API in memory, with the session crate's own nodes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected ends there"
)]

mod api;
mod bundles;
mod epochs;
mod joins;
mod parts;
mod referents;
mod reports;
mod sessions;
mod several;
mod sockets;
mod tunnels;
mod world;
