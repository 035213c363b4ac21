//! The API server as its clients see it: unmodified kubectl over TLS, and kube-rs in the process.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends there"
)]

mod access;
mod admission;
mod apply;
mod cluster;
mod custom;
mod custom_refused;
mod custom_schemas;
mod custom_typed;
mod generated;
mod http;
mod in_process;
mod kubectl;
mod leases;
mod nodes;
mod openapi;
mod operation;
mod owners;
mod pod_parts;
mod programs;
mod rights;
mod services;
mod tokens;
mod verbs;
