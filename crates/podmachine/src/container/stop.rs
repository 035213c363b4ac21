//! One container's end: the hook before it, its turn, `SIGTERM`, `SIGKILL`; and the hooks' results.

use std::time::Duration;

use super::{Container, State};
use crate::{
    action::{Action, Hook, StopSignal},
    context::Context,
    restart::{RestartPolicy, Restarts},
};

/// A process that outlives `SIGKILL` hangs in the kernel. The signal is repeated this often all the
/// same, in case the first was lost together with an agent.
const KILL_AGAIN: Duration = Duration::from_secs(10);
/// What a container has left between the two signals when its hook, or the wait for its turn, has
/// used up the grace period. The kubelet's minimum.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// How far a container is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The hook before the end is under way.
    Hook,
    /// Others have to end first.
    Turn,
    /// It was asked to end.
    Signalled,
}

/// What follows when a container that was stopped has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// What would have followed had it ended by itself.
    ByPolicy,
    /// It runs again at once, as something else.
    Replaced,
    /// A probe failed: it runs again, unless nothing of the pod ever does.
    Unhealthy,
}

impl Again {
    pub(super) fn restarts(self, by: &Restarts, code: i32) -> bool {
        match self {
            Self::ByPolicy => by.after(code),
            Self::Replaced => true,
            Self::Unhealthy => by.policy != RestartPolicy::Never,
        }
    }
}

impl Container {
    pub(super) fn has_process(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Stopping { .. })
    }

    pub(super) fn stop(&mut self, by: Duration, cx: &mut Context<'_>) {
        match &mut self.state {
            State::Running { .. } => {
                let why = format!("Stopping container {}", self.plan.name);
                self.begin_stop(by.saturating_sub(cx.now.elapsed), why, Again::ByPolicy, cx);
            }
            // A second, shorter grace period counts; a longer one does not.
            State::Stopping { deadline, act_at, .. } if by < *deadline => {
                *deadline = by;
                *act_at = by.min(*act_at);
            }
            // It has to be seen running, or failing, before it can be stopped.
            State::Stopping { .. } | State::Starting | State::Finished => {}
            state => *state = State::Finished,
        }
    }

    pub(super) fn begin_stop(
        &mut self,
        grace: Duration,
        why: String,
        again: Again,
        cx: &mut Context<'_>,
    ) {
        let State::Running { since } = self.state else { return };
        cx.events.normal(&self.plan, "Killing", why);
        self.again = again;
        let stage = if grace.is_zero() {
            Stage::Signalled
        } else if self.plan.pre_stop {
            let container = self.plan.name.clone();
            cx.act(Action::RunHook { container, attempt: self.attempt, hook: Hook::PreStop });
            Stage::Hook
        } else {
            Stage::Turn
        };
        let deadline = cx.now.elapsed + grace;
        self.state = State::Stopping { since, deadline, act_at: deadline, stage };
    }

    /// Sends the signals that are due.
    pub(super) fn go_on_stopping(&mut self, turn: bool, cx: &mut Context<'_>) {
        let State::Stopping { act_at, stage, .. } = &mut self.state else { return };
        let due = cx.now.elapsed >= *act_at;
        let signal = match stage {
            Stage::Signalled if due => {
                *act_at = cx.now.elapsed + KILL_AGAIN;
                StopSignal::Kill
            }
            Stage::Hook | Stage::Turn if due => {
                *act_at = cx.now.elapsed + LEAST_GRACE;
                StopSignal::Terminate
            }
            Stage::Turn if turn => {
                *act_at = (*act_at).max(cx.now.elapsed + LEAST_GRACE);
                StopSignal::Terminate
            }
            _ => return,
        };
        *stage = Stage::Signalled;
        let container = self.plan.name.clone();
        cx.act(Action::SignalContainer { container, attempt: self.attempt, signal });
    }

    pub(super) fn on_hook_done(&mut self, hook: Hook, error: Option<String>, cx: &mut Context<'_>) {
        match (hook, &mut self.state) {
            (Hook::PostStart, _) if self.hooking => {
                self.hooking = false;
                let Some(error) = error else { return };
                // What the hook said may be a secret, and events are for everyone.
                let text = "PostStartHook failed".to_owned();
                cx.events.warning(&self.plan, "FailedPostStartHook", text);
                self.hook_error = Some(error);
                let why = "FailedPostStartHook".to_owned();
                self.begin_stop(cx.pod.grace, why, Again::ByPolicy, cx);
            }
            (Hook::PreStop, State::Stopping { stage: stage @ Stage::Hook, .. }) => {
                *stage = Stage::Turn;
                if error.is_some() {
                    let text = "PreStopHook failed".to_owned();
                    cx.events.warning(&self.plan, "FailedPreStopHook", text);
                }
            }
            _ => {}
        }
    }
}
