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
//! DATA/referents/       the ConfigMaps and Secrets that its pods reference; 0700
//! DATA/pool/            the pool's part of the desired state, and who the pool's hub is
//! DATA/addresses        pod → address
//! DATA/api              the certificate under which it answers its pods; 0600
//! DATA/approvals        what was answered here to offers of upgrades
//! DATA/ota.sock         where it is answered; its owner's
//! DATA/images/          the image store
//! DATA/registries.yaml  mirrors, credentials and trust of registries; the administrator's
//! DATA/seccomp/         seccomp profiles that pods may name; the administrator's
//! DATA/pods/UID/pod     the pod as the cloud wants it
//! DATA/pods/UID/status  its last status, for the restart counts
//! DATA/pods/UID/tokens/ the tokens of its service account; 0600
//! DATA/pods/UID/logs/CONTAINER/ATTEMPT.log
//! DATA/pods/UID/termination/CONTAINER/ATTEMPT
//! DATA/pods/UID/volumes/NAME/, etc/, and what its keeper puts there
//! FILE.twin             beside what is written again and again: its place on a disk that gets full
//! ```

mod addresses;
mod admission;
mod api;
mod bundles;
mod certificate;
mod clock;
mod cloud;
mod config;
mod container;
mod course;
mod disk;
mod dns;
mod error;
mod eviction;
mod handlers;
mod heartbeat;
mod identity;
pub mod images;
mod join;
mod kubelet;
mod neighbours;
mod network;
mod node_status;
pub mod ota;
mod outbox;
mod pool;
mod pull_secrets;
mod referents;
mod retry;
mod run;
mod services;
mod statics;
mod stats;
mod supervisor;
mod sync;
mod tokens;
mod tunnel;
mod views;
mod ways;
mod worker;

pub mod reset;

pub use config::{Bootstrap, Config, Reserve, Room};
pub use error::AgentError;
pub use run::Agent;
pub use toono_podmachine::pressure::{GracePeriods, Rules, Soft, Thresholds, period};
