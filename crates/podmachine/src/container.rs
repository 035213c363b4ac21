//! One container's life, forward: image, start, and again. Its end is in `stop`, its probes are in
//! `health`, and what comes back is in `outcome`.

mod health;
mod outcome;
mod stop;

pub(crate) use outcome::lost;

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    action::{Action, Exit},
    backoff::BackOff,
    context::Context,
    plan::{ContainerPlan, PullPolicy},
    probes::Probes,
};
use stop::{Again, Stage};

/// What the pod wants of a container now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Not its turn.
    Wait,
    /// Run; `sandbox` tells whether there is one to run in.
    Run { sandbox: bool },
    /// End, forcibly once `deadline` is past. It is asked to end when it is its turn.
    Stop { deadline: Duration, turn: bool },
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
    /// It is to end by `deadline`; what `stage` waits for is over at `act_at`.
    Stopping {
        since: Duration,
        deadline: Duration,
        act_at: Duration,
        stage: Stage,
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
    /// Of the run that is on.
    pub(crate) probes: Probes,
    /// The hook after its start is under way, and until then it does not count as running.
    pub(crate) hooking: bool,
    /// Why that hook failed.
    hook_error: Option<String>,
    /// What follows when it ends after having been stopped.
    again: Again,
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
            probes: Probes::default(),
            hooking: false,
            hook_error: None,
            again: Again::ByPolicy,
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

    /// Whether its process is there, and its hook after the start is done.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Stopping { .. }) && !self.hooking
    }

    /// Whether it is on its way to the end of the hook after its start.
    pub(crate) fn is_before_hook(&self) -> bool {
        let held = matches!(self.state, State::PullHeld { .. } | State::Held { .. });
        let on_its_way = !self.has_process() && !held && self.state != State::Finished;
        self.hooking || (self.plan.post_start && on_its_way)
    }

    /// Whether it is up and its startup probe, if it has one, has succeeded.
    pub(crate) fn is_started(&self) -> bool {
        self.is_up() && self.probes.started()
    }

    /// Whether it may get traffic.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_up() && self.probes.ready()
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
            State::Running { .. } => self.probes_wake(false),
            State::Stopping { act_at, .. } => {
                self.probes_wake(true).into_iter().chain([act_at]).min()
            }
            _ => None,
        }
    }

    /// Takes the changed plan of the same container.
    pub(crate) fn replan(&mut self, plan: ContainerPlan, now: Duration) {
        if plan.image != self.plan.image {
            self.pull.reset();
            self.unreachable = None;
            // What is known of the old image is void. An answer still under way finds no question.
            if !self.is_live() && !matches!(self.state, State::Held { .. } | State::Finished) {
                self.state = State::Idle;
            }
        }
        if self.is_live() {
            self.probes.replan(&plan.probes, now);
        }
        self.plan = plan;
    }

    /// Does all that can be done without another observation.
    pub(crate) fn advance(&mut self, goal: Goal, cx: &mut Context<'_>) {
        let mut turn = true;
        match goal {
            Goal::Wait => {}
            Goal::Stop { deadline, turn: its } => {
                turn = its;
                self.stop(deadline, cx);
            }
            Goal::Run { sandbox } => {
                self.end_holds(cx);
                self.seek_image(cx);
                if self.state == State::HasImage && sandbox {
                    self.start(cx);
                }
                if self.is_running() && self.running_image != self.plan.image {
                    let name = &self.plan.name;
                    let why = format!("Container {name} definition changed, will be restarted");
                    self.begin_stop(cx.pod.grace, why, Again::Replaced, cx);
                }
            }
        }
        self.ask_probes(cx);
        self.go_on_stopping(turn, cx);
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
}
