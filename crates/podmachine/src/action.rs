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
    /// Fill the pod's volumes, then make its namespaces and network: [`Observation::SandboxReady`], or
    /// [`Observation::VolumesFailed`] before anything is made, or [`Observation::SandboxFailed`] after undoing what
    /// was half made.
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
    /// Run a hook in a running container: [`Observation::HookDone`].
    RunHook {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
        /// Which hook.
        hook: Hook,
    },
    /// Run a probe once, with its own timeout: [`Observation::Probed`].
    Probe {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
        /// Which probe.
        kind: ProbeKind,
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

/// What a container's `lifecycle` has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Right after its process was started.
    PostStart,
    /// Before it is asked to end.
    PreStop,
}

/// Which of a container's three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// Until it has succeeded, the others wait and the container does not count as started.
    Startup,
    /// When it fails the container is restarted.
    Liveness,
    /// While it fails the container gets no traffic.
    Readiness,
}

impl ProbeKind {
    /// The word that the kubelet's events begin with.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What one run of a probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// Well.
    Success,
    /// Well, but a person should know.
    Warning(String),
    /// Not well; the text says what the container answered.
    Failure(String),
    /// The probe itself could not be run; it counts as a failure.
    Error(String),
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
    /// What the pod writes names no image. Answers both questions.
    ImageNameInvalid {
        /// The container that asked.
        container: String,
        /// What is wrong with it.
        message: String,
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
    /// Volumes could not be filled. It may come at any time; without an answer to [`Action::CreateSandbox`] it changes
    /// nothing.
    VolumesFailed {
        /// Why, for each of them.
        failures: Vec<String>,
    },
    /// Something of what pods of this node reference is other than before: what failed for want of it may work.
    ReferentsChanged,
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
    /// What [`Action::RunHook`] asked is done.
    HookDone {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
        /// Which hook.
        hook: Hook,
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// What [`Action::Probe`] asked is done.
    Probed {
        /// Its name in the pod.
        container: String,
        /// Which run.
        attempt: u32,
        /// Which probe.
        kind: ProbeKind,
        /// What it came to.
        outcome: ProbeOutcome,
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
