//! A whole node on this machine: a fresh network namespace, a registry, a cloud's end, real containers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and documents itself"
)]

mod cloud;
mod dns;
mod health;
mod hooks;
mod images;
mod life;
mod logs;
mod ota;
mod pressure;
mod referents;
mod registry;
mod site;
mod statics;
mod stats;
mod tokens;
