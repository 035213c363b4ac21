//! The probes of one run of a container: when each is due, and what its results amount to.
//!
//! It does not know what a probe asks, nor what follows from its verdict.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe as ProbeSpec};

use crate::action::ProbeKind;

/// The API's defaults, for objects that did not pass its defaulting.
const DEFAULT_PERIOD: i32 = 10;
const DEFAULT_FAILURES: i32 = 3;
/// After its first run a probe is due at whole ticks of the node's clock, so that the probes of all pods
/// wake the node together. No period is shorter.
const TICK: Duration = Duration::from_secs(1);
/// A failure that reads like the one before is told again after this. The kubelet's recorder gives a
/// noisy object one event in five minutes.
const TOLD_AGAIN: Duration = Duration::from_secs(300);

/// What the pod says of one probe, without what it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbePlan {
    pub(crate) kind: ProbeKind,
    initial_delay: Duration,
    period: Duration,
    successes: u32,
    failures: u32,
    /// The grace period of a container that this probe ends, instead of the pod's.
    pub(crate) grace: Option<Duration>,
}

/// The probes of a container, as the pod has them now.
pub(crate) fn plans(container: &Container) -> Vec<ProbePlan> {
    [
        (ProbeKind::Startup, &container.startup_probe),
        (ProbeKind::Liveness, &container.liveness_probe),
        (ProbeKind::Readiness, &container.readiness_probe),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| Some(ProbePlan::read(kind, probe.as_ref()?)))
    .collect()
}

impl ProbePlan {
    fn read(kind: ProbeKind, probe: &ProbeSpec) -> Self {
        let seconds = |value: i32| Duration::from_secs(u64::try_from(value).unwrap_or(0));
        let count = |value: Option<i32>, default| {
            u32::try_from(value.unwrap_or(default)).unwrap_or(1).max(1)
        };
        let grace = probe.termination_grace_period_seconds;
        Self {
            kind,
            initial_delay: seconds(probe.initial_delay_seconds.unwrap_or(0)),
            period: seconds(probe.period_seconds.unwrap_or(DEFAULT_PERIOD)).max(TICK),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, DEFAULT_FAILURES),
            grace: grace.and_then(|it| u64::try_from(it).ok()).map(Duration::from_secs),
        }
    }
}

/// The probes of the run that is on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probes(Vec<Probe>);

#[derive(Debug, Clone)]
struct Probe {
    plan: ProbePlan,
    /// What its results amount to; none before enough of them.
    passes: Option<bool>,
    /// The newest result, and how often it came in a row.
    last: bool,
    row: u32,
    due: Duration,
    /// It is under way.
    asked: bool,
    told: Option<(String, Duration)>,
}

/// What a result changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Same,
    /// The probe passes now.
    Passes,
    /// The probe has failed as often as it may.
    Fails(ProbePlan),
}

impl Probes {
    /// For a run that began now.
    pub(crate) fn begin(plans: &[ProbePlan], now: Duration) -> Self {
        Self(plans.iter().map(|plan| Probe::new(*plan, now + plan.initial_delay)).collect())
    }

    /// For a run that an earlier agent watched, with what it had found. All containers of a node are
    /// taken up at once, so the first probes are spread over their periods by `seed`.
    pub(crate) fn resume(
        plans: &[ProbePlan],
        (since, now): (Duration, Duration),
        (started, ready): (bool, bool),
        seed: u64,
    ) -> Self {
        let resume = |(index, plan): (usize, &ProbePlan)| {
            let shift = seed.rotate_left(u32::try_from(index).unwrap_or(0) * 16);
            let millis = u64::try_from(plan.period.as_millis()).unwrap_or(1).max(1);
            let spread = Duration::from_millis(shift % millis);
            let mut probe = Probe::new(*plan, (since + plan.initial_delay).max(now + spread));
            probe.passes = match plan.kind {
                ProbeKind::Startup if started => Some(true),
                ProbeKind::Readiness if ready => Some(true),
                _ => None,
            };
            probe
        };
        Self(plans.iter().enumerate().map(resume).collect())
    }

