//! A pod's life told as tables: one scripted node, its answers, and what the pod looks like after each.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod failures;
mod hooks;
mod life;
mod node;
mod pressure;
mod probes;
mod recovery;
mod sidecars;
