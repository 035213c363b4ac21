//! Pulls from a real registry over HTTP into a real directory. They need root, for device nodes,
//! owners and overlayfs' attributes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests"
)]

mod archive;
mod collecting;
mod credentials;
mod distribution;
mod full_disk;
mod importing;
mod layers;
mod neighbours;
mod proxy;
mod pulls;
mod real;
mod registry;
