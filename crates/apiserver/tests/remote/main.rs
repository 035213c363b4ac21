//! `remote` against unmodified clients: `kubectl` over SPDY and over WebSocket, with a node that
//! really runs processes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod commands;
mod forwards;
mod host;
mod kubectl;
mod logs;
mod refusals;
mod site;
