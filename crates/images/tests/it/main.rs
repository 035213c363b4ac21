//! Pulls from a real registry over HTTP into a real directory. They need root, for device nodes,
//! owners and overlayfs' attributes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub, reason = "tests")]

mod archive;
mod layers;
mod pulls;
mod registry;
