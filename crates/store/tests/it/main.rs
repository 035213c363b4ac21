//! The store as the API server uses it, on a real directory.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bad_link;
mod behaviour;
mod etcd;
mod etcd_server;
mod killed;
mod linear;
mod recovery;
mod setup;
