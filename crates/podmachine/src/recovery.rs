//! Taking up a pod where an earlier agent left it: what was written down, and what still lives.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodStatus};

use crate::{
    action::Exit,
    container::{Container, Ended, State, lost},
    context::Context,
    plan::{Plan, Role},
    probes::Probes,
};

/// What an agent that starts knows of a pod.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The last status that the machine gave before the agent ended, as persisted.
    pub status: Option<PodStatus>,
    /// The keeper that is still alive, if one is.
    pub sandbox: Option<SandboxFound>,
    /// The highest attempt of each container that left a trace on disk. It covers a start that the
    /// persisted status does not know of yet.
    pub attempts: BTreeMap<String, u32>,
}

/// A sandbox that outlived its agent.
#[derive(Debug, Clone)]
pub struct SandboxFound {
    /// The pod's address.
    pub ip: Option<IpAddr>,
    /// What runs or ran in it.
    pub containers: Vec<ContainerFound>,
}

/// A container found in a living sandbox.
#[derive(Debug, Clone)]
pub struct ContainerFound {
    /// Its name in the pod.
    pub name: String,
    /// Which run.
    pub attempt: u32,
    /// When that run began.
    pub started_at: Option<Timestamp>,
    /// How it ended, unless it runs.
    pub exit: Option<Exit>,
}

/// Whether the main containers could run already.
pub(crate) fn was_initialized(found: &Recovered, plan: &Plan) -> bool {
    let conditions = found.status.iter().flat_map(|it| it.conditions.iter().flatten());
    let told = conditions.into_iter().any(|it| it.type_ == "Initialized" && it.status == "True");
    let is_main = |run: &ContainerFound| {
        plan.containers.iter().any(|it| it.role == Role::Main && it.name == run.name)
    };
    told || found.sandbox.iter().flat_map(|it| &it.containers).any(is_main)
}

/// Sets a fresh container to what was found of it.
pub(crate) fn recover(container: &mut Container, found: &Recovered, cx: &mut Context<'_>) {
    let name = container.plan.name.as_str();
    let old = found.status.as_ref().and_then(|status| status_of(status, container));
    let alive = found.sandbox.as_ref().and_then(|sandbox| {
        let runs = sandbox.containers.iter().filter(|it| it.name == name);
        runs.max_by_key(|it| it.attempt)
    });
    let traced = found.attempts.get(name).copied();
    if let Some(old) = old {
        recall(container, old);
    }
    let known = container.ended.as_ref().map(|ended| ended.attempt);
    if let Some(alive) = alive {
        let ran_before = !container.running_image.is_empty();
        // A container whose image was changed while no agent ran has to be seen as the old one.
        if !ran_before {
            container.running_image.clone_from(&container.plan.image);
        }
        container.attempt = alive.attempt;
        container.started_at = alive.started_at;
        if let Some(exit) = &alive.exit {
            if known.is_none_or(|known| known < alive.attempt) {
                container.on_exit(exit.clone(), None, cx);
            } else {
                settle(container, cx);
            }
        } else {
            container.waiting = None;
            container.state = State::Running { since: ran_since(alive.started_at, cx) };
            watch_again(container, old.filter(|old| shows_run(old, alive.attempt)), cx);
        }
        return;
    }
    // No keeper: what was running is no more.
    let last = traced.max(old.filter(|old| has_run(old)).map(|_| container.attempt));
    match last {
        Some(last) if known.is_none_or(|known| known < last) => {
            container.attempt = last;
            let exit = lost(container.started_at, cx.now.wall);
            container.on_exit(exit, Some("ContainerStatusUnknown"), cx);
        }
        Some(_) => settle(container, cx),
        None => {}
    }
}

/// Takes up the probes and hooks of a run as far as its status, if that told of the run, shows them.
fn watch_again(container: &mut Container, old: Option<&ContainerStatus>, cx: &mut Context<'_>) {
    let State::Running { since } = container.state else { return };
    let started = old.is_some_and(|old| old.started == Some(true));
    let ready = old.is_some_and(|old| old.ready);
    let mut seed = DefaultHasher::new();
    (&cx.pod.uid, &container.plan.name).hash(&mut seed);
    let times = (since, cx.now.elapsed);
    container.probes =
        Probes::resume(&container.plan.probes, times, (started, ready), seed.finish());
    // A status shows a run once its hook is done.
    if container.plan.post_start && old.is_none() && cx.going {
        container.run_post_start(cx);
    }
}

fn shows_run(old: &ContainerStatus, attempt: u32) -> bool {
    let running = old.state.as_ref().is_some_and(|state| state.running.is_some());
    running && u32::try_from(old.restart_count) == Ok(attempt)
}

/// Decides about a container whose end was already written down. Its back-off starts afresh, as
/// the kubelet's does when it restarts.
fn settle(container: &mut Container, cx: &mut Context<'_>) {
    if let Some(ended) = container.ended.take() {
        let previous = container.previous.take();
        container.on_exit(ended.exit, Some(&ended.reason), cx);
        container.previous = previous;
    }
}

/// Reads the persisted status of one container.
fn recall(container: &mut Container, old: &ContainerStatus) {
    container.attempt = u32::try_from(old.restart_count).unwrap_or(0);
    container.image_id.clone_from(&old.image_id);
    if !old.image_id.is_empty() {
        container.running_image.clone_from(&old.image);
    }
    let state = old.state.clone().unwrap_or_default();
    let last = old.last_state.clone().unwrap_or_default().terminated.map(ended);
    match state.terminated.map(ended) {
        Some(now) => {
            container.ended = Some(now);
            container.previous = last;
        }
        None => container.ended = last,
    }
    container.started_at = state.running.and_then(|running| running.started_at).map(|time| time.0);
}

fn status_of<'a>(status: &'a PodStatus, container: &Container) -> Option<&'a ContainerStatus> {
    let list = match container.plan.role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Main => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|old| old.name == container.plan.name)
}

fn has_run(old: &ContainerStatus) -> bool {
    old.container_id.is_some()
}

/// The attempt is the last part of the container's id; see the status.
fn ended(state: ContainerStateTerminated) -> Ended {
    let id = state.container_id.unwrap_or_default();
    Ended {
        attempt: id.rsplit('_').next().and_then(|text| text.parse().ok()).unwrap_or(0),
        reason: state.reason.unwrap_or_default(),
        exit: Exit {
            code: state.exit_code,
            signal: state.signal,
            oom: false,
            started_at: state.started_at.map(|time| time.0),
            finished_at: state.finished_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            message: state.message,
        },
    }
}

/// When a run began on the monotonic clock, as far as the wall clock can tell.
fn ran_since(started_at: Option<Timestamp>, cx: &Context<'_>) -> Duration {
    let ran = started_at.map_or(Duration::ZERO, |at| {
        Duration::try_from(cx.now.wall.duration_since(at)).unwrap_or(Duration::ZERO)
    });
    cx.now.elapsed.saturating_sub(ran)
}
