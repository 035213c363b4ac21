//! One container's probes: when they are asked, and what follows from their answers.

use std::time::Duration;

use super::{Container, State, stop::Again};
use crate::{
    action::{Action, ProbeKind, ProbeOutcome},
    context::Context,
    probes::Verdict,
    restart::RestartPolicy,
};

impl Container {
    /// Asks the probes that are due.
    pub(super) fn ask_probes(&mut self, cx: &mut Context<'_>) {
        if !self.is_up() {
            return;
        }
        let ending = !self.is_running();
        for kind in self.probes.ask(cx.now.elapsed, ending) {
            let container = self.plan.name.clone();
            cx.act(Action::Probe { container, attempt: self.attempt, kind });
        }
    }

    pub(super) fn probes_wake(&self, ending: bool) -> Option<Duration> {
        if self.is_up() { self.probes.wake(ending) } else { None }
    }

    pub(super) fn on_probed(
        &mut self,
        kind: ProbeKind,
        outcome: ProbeOutcome,
        cx: &mut Context<'_>,
    ) {
        let title = kind.title();
        let success = matches!(outcome, ProbeOutcome::Success | ProbeOutcome::Warning(_));
        let told = match outcome {
            ProbeOutcome::Success => None,
            ProbeOutcome::Warning(text) => {
                Some(("ProbeWarning", format!("{title} probe warning: {text}")))
            }
            ProbeOutcome::Failure(text) => {
                Some(("Unhealthy", format!("{title} probe failed: {text}")))
            }
            ProbeOutcome::Error(text) => Some((
                "Unhealthy",
                format!("{title} probe errored and resulted in unknown state: {text}"),
            )),
        };
        if let Some((reason, text)) = told
            && self.probes.is_news(kind, &text, cx.now.elapsed)
        {
            cx.events.warning(&self.plan, reason, text);
        }
        let verdict = self.probes.take(kind, success);
        let (Verdict::Fails(probe), State::Running { .. }) = (verdict, self.state) else { return };
        if kind == ProbeKind::Readiness {
            return;
        }
        let mut why = format!("Container {} failed {} probe", self.plan.name, title.to_lowercase());
        if self.plan.restarts.policy != RestartPolicy::Never {
            why.push_str(", will be restarted");
        }
        self.begin_stop(probe.grace.unwrap_or(cx.pod.grace), why, Again::Unhealthy, cx);
    }
}
