//! The whole pod: what is wanted, what is due, and in which order its parts move.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use toono_wire::report::EventReport;

use crate::{
    action::{Action, Observation},
    conditions::Conditions,
    container::{Container, Goal, State, Waiting},
    context::Context,
    events::EventLog,
    moment::Moment,
    phase::{Phase, is_initialized, phase},
    plan::{NotRunnable, Plan},
    recovery::{self, Recovered},
    sandbox::{self, Sandbox},
    status,
};

/// One pod's life. See the crate's page for how it is driven.
#[derive(Debug, Clone)]
pub struct PodMachine {
    pub(crate) plan: Plan,
    pub(crate) host_ip: Option<IpAddr>,
    /// Init containers first, each list in the order of the pod.
    pub(crate) containers: Vec<Container>,
    pub(crate) sandbox: Sandbox,
    /// Kept after the sandbox has gone, as the kubelet does.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) conditions: Conditions,
    pub(crate) started_at: Timestamp,
    /// Why the pod as a whole has failed.
    pub(crate) failure: Option<Failure>,
    /// Set once the pod is to end: when its containers are killed.
    ending: Option<Duration>,
    /// When `activeDeadlineSeconds` are over.
    deadline: Option<Duration>,
    /// The unsupported fields have been told.
    complained: bool,
    actions: Vec<Action>,
    events: Vec<EventReport>,
}

/// A failure of the pod rather than of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// When its containers are killed.
    kill_at: Duration,
}

/// What [`PodMachine::step`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// To be carried out in this order.
    pub actions: Vec<Action>,
    /// To be recorded, oldest first.
    pub events: Vec<EventReport>,
    /// On the clock of [`Moment::elapsed`]: when to call again if nothing happens before.
    pub wake: Option<Duration>,
}

// === the interface ===

impl PodMachine {
    /// A machine for a pod that this node has never seen.
    ///
    /// # Errors
    /// When the object lacks what every pod has.
    pub fn new(pod: &Pod, host_ip: Option<IpAddr>, now: Moment) -> Result<Self, NotRunnable> {
        Self::resume(pod, host_ip, Recovered::default(), now)
    }

    /// A machine for a pod that an earlier agent may have run.
    ///
    /// # Errors
    /// When the object lacks what every pod has.
    pub fn resume(
        pod: &Pod,
        host_ip: Option<IpAddr>,
        found: Recovered,
        now: Moment,
    ) -> Result<Self, NotRunnable> {
        let plan = Plan::read(pod)?;
        let started_at = earlier_start(&found).or(plan.started_at).unwrap_or(now.wall);
        let mut machine = Self {
            containers: plan.init.iter().chain(&plan.main).cloned().map(Container::new).collect(),
            host_ip,
            sandbox: Sandbox::new(sandbox::State::Absent),
            ip: None,
            conditions: Conditions::default(),
            failure: None,
            ending: None,
            deadline: None,
            complained: false,
            actions: Vec::new(),
            events: Vec::new(),
            started_at,
            plan,
        };
        machine.take_up(&found, now);
        machine.set_times(now);
        Ok(machine)
    }

    /// Takes a changed object of the same pod.
    ///
    /// # Errors
    /// When the object lacks what every pod has; the machine then goes on as before.
    pub fn desire(&mut self, pod: &Pod, now: Moment) -> Result<(), NotRunnable> {
        let plan = Plan::read(pod)?;
        self.complained &= plan.unsupported == self.plan.unsupported;
        for new in plan.init.iter().chain(&plan.main) {
            let same = |it: &&mut Container| it.plan.name == new.name && it.plan.init == new.init;
            if let Some(container) = self.containers.iter_mut().find(same) {
                container.replan(new.clone());
            }
        }
        self.plan = plan;
        self.set_times(now);
        Ok(())
    }

    /// The pod is no longer this node's: it ends within its own grace period.
    pub fn remove(&mut self, now: Moment) {
        self.end_by(now.elapsed + self.plan.grace);
    }

