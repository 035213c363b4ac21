//! The node: what the cloud wants, kept on disk and made true here, and what happens here, told to the cloud.
//!
//! [`Agent::run`] joins once, then lives from its data directory: it takes up the pods that are
//! still running, drives one [`PodMachine`](toono_podmachine::PodMachine) per pod with the real
//! images, sandboxes and network, and needs the cloud only to learn of changes. It runs on one
//! thread, wakes up only for events and heartbeats, and holds no connection when nobody asks.
//!
//! It knows no command line and no environment variable, and never ends the process: a
//! [`Config`] comes in and an [`AgentError`] goes out. Ending it leaves every container running;
//! [`reset`](reset::reset) is what removes them.
//!
//! ```text
//! DATA/lock             held while an agent runs
//! DATA/identity.json    certificate, key, session grant, pod network; 0600
//! DATA/boot             how often an agent has started, for the session's counters
//! DATA/bundle           revision and members of the desired state
//! DATA/addresses        pod → address
//! DATA/images/          the image store
//! DATA/pods/UID/pod     the pod as the cloud wants it
//! DATA/pods/UID/status  its last status, for the restart counts
//! DATA/pods/UID/logs/CONTAINER/ATTEMPT.log
//! DATA/pods/UID/volumes/NAME/, etc/, and what its keeper puts there
//! ```

mod addresses;
mod bundles;
mod clock;
mod cloud;
mod config;
mod container;
mod disk;
mod error;
mod heartbeat;
mod identity;
mod join;
mod kubelet;
mod network;
mod node_status;
mod outbox;
mod retry;
mod run;
mod supervisor;
mod sync;
mod tunnel;
mod views;
mod ways;
mod worker;

pub mod reset;

pub use config::{Bootstrap, Config};
pub use error::AgentError;
pub use run::Agent;
