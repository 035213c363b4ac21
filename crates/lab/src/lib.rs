//! A lab: edge sites in network namespaces of this machine, with NAT routers that the cloud cannot reach
//! through, links that can be cut, and a small image registry. Used by `toono up` and by tests end to end. It
//! must not know what runs in the sites, and nothing of the product depends on it.
//!
//! The state of a lab is what the kernel has under the lab's names and marks, and one file that says what it
//! should be. Every operation starts from these, so each can be repeated, also after a crash half way.

mod config;
mod cut;
pub mod daemon;
mod error;
pub mod image;
pub mod registry;
mod shell;
mod site;
mod state;
mod status;

pub use config::{ConfigError, DEFAULT_NAME, DEFAULT_SUBNET, LabConfig, LabName, PoolSpec};
pub use cut::{Loss, cut, heal};
pub use daemon::{Daemon, DaemonError, Spawn};
pub use error::LabError;
pub use shell::{namespace, shell};
pub use site::{down, up};
pub use status::{LabStatus, NodeStatus, PoolStatus, status};
