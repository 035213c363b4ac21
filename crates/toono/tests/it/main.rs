//! The built program, end to end: real sites, real NAT, real containers, an unmodified kubectl.
//!
//! Needs root, kubectl, busybox-static and iproute2; what is missing fails the test and says so.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod attach;
mod capture;
mod cloud;
mod configmap;
mod copy;
mod drain;
mod edge;
mod forward;
mod journal;
mod leftovers;
mod main_job;
mod outage;
mod refusals;
mod replicas;
mod rotation;
mod server_crash;
mod udp_blocked;
mod wait;
mod webhook;
