//! The pod's sandbox: its namespaces and address, made before the first container, ended after the last.

use std::{net::IpAddr, time::Duration};

use crate::{action::Action, backoff::BackOff, context::Context};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There is none.
    Absent,
    Creating,
    /// Creation failed; the next try is due at `until`.
    Held {
        until: Duration,
    },
    Ready {
        ip: Option<IpAddr>,
    },
    TearingDown,
}

#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) state: State,
    back_off: BackOff,
}

impl Sandbox {
    pub(crate) fn new(state: State) -> Self {
        Self { state, back_off: BackOff::for_sandboxes() }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.state, State::Absent | State::Held { .. })
    }

    pub(crate) fn wake(&self) -> Option<Duration> {
        match self.state {
            State::Held { until } => Some(until),
            _ => None,
        }
    }

    /// Asks for one, unless there is one or one is on its way.
    pub(crate) fn want(&mut self, cx: &mut Context<'_>) {
        let due = match self.state {
            State::Absent => true,
            State::Held { until } => cx.now.elapsed >= until,
            _ => false,
        };
        if due {
            self.state = State::Creating;
            cx.act(Action::CreateSandbox);
        }
    }

    /// Asks for its end. One that is being made is waited for first.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>) {
        match self.state {
            State::Ready { .. } => {
                self.state = State::TearingDown;
                cx.act(Action::TearDownSandbox);
            }
            State::Held { .. } => self.state = State::Absent,
            State::Absent | State::Creating | State::TearingDown => {}
        }
    }

    pub(crate) fn on_ready(&mut self, ip: Option<IpAddr>) {
        if self.state == State::Creating {
            self.state = State::Ready { ip };
            self.back_off.reset();
        }
    }

    pub(crate) fn on_failed(&mut self, message: &str, cx: &mut Context<'_>) {
        if self.state == State::Creating {
            self.state = State::Held { until: cx.now.elapsed + self.back_off.after_failure() };
            cx.events.pod_warning(
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {message}"),
            );
        }
    }

    /// Volumes could not be filled: there is no sandbox without them.
    pub(crate) fn on_unfilled(&mut self, failures: Vec<String>, cx: &mut Context<'_>) {
        if self.state == State::Creating {
            self.state = State::Held { until: cx.now.elapsed + self.back_off.after_failure() };
        }
        for failure in failures {
            cx.events.pod_warning("FailedMount", failure);
        }
    }

    /// What it failed for may be there now.
    pub(crate) fn try_again(&mut self, cx: &Context<'_>) {
        if let State::Held { until } = &mut self.state {
            *until = cx.now.elapsed;
        }
    }

    /// It ended by itself; what is left of it is cleared before the next. True if that is news.
    pub(crate) fn on_lost(&mut self, cx: &mut Context<'_>) -> bool {
        let news = self.is_ready();
        if news {
            self.state = State::TearingDown;
            cx.act(Action::TearDownSandbox);
        }
        news
    }

    pub(crate) fn on_gone(&mut self) {
        if self.state == State::TearingDown {
            self.state = State::Absent;
        }
    }
}