    /// Takes changed plans of the same run; what is known stays.
    pub(crate) fn replan(&mut self, plans: &[ProbePlan], now: Duration) {
        let keep = |plan: &ProbePlan| {
            let mut probe = self
                .0
                .iter()
                .find(|it| it.plan.kind == plan.kind)
                .cloned()
                .unwrap_or_else(|| Probe::new(*plan, now + plan.initial_delay));
            probe.plan = *plan;
            probe
        };
        self.0 = plans.iter().map(keep).collect();
    }

    /// Whether the startup probe has succeeded, if there is one.
    pub(crate) fn started(&self) -> bool {
        self.get(ProbeKind::Startup).is_none_or(|it| it.passes == Some(true))
    }

    /// Whether the readiness probe succeeds, if there is one.
    pub(crate) fn ready(&self) -> bool {
        self.started() && self.get(ProbeKind::Readiness).is_none_or(|it| it.passes == Some(true))
    }

    /// The probes that are to be run now; each is asked until its result is [`Self::take`]n.
    /// A container that is being ended is still asked whether it is ready, and nothing else.
    pub(crate) fn ask(&mut self, now: Duration, ending: bool) -> Vec<ProbeKind> {
        let started = self.started();
        let due = |it: &&mut Probe| it.is_active(started, ending) && !it.asked && now >= it.due;
        let ask = |probe: &mut Probe| {
            probe.asked = true;
            probe.due = on_tick(now + probe.plan.period);
            probe.plan.kind
        };
        self.0.iter_mut().filter(due).map(ask).collect()
    }

    /// When [`Self::ask`] has something to ask.
    pub(crate) fn wake(&self, ending: bool) -> Option<Duration> {
        let started = self.started();
        let waits = |it: &&Probe| it.is_active(started, ending) && !it.asked;
        self.0.iter().filter(waits).map(|it| it.due).min()
    }

    /// Takes a result.
    pub(crate) fn take(&mut self, kind: ProbeKind, success: bool) -> Verdict {
        let Some(probe) = self.0.iter_mut().find(|it| it.plan.kind == kind && it.asked) else {
            return Verdict::Same;
        };
        probe.asked = false;
        probe.row = if probe.last == success { probe.row.saturating_add(1) } else { 1 };
        probe.last = success;
        let enough = if success { probe.plan.successes } else { probe.plan.failures };
        if probe.row < enough || probe.passes == Some(success) {
            return Verdict::Same;
        }
        probe.passes = Some(success);
        if success { Verdict::Passes } else { Verdict::Fails(probe.plan) }
    }

    /// Whether a failure is worth an event.
    pub(crate) fn is_news(&mut self, kind: ProbeKind, text: &str, now: Duration) -> bool {
        let Some(probe) = self.0.iter_mut().find(|it| it.plan.kind == kind) else { return false };
        let same =
            probe.told.as_ref().is_some_and(|(told, at)| told == text && now < *at + TOLD_AGAIN);
        if !same {
            probe.told = Some((text.to_owned(), now));
        }
        !same
    }

    fn get(&self, kind: ProbeKind) -> Option<&Probe> {
        self.0.iter().find(|it| it.plan.kind == kind)
    }
}

impl Probe {
    fn new(plan: ProbePlan, due: Duration) -> Self {
        Self { plan, passes: None, last: false, row: 0, due, asked: false, told: None }
    }

    fn is_active(&self, started: bool, ending: bool) -> bool {
        match self.plan.kind {
            ProbeKind::Startup => !started && !ending,
            ProbeKind::Liveness => started && !ending,
            ProbeKind::Readiness => started,
        }
    }
}

/// The whole second that is nearest.
fn on_tick(at: Duration) -> Duration {
    Duration::from_secs((at + TICK / 2).as_secs())
}
