//! In which order the parts of a pod move: one step of a pod that goes on, or of one that ends.

use std::time::Duration;

use super::{Failure, PodMachine};
use crate::{
    container::{Container, Goal, State, Waiting},
    moment::Moment,
    phase::{has_failed_init, is_pending},
    plan::Role,
};

impl PodMachine {
    pub(super) fn drive(&mut self, now: Moment) {
        self.complain(now);
        let blocked = self.plan.blocker().is_some();
        let over = self.phase().is_terminal();
        let turn = self.turn();
        let (containers, sandbox, _, mut cx) = self.parts(now);
        if over {
            if !containers.iter().any(Container::is_live) {
                sandbox.end(&mut cx);
            }
            return;
        }
        if !blocked {
            sandbox.want(&mut cx);
        }
        let ready = sandbox.is_ready();
        // Main containers start one after the other as far as their hooks go.
        let mut hooking = false;
        for (index, container) in containers.iter_mut().enumerate() {
            let role = container.plan.role;
            let its_turn = index < turn || role == Role::Ephemeral;
            let may_run = its_turn && (!blocked || container.is_live());
            let run = Goal::Run { sandbox: ready && !(hooking && role == Role::Main) };
            container.advance(if may_run { run } else { Goal::Wait }, &mut cx);
            hooking |= role == Role::Main && container.is_before_hook();
        }
    }

    /// How many containers may run by now: init containers one after the other has succeeded, or
    /// has started if it is to go on, and the main ones together after the last.
    fn turn(&self) -> usize {
        let all = self.containers.len();
        if self.initialized {
            return all;
        }
        self.containers.iter().position(is_pending).map_or(all, |first| first + 1)
    }

    /// Sidecars serve the others: they are asked to end after those, the last one first.
    pub(super) fn drive_to_end(&mut self, deadline: Duration, now: Moment) {
        let served = |it: &Container| it.is_live() && it.plan.role != Role::Ephemeral;
        let last = self.containers.iter().rposition(served);
        let (containers, sandbox, _, mut cx) = self.parts(now);
        for (index, container) in containers.iter_mut().enumerate() {
            let turn = container.plan.role != Role::Sidecar || last.is_none_or(|it| it <= index);
            container.advance(Goal::Stop { deadline, turn }, &mut cx);
        }
        if !containers.iter().any(Container::is_live) {
            sandbox.end(&mut cx);
        }
    }

    /// Begins to end what would run for ever although there is nothing left to serve.
    pub(super) fn check_completion(&mut self, now: Moment) {
        let is_main = |it: &&Container| it.plan.role == Role::Main;
        let is_finished = |it: &Container| it.state == State::Finished;
        let done = self.containers.iter().filter(is_main).all(is_finished)
            || has_failed_init(&self.containers);
        let serves = |it: &Container| matches!(it.plan.role, Role::Sidecar | Role::Ephemeral);
        let left = self.containers.iter().any(|it| serves(it) && !is_finished(it));
        if done && left && self.kill_at().is_none() {
            self.completing = Some(now.elapsed + self.plan.grace);
        }
    }

    /// Says once which fields are not applied, and shows what that keeps from running.
    fn complain(&mut self, now: Moment) {
        if self.complained || self.plan.unsupported.is_empty() {
            return;
        }
        self.complained = true;
        let blocker = self.plan.blocker().map(|it| it.field.clone());
        let fields: Vec<_> = self.plan.unsupported.iter().map(|it| it.field.clone()).collect();
        let (containers, _, _, mut cx) = self.parts(now);
        let text = format!("this node does not apply {}", fields.join(", "));
        cx.events.pod_warning("UnsupportedField", text);
        let Some(field) = blocker else { return };
        let message = format!("{field} is not supported by this node");
        cx.events.pod_warning("Failed", format!("Error: {message}"));
        for container in containers.iter_mut().filter(|it| !it.is_live()) {
            let message = message.clone();
            container.waiting = Some(Waiting { reason: "CreateContainerConfigError", message });
        }
    }

    /// A pod that must not run here has failed before anything of it is made.
    pub(super) fn check_admission(&mut self, now: Moment) {
        let Some((reason, text)) = self.plan.refusal.clone() else { return };
        self.refuse(reason, &text, now);
    }

    pub(super) fn check_deadline(&mut self, now: Moment) {
        let due = self.deadline.is_some_and(|deadline| now.elapsed >= deadline);
        if due && self.kill_at().is_none() && !self.phase().is_terminal() {
            let message = "Pod was active on the node longer than the specified deadline";
            let kill_at = now.elapsed + self.plan.grace;
            let reason = "DeadlineExceeded".to_owned();
            let message = message.to_owned();
            self.failure =
                Some(Failure { reason, message: message.clone(), kill_at, disrupts: false });
            let (_, _, _, mut cx) = self.parts(now);
            cx.events.pod_normal("DeadlineExceeded", message);
        }
    }

    pub(super) fn wake(&self) -> Option<Duration> {
        if self.phase().is_terminal() && !self.any_live() {
            return None;
        }
        let ending = self.kill_at().is_some();
        let deadline = if ending { None } else { self.deadline };
        let sandbox = if ending { None } else { self.sandbox.wake() };
        let waiting = if ending || self.plan.blocker().is_some() { 0 } else { self.turn() };
        let due = |(index, it): (usize, &Container)| {
            if index < waiting || it.is_live() { it.wake() } else { None }
        };
        let containers = self.containers.iter().enumerate().filter_map(due);
        containers.chain(deadline).chain(sandbox).min()
    }

    pub(super) fn kill_at(&self) -> Option<Duration> {
        let failed = self.failure.as_ref().map(|it| it.kill_at);
        self.ending.into_iter().chain(failed).chain(self.completing).min()
    }

    pub(super) fn end_by(&mut self, deadline: Duration) {
        self.ending = Some(self.ending.map_or(deadline, |before| before.min(deadline)));
    }

    pub(super) fn any_live(&self) -> bool {
        self.containers.iter().any(Container::is_live)
    }

    pub(super) fn is_at_rest(&self) -> bool {
        !self.any_live() && self.sandbox.is_absent()
    }
}
