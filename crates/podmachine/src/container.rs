//! One container's life, forward: image, start, stop, and again. What comes back is in `outcome`.

mod outcome;

pub(crate) use outcome::lost;

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    action::{Action, Exit, StopSignal},
    backoff::BackOff,
    context::Context,
    plan::{ContainerPlan, PullPolicy},
};

/// A process that outlives `SIGKILL` hangs in the kernel. The signal is repeated this often all the
/// same, in case the first was lost together with an agent.
const KILL_AGAIN: Duration = Duration::from_secs(10);

/// What the pod wants of a container now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Not its turn.
    Wait,
    /// Run; `sandbox` tells whether there is one to run in.
    Run { sandbox: bool },
    /// End, forcibly once `deadline` is past.
    Stop { deadline: Duration },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is under way.
    Idle,
    /// The node is to be searched for the image.
    WantsLookUp,
    LookingUp,
    /// The image is to be pulled.
    WantsPull,
    Pulling,
    /// A pull failed and the next is due at `until`. The plain error is shown until `error_until`.
    PullHeld {
        until: Duration,
        error_until: Option<Duration>,
    },
    /// The image is there.
    HasImage,
    /// The agent starts it.
    Starting,
    Running {
        since: Duration,
    },
    /// It was asked to end; the next `SIGKILL` is due at `kill_at`.
    Stopping {
        since: Duration,
        kill_at: Duration,
    },
    /// It ended, or could not start, and is tried again at `until`.
    Held {
        until: Duration,
    },
    /// It will not run again.
    Finished,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) attempt: u32,
    pub(crate) exit: Exit,
    pub(crate) reason: String,
}

/// Why a container is not running, as its status says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) plan: ContainerPlan,
    pub(crate) state: State,
    /// The run that is on or was last, which is the restart count.
    pub(crate) attempt: u32,
    /// The last run that ended, and the one before it.
    pub(crate) ended: Option<Ended>,
    pub(crate) previous: Option<Ended>,
    /// When the run that is on began.
    pub(crate) started_at: Option<Timestamp>,
    /// Why it is not running, where that is more than "not yet".
    pub(crate) waiting: Option<Waiting>,
    pub(crate) image_id: String,
    /// The reference that the last run was made from.
    pub(crate) running_image: String,
    pub(crate) crash: BackOff,
    pub(crate) pull: BackOff,
    /// The registry gave no answer; an image that served this container before may serve again.
    pub(crate) unreachable: Option<String>,
}

impl Container {
    pub(crate) fn new(plan: ContainerPlan) -> Self {
        Self {
            plan,
            state: State::Idle,
            attempt: 0,
            ended: None,
            previous: None,
            started_at: None,
            waiting: None,
            image_id: String::new(),
            running_image: String::new(),
            crash: BackOff::for_crashes(),
            pull: BackOff::for_pulls(),
            unreachable: None,
        }
    }

