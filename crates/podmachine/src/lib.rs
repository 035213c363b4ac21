//! One pod's life as a state machine: observations and time in, actions, events and status out.
//!
//! A [`PodMachine`] is told what the cloud wants ([`PodMachine::desire`], [`PodMachine::remove`]),
//! what has happened on the node ([`PodMachine::observe`]) and what time it is
//! ([`PodMachine::step`]). It answers with [`Action`]s for the agent to carry out, events in the
//! kubelet's words, the time of its next wake-up, and the pod's `v1.PodStatus`.
//!
//! It reads no clock, does no I/O, starts nothing, and knows no runtime: that makes every crash,
//! race and power cut a table of observations in a test. What a container's environment, mounts
//! and limits are is not its business either; the agent reads those from the pod when it starts one.
//!
//! ```text
//!   desire / remove ─┐                    ┌─▶ actions  (pull, create, start, signal, tear down)
//!   observe ─────────┼─▶ PodMachine ──────┼─▶ events   (Pulling, Started, BackOff, Killing, …)
//!   step(now) ───────┘                    └─▶ wake-up, v1.PodStatus, gone
//! ```

mod action;
mod backoff;
mod conditions;
mod container;
mod context;
mod events;
mod machine;
mod moment;
mod phase;
mod plan;
pub mod pressure;
mod probes;
mod qos;
mod recovery;
mod restart;
mod sandbox;
mod status;
mod sysctls;
mod unsupported;

pub use action::{
    Action, Exit, Hook, Observation, ProbeKind, ProbeOutcome, StartFailure, StopSignal,
};
pub use machine::{PodMachine, Step};
pub use moment::Moment;
pub use plan::{NotRunnable, PullPolicy};
pub use qos::class as qos_class;
pub use recovery::{ContainerFound, Recovered, SandboxFound};
pub use sysctls::sysctls;
pub use unsupported::{Unsupported, unsupported};
