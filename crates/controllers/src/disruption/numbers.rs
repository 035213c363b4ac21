//! The arithmetic of a budget. Pure.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};

use super::kinds::{Budget, BudgetSpec, BudgetStatus};
use crate::{
    kinds::pod::Pod,
    object::Metadata,
    {kinds::Condition, pods::is_ready},
};

/// A pod whose eviction was allowed and that was not deleted for so long will not be.
const DELETION_TIMEOUT: Duration = Duration::from_secs(2 * 60);
const CONDITION: &str = "DisruptionAllowed";

/// How many pods there should be, and how many of them healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Expected {
    pub(super) pods: i32,
    pub(super) healthy: i32,
}

/// Whether the number of expected pods is that of their owners' replicas, not of the pods there are.
pub(super) fn counts_owners(spec: &BudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What a budget asks for when so many pods are expected.
pub(super) fn expected(spec: &BudgetSpec, pods: i32) -> Result<Expected, String> {
    if let Some(unavailable) = &spec.max_unavailable {
        let healthy = pods.saturating_sub(scaled(unavailable, pods)?).max(0);
        return Ok(Expected { pods, healthy });
    }
    match &spec.min_available {
        Some(available) => Ok(Expected { pods, healthy: scaled(available, pods)? }),
        None => Ok(Expected::default()),
    }
}

/// A number, or a percentage of a total, rounded up.
fn scaled(value: &IntOrString, total: i32) -> Result<i32, String> {
    let text = match value {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let wrong = || {
        format!("invalid value for IntOrString: invalid type: string is not a percentage: {text:?}")
    };
    let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
    let scaled = (percent * i64::from(total) + 99).div_euclid(100);
    i32::try_from(scaled).map_err(|_| wrong())
}

/// The pods whose eviction was allowed and that are still to be seen leaving, and when the first
/// of them is given up.
pub(super) fn disrupted(
    budget: &Budget,
    pods: &[impl AsRef<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut kept = BTreeMap::new();
    let mut first = None;
    for pod in pods.iter().map(AsRef::as_ref) {
        let name = pod.metadata.name();
        let Some(since) = budget.status.disrupted_pods.get(name) else { continue };
        let left = (since.0 + DELETION_TIMEOUT).duration_since(now);
        if pod.metadata.is_leaving() || left.is_negative() {
            continue;
        }
        kept.insert(name.to_owned(), since.clone());
        let left = Duration::try_from(left).unwrap_or_default();
        first = Some(first.map_or(left, |first: Duration| first.min(left)));
    }
    (kept, first)
}

/// How many pods are ready and stay.
pub(super) fn healthy(pods: &[impl AsRef<Pod>], disrupted: &BTreeMap<String, Time>) -> i32 {
    let healthy = pods.iter().map(AsRef::as_ref).filter(|pod| {
        let name = pod.metadata.name();
        !pod.metadata.is_leaving() && is_ready(pod) && !disrupted.contains_key(name)
    });
    i32::try_from(healthy.count()).unwrap_or(i32::MAX)
}

/// The status that follows.
pub(super) fn status(
    budget: &Budget,
    expected: Expected,
    healthy: i32,
    disrupted_pods: BTreeMap<String, Time>,
) -> BudgetStatus {
    // Nothing is allowed before there are pods: the first ones are not counted at once.
    let allowed =
        if expected.pods <= 0 { 0 } else { healthy.saturating_sub(expected.healthy).max(0) };
    let mut conditions = budget.status.conditions.clone();
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    let mut condition = Condition::new(CONDITION, allowed > 0, reason, String::new());
    condition.observed_generation = budget.metadata.generation;
    condition.set(&mut conditions);
    BudgetStatus {
        disruptions_allowed: allowed,
        current_healthy: healthy,
        desired_healthy: expected.healthy,
        expected_pods: expected.pods,
        observed_generation: budget.metadata.generation,
        disrupted_pods,
        conditions,
    }
}

/// The status when the numbers are not to be had: nothing is allowed.
pub(super) fn failed(budget: &Budget, why: String) -> BudgetStatus {
    let mut status = BudgetStatus { disruptions_allowed: 0, ..budget.status.clone() };
    let mut condition = Condition::new(CONDITION, false, "SyncFailed", why);
    condition.observed_generation = status.observed_generation;
    condition.set(&mut status.conditions);
    status
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> BudgetSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn numbers_and_shares() {
        let healthy = |value: Value, pods| expected(&spec(value), pods).map(|found| found.healthy);
        assert_eq!(healthy(json!({"minAvailable": 2}), 5), Ok(2));
        assert_eq!(healthy(json!({"minAvailable": "50%"}), 5), Ok(3));
        assert_eq!(healthy(json!({"maxUnavailable": 1}), 5), Ok(4));
        assert_eq!(healthy(json!({"maxUnavailable": "50%"}), 5), Ok(2));
        assert_eq!(healthy(json!({"maxUnavailable": 9}), 5), Ok(0));
        assert_eq!(healthy(json!({"maxUnavailable": "0%"}), 5), Ok(5));
        assert!(healthy(json!({"minAvailable": "half"}), 5).is_err());
        assert!(counts_owners(&spec(json!({"minAvailable": "50%"}))));
        assert!(!counts_owners(&spec(json!({"minAvailable": 1}))));
    }

    #[test]
    fn an_allowed_eviction_counts_until_it_is_seen_or_given_up() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let budget: Budget = serde_json::from_value(json!({
            "metadata": {"generation": 3}, "spec": {"minAvailable": 1},
            "status": {"disruptedPods": {"going": "2026-01-01T00:09:00Z",
                "stuck": "2026-01-01T00:07:00Z", "gone": "2026-01-01T00:09:59Z"}}}))
        .unwrap();
        let pod = |name: &str, ready: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
                .unwrap(),
            )
        };
        let pods =
            [pod("going", "True"), pod("stuck", "True"), pod("a", "True"), pod("b", "False")];
        let (kept, again) = disrupted(&budget, &pods, now);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["going"]);
        assert_eq!(again, Some(Duration::from_secs(60)));
        assert_eq!(healthy(&pods, &kept), 2);
        let found = status(&budget, expected(&budget.spec, 4).unwrap(), 2, kept);
        assert_eq!((found.disruptions_allowed, found.observed_generation), (1, Some(3)));
        assert_eq!(found.conditions[0].reason.as_deref(), Some("SufficientPods"));
        let failed = failed(&budget, "no scale".to_owned());
        assert_eq!(failed.conditions[0].reason.as_deref(), Some("SyncFailed"));
        assert_eq!(status(&budget, Expected::default(), 2, BTreeMap::new()).disruptions_allowed, 0);
    }
}
