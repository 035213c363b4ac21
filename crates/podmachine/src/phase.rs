//! The pod's phase, by the kubelet's rules (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>).

use crate::{
    container::{Container, State},
    plan::Role,
    restart::RestartPolicy,
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

/// Whether the main containers may run by what is seen of the others: every init container has
/// succeeded, every sidecar has started.
pub(crate) fn is_initialized(containers: &[Container]) -> bool {
    !containers.iter().any(is_pending)
}

/// Whether containers that come after this one wait for it.
pub(crate) fn is_pending(container: &Container) -> bool {
    match container.plan.role {
        Role::Init => !container.has_succeeded(),
        Role::Sidecar => !container.is_started(),
        Role::Main | Role::Ephemeral => false,
    }
}

/// Whether the pod can get no further because an init container failed for good.
pub(crate) fn has_failed_init(containers: &[Container]) -> bool {
    let failed = |it: &Container| it.state == State::Finished && !it.has_succeeded();
    containers.iter().any(|it| it.plan.role == Role::Init && failed(it))
}

/// The phase of a pod of these containers; `initialized` once the main ones could run, `ending` once
/// it is to end.
pub(crate) fn phase(
    containers: &[Container],
    policy: RestartPolicy,
    initialized: bool,
    ending: bool,
) -> Phase {
    let over = containers.iter().all(|it| it.state == State::Finished);
    let main = || containers.iter().filter(|it| it.plan.role == Role::Main);
    let own = || main().any(|it| it.plan.restarts.policy != RestartPolicy::Always);
    if over && (ending || policy != RestartPolicy::Always || own()) {
        let done = initialized && main().all(Container::has_succeeded);
        return if done { Phase::Succeeded } else { Phase::Failed };
    }
    if has_failed_init(containers) && !ending && !containers.iter().any(Container::is_live) {
        return Phase::Failed;
    }
    if !initialized {
        return Phase::Pending;
    }
    // One that has never run, and may still, keeps the pod from counting as running.
    let unborn = |it: &Container| it.ended.is_none() && !it.is_up();
    if !ending && main().any(unborn) { Phase::Pending } else { Phase::Running }
}
