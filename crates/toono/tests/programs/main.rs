//! Programs of other people's making against the built `toono server`: clients and informers of kube-rs,
//! through restarts of the server, kills, and the end of history.
//!
//! Some tests need Debian's `etcd-server`; without it they fail and say so.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod informers;
mod leases;
mod linear;
mod list_watch;
mod server;
mod silence;
