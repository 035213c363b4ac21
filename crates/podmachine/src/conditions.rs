//! The pod's conditions, each with the time of its last change.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::PodCondition, apimachinery::pkg::apis::meta::v1::Time};

/// What a condition says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) kind: &'static str,
    pub(crate) holds: bool,
    /// Reason and message, where the plain truth does not do.
    pub(crate) why: Option<(&'static str, String)>,
}

/// Remembers since when each condition is as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions(Vec<Settled>);

#[derive(Debug, Clone)]
struct Settled {
    verdict: Verdict,
    since: Timestamp,
}

impl Conditions {
    /// Takes over the transition times of an earlier status of the same pod.
    pub(crate) fn recover(earlier: &[PodCondition], kinds: &[&'static str]) -> Self {
        let settled = kinds.iter().filter_map(|kind| {
            let found = earlier.iter().find(|condition| condition.type_ == *kind)?;
            let since = found.last_transition_time.as_ref()?.0;
            let verdict = Verdict { kind, holds: found.status == "True", why: None };
            Some(Settled { verdict, since })
        });
        Self(settled.collect())
    }

    /// Knows no more than when the scheduler bound the pod.
    pub(crate) fn scheduled(at: Timestamp) -> Self {
        let verdict = Verdict { kind: "PodScheduled", holds: true, why: None };
        Self(vec![Settled { verdict, since: at }])
    }

    /// Sets what holds now; the order of `verdicts` is the order shown.
    pub(crate) fn settle(&mut self, verdicts: Vec<Verdict>, now: Timestamp) {
        let settled = verdicts.into_iter().map(|verdict| {
            let same = self
                .0
                .iter()
                .find(|old| old.verdict.kind == verdict.kind && old.verdict.holds == verdict.holds);
            Settled { since: same.map_or(now, |old| old.since), verdict }
        });
        self.0 = settled.collect();
    }

    pub(crate) fn render(&self, generation: Option<i64>) -> Vec<PodCondition> {
        let render = |Settled { verdict, since }: &Settled| PodCondition {
            type_: verdict.kind.to_owned(),
            status: if verdict.holds { "True" } else { "False" }.to_owned(),
            reason: verdict.why.as_ref().map(|(reason, _)| (*reason).to_owned()),
            message: verdict
                .why
                .as_ref()
                .map(|(_, message)| message.clone())
                .filter(|it| !it.is_empty()),
            last_transition_time: Some(Time(whole_seconds(*since))),
            last_probe_time: None,
            observed_generation: generation,
        };
        self.0.iter().map(render).collect()
    }
}

/// Kubernetes' times have no fraction.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
