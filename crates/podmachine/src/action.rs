//! What the machine asks of the agent, and what the agent tells it.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;

/// One thing to do. Each is asked once and answered by one [`Observation`], except where noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say whether the image is on the node: [`Observation::ImagePresent`] or
    /// [`Observation::ImageAbsent`].
    LookUpImage {
        /// The container that needs it.
        container: String,
        /// The reference as the pod writes it.
        image: String,
    },
    /// Pull the image: [`Observation::ImagePulled`] or [`Observation::ImagePullFailed`].
    PullImage {
        /// The container that needs it.
        container: String,
        /// The reference as the pod writes it.
        image: String,
    },
    /// Make the pod's namespaces and network: [`Observation::SandboxReady`], or
    /// [`Observation::SandboxFailed`] after undoing what was half made.
    CreateSandbox,
    /// Create and start a container: [`Observation::Started`] or [`Observation::StartFailed`].
    StartContainer {
        /// Its name in the pod.
        container: String,
        /// 0 for the first; becomes the restart count.
        attempt: u32,
        /// What the image store said of the image.
        image_id: String,
    },
    /// Signal a container's main process. The answer, if any, is its [`Observation::Exited`].
    SignalContainer {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
        /// How hard.
        signal: StopSignal,
    },
    /// Free what an ended run still holds, except its log. Not answered.
    RemoveContainer {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
    },
    /// End the sandbox with everything in it and free its network: [`Observation::SandboxGone`].
    TearDownSandbox,
}

/// How a container is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// `SIGTERM`, or what the image's `StopSignal` says.
    Terminate,
    /// `SIGKILL`.
    Kill,
}

/// One thing that happened on the node. What does not fit the machine's state (a late or repeated
/// message, an earlier attempt) is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The image is on the node.
    ImagePresent {
        /// The container that asked.
        container: String,
        /// `repository@sha256:…`.
        image_id: String,
    },
    /// The image is not on the node.
    ImageAbsent {
        /// The container that asked.
        container: String,
    },
    /// The image was pulled, or found unchanged at its registry.
    ImagePulled {
        /// The container that asked.
        container: String,
        /// `repository@sha256:…`.
        image_id: String,
        /// How long it took.
        took: Duration,
        /// Compressed size in bytes.
        size: u64,
    },
    /// The image could not be pulled.
    ImagePullFailed {
        /// The container that asked.
        container: String,
        /// The registry gave no answer at all, as opposed to a refusal.
        unreachable: bool,
        /// Why.
        message: String,
    },
    /// Namespaces and network are there.
    SandboxReady {
        /// The pod's address; the node's own with `hostNetwork`.
        ip: Option<IpAddr>,
    },
    /// They could not be made, and nothing of them is left.
    SandboxFailed {
        /// Why.
        message: String,
    },
    /// The sandbox ended by itself, and every container with it.
    SandboxLost,
    /// What [`Action::TearDownSandbox`] asked is done.
    SandboxGone,
    /// A container runs.
    Started {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// A container could not be started.
    StartFailed {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
        /// In which step.
        failure: StartFailure,
        /// Why.
        message: String,
    },
    /// A container's main process ended.
    Exited {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
        /// How.
        exit: Exit,
    },
}

/// In which step a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// The pod asks for something that cannot be resolved: nothing was created, no restart counted.
    Config,
    /// The runtime could not make the container: no restart counted.
    Create,
    /// The container was made but its process could not be run: a run that ended with code 128.
    Run,
}

/// How a container's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, `128 + signal` for a signal.
    pub code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The kernel killed it for its memory limit.
    pub oom: bool,
    /// When it began, if known.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What the container wrote to its termination log, if anything.
    pub message: Option<String>,
}
