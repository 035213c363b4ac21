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
mod attach_cluster;
mod capture;
mod certificates;
mod chaos;
mod cloud;
mod cluster;
mod configmap;
mod copy;
mod cuts;
mod day;
mod dns;
mod drain;
mod edge;
mod edge_autonomy;
mod forward;
mod full_disk;
mod images;
mod journal;
mod lan_layers;
mod leftovers;
mod life;
mod main_job;
mod node_api;
mod ota;
mod outage;
mod partitions;
mod pools;
mod referents;
mod refusals;
mod replicas;
mod rotation;
mod server_crash;
mod services;
mod spread;
mod tokens;
mod traffic;
mod udp_blocked;
mod wait;
mod webhook;
