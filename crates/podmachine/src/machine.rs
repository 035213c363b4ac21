//! The whole pod: what is wanted of it, what is seen of it, what is known of it. In which order its
//! parts move is in `drive`.

mod drive;
mod refusal;

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use toono_wire::report::EventReport;

use crate::{
    action::{Action, Observation},
    conditions::Conditions,
    container::{Container, State},
    context::Context,
    events::EventLog,
    moment::Moment,
    phase::{Phase, has_failed_init, is_initialized, phase},
    plan::{NotRunnable, Plan, Role},
    recovery::{self, Recovered},
    sandbox::{self, Sandbox},
    status,
};

/// One pod's life. See the crate's page for how it is driven.
#[derive(Debug, Clone)]
pub struct PodMachine {
    pub(crate) plan: Plan,
    pub(crate) host_ip: Option<IpAddr>,
    /// Init containers first, ephemeral ones last, each list in the order of the pod.
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
    /// Set once only containers are left that serve others, which have ended: when they are killed.
    completing: Option<Duration>,
    /// The main containers could run in this sandbox. A sidecar that crashes does not change that.
    pub(crate) initialized: bool,
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
    /// The pod itself has done nothing wrong: the node needs its room.
    pub(crate) disrupts: bool,
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
            containers: plan.containers.iter().cloned().map(Container::new).collect(),
            host_ip,
            sandbox: Sandbox::new(sandbox::State::Absent),
            ip: None,
            conditions: Conditions::default(),
            failure: None,
            ending: None,
            completing: None,
            initialized: false,
            deadline: None,
            complained: false,
            actions: Vec::new(),
            events: Vec::new(),
            started_at,
            plan,
        };
        machine.take_up(&found, now);
        if found.sandbox.is_none() && machine.failure.is_none() {
            machine.check_admission(now);
        }
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
        for new in &plan.containers {
            let same = |it: &&mut Container| it.plan.name == new.name && it.plan.role == new.role;
            match self.containers.iter_mut().find(same) {
                Some(container) => container.replan(new.clone(), now.elapsed),
                // Nothing else can be added to a pod.
                None if new.role == Role::Ephemeral => {
                    self.containers.push(Container::new(new.clone()));
                }
                None => {}
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
        let (containers, sandbox, initialized, mut cx) = self.parts(now);
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
                        initialize_again(containers, initialized);
                    }
                }
            }
            Observation::SandboxGone => sandbox.on_gone(),
            Observation::VolumesFailed { failures } => sandbox.on_unfilled(failures, &mut cx),
            Observation::ReferentsChanged => {
                sandbox.try_again(&cx);
                containers.iter_mut().for_each(|it| it.configure_again(&cx));
            }
            Observation::ImagePresent { ref container, .. }
            | Observation::ImageAbsent { ref container }
            | Observation::ImagePulled { ref container, .. }
            | Observation::ImageNameInvalid { ref container, .. }
            | Observation::ImagePullFailed { ref container, .. }
            | Observation::Started { ref container, .. }
            | Observation::StartFailed { ref container, .. }
            | Observation::HookDone { ref container, .. }
            | Observation::Probed { ref container, .. }
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
        self.check_completion(now);
        match self.kill_at() {
            Some(deadline) => self.drive_to_end(deadline, now),
            None => self.drive(now),
        }
        self.initialized |= is_initialized(&self.containers);
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

    /// `status.startTime`
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// When the run of a container that is on began.
    #[must_use]
    pub fn running_since(&self, container: &str) -> Option<Timestamp> {
        self.containers.iter().find(|it| it.plan.name == container)?.started_at
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

// === the parts ===

impl PodMachine {
    pub(crate) fn phase(&self) -> Phase {
        if self.failure.is_some() && !self.any_live() {
            return Phase::Failed;
        }
        let ending = self.kill_at().is_some();
        phase(&self.containers, self.plan.restart, self.initialized, ending)
    }

    fn conditions_at(&mut self, now: Moment) {
        let verdicts = status::verdicts(self);
        self.conditions.settle(verdicts, now.wall);
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
            // Only a failure has a reason, also one whose containers had not ended yet.
            if let Some(reason) = status.reason.clone() {
                let message = status.message.clone().unwrap_or_default();
                let disrupts = earlier.iter().any(|it| it.type_ == status::DISRUPTION);
                self.failure = Some(Failure { reason, message, kill_at: now.elapsed, disrupts });
            }
        } else if let Some(at) = self.plan.scheduled_at {
            self.conditions = Conditions::scheduled(at);
        }
        if let Some(alive) = &found.sandbox {
            self.sandbox = Sandbox::new(sandbox::State::Ready { ip: alive.ip });
            self.ip = alive.ip.or(self.ip);
        }
        let had_run = found.status.is_some() || !found.attempts.is_empty();
        self.initialized = recovery::was_initialized(found, &self.plan);
        let (containers, _, initialized, mut cx) = self.parts(now);
        for container in containers.iter_mut() {
            recovery::recover(container, found, &mut cx);
        }
        if found.sandbox.is_none() && had_run {
            initialize_again(containers, initialized);
        }
    }

    /// The parts that move, and what they move with.
    fn parts(
        &mut self,
        now: Moment,
    ) -> (&mut Vec<Container>, &mut Sandbox, &mut bool, Context<'_>) {
        let going = self.kill_at().is_none();
        let context = Context {
            pod: &self.plan,
            now,
            going,
            actions: &mut self.actions,
            events: EventLog::new(&self.plan, now.wall, &mut self.events),
        };
        (&mut self.containers, &mut self.sandbox, &mut self.initialized, context)
    }
}

/// A new sandbox is initialised anew, as long as anything is still to run in it.
fn initialize_again(containers: &mut [Container], initialized: &mut bool) {
    let to_run = |it: &Container| it.plan.role == Role::Main && it.state != State::Finished;
    if !has_failed_init(containers) && containers.iter().any(to_run) {
        *initialized = false;
        let done = |it: &&mut Container| it.plan.role == Role::Init && it.has_succeeded();
        for container in containers.iter_mut().filter(done) {
            container.state = State::Idle;
        }
    }
}

fn earlier_start(found: &Recovered) -> Option<Timestamp> {
    found.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}
