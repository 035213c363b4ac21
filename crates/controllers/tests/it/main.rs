//! Store, API server and controllers in one process. Nodes are objects, and what a node would do
//! for its pods the test does through the API.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod autonomy;
mod certificates;
mod cluster;
mod disruption;
mod endpoints;
mod garbage;
mod jobs;
mod namespaces;
mod nodes;
mod pools;
mod quotas;
mod stateful;
mod static_sets;
mod upgrades;
mod workloads;
mod yurtappset;
