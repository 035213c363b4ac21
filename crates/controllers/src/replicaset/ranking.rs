//! Which pods go first when there are too many: those that would be missed least.

use std::{cmp::Ordering, sync::Arc};

use jiff::Timestamp;

use crate::{
    kinds::pod::{DELETION_COST, Pod},
    pods::{created, is_ready, node_name, phase, ready_since, uid},
};

/// The first `count` of `pods` in the order of deletion; `siblings` tells how many related pods
/// are on a node.
pub(crate) fn to_delete(
    mut pods: Vec<Arc<Pod>>,
    count: usize,
    now: Timestamp,
    siblings: impl Fn(&str) -> usize,
) -> Vec<Arc<Pod>> {
    if count < pods.len() {
        pods.sort_by(|a, b| compare(a, b, now, &siblings));
        pods.truncate(count);
    }
    pods
}

/// `Less` goes first. The order is Kubernetes': without a node; by phase; not ready; cheap by the
/// deletion cost; on crowded nodes; ready for a short time; restarted often; young. Ages are
/// compared by magnitude, so that among pods of about the same age the choice is arbitrary.
fn compare(a: &Pod, b: &Pod, now: Timestamp, siblings: &impl Fn(&str) -> usize) -> Ordering {
    let assigned = |pod| node_name(pod).is_some();
    let crowd = |pod| node_name(pod).map_or(0, siblings);
    let both_ready = is_ready(a) && is_ready(b);
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| {
            if both_ready { by_age(ready_since(a), ready_since(b), now) } else { Ordering::Equal }
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| by_age(created(&a.metadata), created(&b.metadata), now))
        .then_with(|| uid(&a.metadata).cmp(uid(&b.metadata)))
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.metadata.annotation(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    pod.report().containers.iter().map(|container| container.restarts).max().unwrap_or(0)
}

/// Younger first, by powers of two; without a time is youngest.
fn by_age(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |time: Option<Timestamp>| -> i64 {
        let Some(time) = time else { return i64::MIN };
        let nanoseconds = now.duration_since(time).as_nanos();
        u128::try_from(nanoseconds).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from)
    };
    magnitude(a).cmp(&magnitude(b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::key::Key;

    fn pod(name: &str, extra: serde_json::Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [], "nodeName": "n1"},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}],
            },
        });
        merge(&mut pod, extra);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn merge(base: &mut serde_json::Value, extra: serde_json::Value) {
        match (base, extra) {
            (serde_json::Value::Object(base), serde_json::Value::Object(extra)) => {
                for (key, value) in extra {
                    merge(base.entry(key).or_insert(json!(null)), value);
                }
            }
            (base, extra) => *base = extra,
        }
    }

    #[test]
    fn each_rule_comes_before_the_next() {
        let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let restarted = json!({"status": {"containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 9}]}});
        let expected = [
            pod("unassigned", json!({"spec": {"nodeName": null}, "status": {"phase": "Pending"}})),
            pod("pending", json!({"status": {"phase": "Pending"}})),
            pod("unknown", json!({"status": {"phase": "Unknown"}})),
            pod("not-ready", not_ready),
            pod("cheap", json!({"metadata": {"annotations": {DELETION_COST: "-5"}}})),
            pod("crowded", json!({"spec": {"nodeName": "n2"}})),
            pod(
                "just-ready",
                json!({"status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T23:59:59Z"}]}}),
            ),
            pod("restarted", restarted),
            pod("young", json!({"metadata": {"creationTimestamp": "2026-01-01T23:59:00Z"}})),
            pod("a", json!({})),
            pod("b", json!({})),
            pod("dear", json!({"metadata": {"annotations": {DELETION_COST: "7"}}})),
        ];
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let mut shuffled = expected.to_vec();
        for seed in 0..50 {
            fastrand::seed(seed);
            fastrand::shuffle(&mut shuffled);
            let count = fastrand::usize(0..expected.len());
            let deleted = to_delete(shuffled.clone(), count, now, |node| usize::from(node == "n2"));
            let names = |pods: &[Arc<Pod>]| -> Vec<_> {
                pods.iter().map(|pod| Key::of(&pod.metadata)).collect()
            };
            assert_eq!(names(&deleted), names(&expected[..count]), "seed {seed}");
        }
    }
}