    /// Takes what has happened. [`Self::step`] is due afterwards.
    pub fn observe(&mut self, seen: Observation, now: Moment) {
        let (containers, sandbox, mut cx) = self.parts(now);
        match seen {
            Observation::SandboxReady { ip } => {
                sandbox.on_ready(ip);
                if sandbox.is_ready() {
                    self.ip = ip;
                }
            }
            Observation::SandboxFailed { message } => sandbox.on_failed(&message, &mut cx),
            Observation::SandboxLost => {
                if sandbox.on_lost(&mut cx) {
                    for container in containers.iter_mut() {
                        container.lose(&mut cx);
                    }
                    if cx.going {
                        let text = "Pod sandbox changed, it will be killed and re-created.";
                        cx.events.pod_normal("SandboxChanged", text.to_owned());
                        initialize_again(containers);
                    }
                }
            }
            Observation::SandboxGone => sandbox.on_gone(),
            Observation::ImagePresent { ref container, .. }
            | Observation::ImageAbsent { ref container }
            | Observation::ImagePulled { ref container, .. }
            | Observation::ImagePullFailed { ref container, .. }
            | Observation::Started { ref container, .. }
            | Observation::StartFailed { ref container, .. }
            | Observation::Exited { ref container, .. } => {
                let named = |it: &&mut Container| it.plan.name == *container;
                if let Some(container) = containers.iter_mut().find(named) {
                    container.observe(seen, &mut cx);
                }
            }
        }
    }

    /// Moves every part as far as it can go at this time.
    pub fn step(&mut self, now: Moment) -> Step {
        self.check_deadline(now);
        match self.kill_at() {
            Some(deadline) => self.drive_to_end(deadline, now),
            None => self.drive(now),
        }
        self.conditions_at(now);
        Step {
            actions: std::mem::take(&mut self.actions),
            events: std::mem::take(&mut self.events),
            wake: self.wake(),
        }
    }

    /// The pod's status as of the last [`Self::step`].
    #[must_use]
    pub fn status(&self) -> PodStatus {
        status::render(self)
    }

    /// Nothing of the pod is left, and nothing of it will come back.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.ending.is_some() && self.is_at_rest()
    }

    /// Whether the pod is being ended, by a deletion or because it is no longer this node's.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.plan.namespace
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.plan.uid
    }

    /// The run of a container that is on: its attempt. None when it does not run.
    #[must_use]
    pub fn running_attempt(&self, container: &str) -> Option<u32> {
        let found = self.containers.iter().find(|it| it.plan.name == container)?;
        matches!(found.state, State::Running { .. } | State::Stopping { .. })
            .then_some(found.attempt)
    }

    /// The newest run of a container that has a log: the one that is on, else the last. None
    /// before the first, or when the pod has no such container.
    #[must_use]
    pub fn newest_attempt(&self, container: &str) -> Option<u32> {
        let found = self.containers.iter().find(|it| it.plan.name == container)?;
        let ended = found.ended.as_ref().map(|it| it.attempt);
        self.running_attempt(container).or(ended)
    }

    /// The containers' names, init containers first.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().map(|it| it.plan.name.as_str())
    }

    /// Whether no container of the pod will run again: it is ending, or has reached a final phase.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.kill_at().is_some() || self.phase().is_terminal()
    }
}

// === the parts in order ===

impl PodMachine {
    pub(crate) fn phase(&self) -> Phase {
        if self.failure.is_some() && !self.any_live() {
            return Phase::Failed;
        }
        let ending = self.ending.is_some() || self.failure.is_some();
        phase(&self.containers, self.plan.restart, ending)
    }

    fn drive(&mut self, now: Moment) {
        self.complain(now);
        let blocked = self.plan.blocker().is_some();
        let over = self.phase().is_terminal();
        let turn = self.turn();
        let (containers, sandbox, mut cx) = self.parts(now);
        if over {
            if !containers.iter().any(Container::is_live) {
                sandbox.end(&mut cx);
            }
            return;
        }
        if !blocked {
            sandbox.want(&mut cx);
        }
        let run = Goal::Run { sandbox: sandbox.is_ready() };
        for (index, container) in containers.iter_mut().enumerate() {
            let may_run = index < turn && (!blocked || container.is_live());
            container.advance(if may_run { run } else { Goal::Wait }, &mut cx);
        }
    }

    /// How many containers may run by now: one init container after the other, and the main ones
    /// together after the last.
    fn turn(&self) -> usize {
        let undone = |it: &Container| it.plan.init && !it.has_succeeded();
        self.containers.iter().position(undone).map_or(self.containers.len(), |first| first + 1)
    }