    /// Whether a process of it runs or may run.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::Starting | State::Running { .. } | State::Stopping { .. })
    }

    /// Whether it runs and nobody has asked it to end.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Whether it ended for good, and well.
    pub(crate) fn has_succeeded(&self) -> bool {
        self.state == State::Finished && self.ended.as_ref().is_some_and(|it| it.exit.code == 0)
    }

    /// The attempt that the next start will be.
    pub(crate) fn next_attempt(&self) -> u32 {
        match &self.ended {
            Some(ended) if ended.attempt >= self.attempt => ended.attempt.saturating_add(1),
            _ => self.attempt,
        }
    }

    /// When [`Self::advance`] has something to do without an observation.
    pub(crate) fn wake(&self) -> Option<Duration> {
        match self.state {
            State::PullHeld { until, error_until } => Some(error_until.unwrap_or(until)),
            State::Held { until } => Some(until),
            State::Stopping { kill_at, .. } => Some(kill_at),
            _ => None,
        }
    }

    /// Takes the changed plan of the same container.
    pub(crate) fn replan(&mut self, plan: ContainerPlan) {
        if plan.image != self.plan.image {
            self.pull.reset();
            self.unreachable = None;
            // What is known of the old image is void. An answer still under way finds no question.
            if !self.is_live() && !matches!(self.state, State::Held { .. } | State::Finished) {
                self.state = State::Idle;
            }
        }
        self.plan = plan;
    }

    /// Does all that can be done without another observation.
    pub(crate) fn advance(&mut self, goal: Goal, cx: &mut Context<'_>) {
        match goal {
            Goal::Wait => {}
            Goal::Stop { deadline } => self.stop(deadline, cx),
            Goal::Run { sandbox } => {
                self.end_holds(cx);
                self.seek_image(cx);
                if self.state == State::HasImage && sandbox {
                    self.start(cx);
                }
                if self.is_running() && self.running_image != self.plan.image {
                    let name = &self.plan.name;
                    let why = format!("Container {name} definition changed, will be restarted");
                    self.begin_stop(cx.now.elapsed + cx.pod.grace, why, cx);
                }
            }
        }
        if let State::Stopping { since, kill_at } = self.state
            && cx.now.elapsed >= kill_at
        {
            self.state = State::Stopping { since, kill_at: cx.now.elapsed + KILL_AGAIN };
            self.signal(StopSignal::Kill, cx);
        }
    }

    fn end_holds(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.elapsed;
        match self.state {
            State::Held { until } | State::PullHeld { until, .. } if now >= until => {
                self.state = State::Idle;
            }
            State::PullHeld { until, error_until: Some(shown) } if now >= shown => {
                self.state = State::PullHeld { until, error_until: None };
                self.show_pull_back_off(cx);
            }
            _ => {}
        }
    }

    fn seek_image(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Idle {
            self.state = match self.plan.pull {
                PullPolicy::Always => State::WantsPull,
                PullPolicy::IfNotPresent | PullPolicy::Never => State::WantsLookUp,
            };
        }
        let (container, image) = (self.plan.name.clone(), self.plan.image.clone());
        if self.state == State::WantsLookUp {
            self.state = State::LookingUp;
            cx.act(Action::LookUpImage { container, image });
        } else if self.state == State::WantsPull {
            self.state = State::Pulling;
            cx.events.normal(&self.plan, "Pulling", format!("Pulling image \"{image}\""));
            cx.act(Action::PullImage { container, image });
        }
    }

    fn start(&mut self, cx: &mut Context<'_>) {
        let container = &self.plan.name;
        if let Some(ended) = &self.ended {
            let attempt = ended.attempt;
            cx.act(Action::RemoveContainer { container: container.clone(), attempt });
        }
        cx.act(Action::StartContainer {
            container: container.clone(),
            attempt: self.next_attempt(),
            image_id: self.image_id.clone(),
        });
        self.state = State::Starting;
        self.running_image.clone_from(&self.plan.image);
    }

    fn stop(&mut self, deadline: Duration, cx: &mut Context<'_>) {
        match self.state {
            State::Running { .. } => {
                self.begin_stop(deadline, format!("Stopping container {}", self.plan.name), cx);
            }
            // A second, shorter grace period counts; a longer one does not.
            State::Stopping { since, kill_at } => {
                self.state = State::Stopping { since, kill_at: kill_at.min(deadline) };
            }
            // It has to be seen running, or failing, before it can be stopped.
            State::Starting | State::Finished => {}
            _ => self.state = State::Finished,
        }
    }

    fn begin_stop(&mut self, deadline: Duration, why: String, cx: &mut Context<'_>) {
        if let State::Running { since } = self.state {
            self.state = State::Stopping { since, kill_at: deadline };
            cx.events.normal(&self.plan, "Killing", why);
            if deadline > cx.now.elapsed {
                self.signal(StopSignal::Terminate, cx);
            }
        }
    }

    fn signal(&self, signal: StopSignal, cx: &mut Context<'_>) {
        let container = self.plan.name.clone();
        cx.act(Action::SignalContainer { container, attempt: self.attempt, signal });
    }
}
