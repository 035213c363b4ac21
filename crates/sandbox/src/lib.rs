//! Containers: the keeper process, its protocol, logs, cgroups.
//!
//! One *keeper* per pod holds the pod's namespaces, creates its containers with libcontainer,
//! writes their logs, reaps them, and outlives the agent. It is a single-threaded program without
//! a runtime ([`keeper_main`]); the agent asks it over a socket ([`Keeper`]). Nothing here knows
//! what a pod's desired state is, pulls an image, or gives a pod an address.

mod cgroups;
mod client;
mod keeper;
mod layout;
mod protocol;
mod spec;
mod stalls;
mod usage;

pub use cgroups::{pod_path, prune_cgroups};
pub use client::{
    CALL_TIMEOUT, CREATE_TIMEOUT, ExecExit, ExecIo, Keeper, KeeperError, SPAWN_TIMEOUT, Streams,
    Terminal, reclaim,
};
pub use keeper::keeper_main;
pub use layout::{MAX_LOG_FILES, mounted_layers, rotated, writable_layer, writable_layers};
pub use spec::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, ExecSpec, ExitStatus,
    KeeperProgram, Mount, Processes, Resources, SandboxSpec, Seccomp, Security, Snapshot,
};
pub use stalls::Stalls;
pub use usage::{Trees, Usage};