    fn drive_to_end(&mut self, deadline: Duration, now: Moment) {
        let (containers, sandbox, mut cx) = self.parts(now);
        for container in containers.iter_mut() {
            container.advance(Goal::Stop { deadline }, &mut cx);
        }
        if !containers.iter().any(Container::is_live) {
            sandbox.end(&mut cx);
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
        let (containers, _, mut cx) = self.parts(now);
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

    fn check_deadline(&mut self, now: Moment) {
        let due = self.deadline.is_some_and(|deadline| now.elapsed >= deadline);
        if due && self.kill_at().is_none() && !self.phase().is_terminal() {
            let message = "Pod was active on the node longer than the specified deadline";
            let kill_at = now.elapsed + self.plan.grace;
            let reason = "DeadlineExceeded".to_owned();
            self.failure = Some(Failure { reason, message: message.to_owned(), kill_at });
            let (_, _, mut cx) = self.parts(now);
            cx.events.pod_normal("DeadlineExceeded", message.to_owned());
        }
    }

    fn conditions_at(&mut self, now: Moment) {
        let verdicts = status::verdicts(self);
        self.conditions.settle(verdicts, now.wall);
    }

    fn wake(&self) -> Option<Duration> {
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

    fn kill_at(&self) -> Option<Duration> {
        let failed = self.failure.as_ref().map(|it| it.kill_at);
        self.ending.into_iter().chain(failed).min()
    }

    fn end_by(&mut self, deadline: Duration) {
        self.ending = Some(self.ending.map_or(deadline, |before| before.min(deadline)));
    }

    fn any_live(&self) -> bool {
        self.containers.iter().any(Container::is_live)
    }

    fn is_at_rest(&self) -> bool {
        !self.any_live() && self.sandbox.is_absent()
    }

    fn set_times(&mut self, now: Moment) {
        if let Some(grace) = self.plan.deletion {
            self.end_by(now.elapsed + grace);
        }
        self.deadline = self.plan.active_deadline.map(|limit| {
            let active = now.wall.duration_since(self.started_at);
            now.elapsed + limit.saturating_sub(Duration::try_from(active).unwrap_or_default())
        });
    }

    fn take_up(&mut self, found: &Recovered, now: Moment) {
        if let Some(status) = &found.status {
            let earlier = status.conditions.as_deref().unwrap_or_default();
            self.conditions = Conditions::recover(earlier, &status::KINDS);
            self.ip = status.pod_ip.as_ref().and_then(|ip| ip.parse().ok());
            let failed = status.phase.as_deref() == Some("Failed");
            if let (true, Some(reason)) = (failed, status.reason.clone()) {
                let message = status.message.clone().unwrap_or_default();
                self.failure = Some(Failure { reason, message, kill_at: now.elapsed });
            }
        } else if let Some(at) = self.plan.scheduled_at {
            self.conditions = Conditions::scheduled(at);
        }
        if let Some(alive) = &found.sandbox {
            self.sandbox = Sandbox::new(sandbox::State::Ready { ip: alive.ip });
            self.ip = alive.ip.or(self.ip);
        }
        let had_run = found.status.is_some() || !found.attempts.is_empty();
        let (containers, _, mut cx) = self.parts(now);
        for container in containers.iter_mut() {
            recovery::recover(container, found, &mut cx);
        }
        if found.sandbox.is_none() && had_run {
            initialize_again(containers);
        }
    }

    /// The parts that move, and what they move with.
    fn parts(&mut self, now: Moment) -> (&mut Vec<Container>, &mut Sandbox, Context<'_>) {
        let going = self.ending.is_none() && self.failure.is_none();
        let context = Context {
            pod: &self.plan,
            now,
            going,
            actions: &mut self.actions,
            events: EventLog::new(&self.plan, now.wall, &mut self.events),
        };
        (&mut self.containers, &mut self.sandbox, context)
    }
}

/// A new sandbox is initialised anew, as long as anything is still to run in it.
fn initialize_again(containers: &mut [Container]) {
    let to_run = |it: &Container| !it.plan.init && it.state != State::Finished;
    if is_initialized(containers) && containers.iter().any(to_run) {
        for container in containers.iter_mut().filter(|it| it.plan.init) {
            container.state = State::Idle;
        }
    }
}

fn earlier_start(found: &Recovered) -> Option<Timestamp> {
    found.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}
