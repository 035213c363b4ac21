//! The pod's phase, by the kubelet's rules (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>).

use crate::{
    container::{Container, State},
    plan::RestartPolicy,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Whether every init container has succeeded.
pub(crate) fn is_initialized(containers: &[Container]) -> bool {
    containers.iter().filter(|it| it.plan.init).all(Container::has_succeeded)
}

/// The phase of a pod of these containers; `ending` once it is to end.
pub(crate) fn phase(containers: &[Container], policy: RestartPolicy, ending: bool) -> Phase {
    let over = containers.iter().all(|it| it.state == State::Finished);
    let main = || containers.iter().filter(|it| !it.plan.init);
    if over && (ending || policy != RestartPolicy::Always) {
        let done = is_initialized(containers) && main().all(Container::has_succeeded);
        return if done { Phase::Succeeded } else { Phase::Failed };
    }
    let init_failed = containers
        .iter()
        .any(|it| it.plan.init && it.state == State::Finished && !it.has_succeeded());
    if init_failed && !ending && !containers.iter().any(Container::is_live) {
        return Phase::Failed;
    }
    if !is_initialized(containers) {
        return Phase::Pending;
    }
    // One that has never run, and may still, keeps the pod from counting as running.
    let unborn = |it: &Container| {
        it.ended.is_none() && !matches!(it.state, State::Running { .. } | State::Stopping { .. })
    };
    if !ending && main().any(unborn) { Phase::Pending } else { Phase::Running }
}
