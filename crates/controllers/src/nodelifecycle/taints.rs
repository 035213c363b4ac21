//! The taints that follow from a node's conditions and from cordoning.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::Api;
use serde_json::json;

use super::{COMPONENT, Readiness, readiness};
use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    key::Key,
    patch,
    recorder::Severity,
};

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Brings the node's taints to what its conditions demand; all other taints stay.
pub(super) async fn sync(context: &Context, node: &Node, key: &Key) -> Result<(), SyncError> {
    let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let wanted = with_managed(node, &present, Timestamp::now());
    if wanted == present {
        return Ok(());
    }
    let api: Api<Node> = Api::all(context.client.clone());
    let taints = Some(wanted).filter(|wanted| !wanted.is_empty());
    let change = patch::on_top_of(node, json!({"spec": {"taints": taints}}));
    match patch::merge(&api, &key.name, &change).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(SyncError::api("taint", "Node", key)(error)),
    }
    let was_silent = present.iter().any(|taint| taint.key == NOT_READY || taint.key == UNREACHABLE);
    match (readiness(node), was_silent) {
        // One that was never heard did not become silent.
        (Readiness::NotReady | Readiness::Unreachable, false) if !never_heard(node) => {
            let message = format!("Node {} status is now: NodeNotReady", key.name);
            context.recorder.record(COMPONENT, node, Severity::Normal, "NodeNotReady", message);
        }
        (Readiness::Ready, true) => {
            let message = format!("Node {} status is now: NodeReady", key.name);
            context.recorder.record(COMPONENT, node, Severity::Normal, "NodeReady", message);
        }
        _ => {}
    }
    Ok(())
}

/// Whether the node joined and was not heard yet.
fn never_heard(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|known| {
        known.type_ == "Ready" && known.reason.as_deref() == Some("NodeStatusNeverUpdated")
    })
}

/// The taints that the node shall have: those that are not ours, then ours, the known ones kept
/// with the time they were added, which evictions count from.
fn with_managed(node: &Node, present: &[Taint], now: Timestamp) -> Vec<Taint> {
    let demanded = demanded(node);
    let ours = |taint: &Taint| {
        let condition = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
        let state =
            taint.key == UNSCHEDULABLE || PRESSURES.iter().any(|(_, key)| *key == taint.key);
        (condition && taint.effect != "PreferNoSchedule") || (state && taint.effect == "NoSchedule")
    };
    let is_demanded =
        |taint: &Taint| demanded.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<_> =
        present.iter().filter(|taint| !ours(taint) || is_demanded(taint)).cloned().collect();
    for (key, effect) in demanded {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    taints
}

fn demanded(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut demanded = Vec::new();
    match readiness(node) {
        Readiness::Ready => {}
        // Nothing runs there yet that could be evicted.
        Readiness::Unreported => demanded.push((NOT_READY, "NoSchedule")),
        Readiness::NotReady => {
            demanded.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")])
        }
        Readiness::Unreachable => {
            demanded.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")])
        }
    }
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    for (condition, key) in PRESSURES {
        let holds = conditions
            .into_iter()
            .flatten()
            .any(|known| known.type_ == condition && known.status == "True");
        if holds {
            demanded.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        demanded.push((UNSCHEDULABLE, "NoSchedule"));
    }
    demanded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(taints: &[Taint]) -> Vec<String> {
        taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    fn node(ready: &str, cordoned: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"unschedulable": cordoned},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let own = Taint { key: "mine".into(), effect: "NoExecute".into(), ..Taint::default() };
        let (t0, t1) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let unreachable = with_managed(&node("Unknown", true), std::slice::from_ref(&own), t0);
        assert_eq!(
            keys(&unreachable),
            [
                "mine:NoExecute",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
                "node.kubernetes.io/unschedulable:NoSchedule"
            ]
        );
        assert_eq!(
            with_managed(&node("Unknown", true), &unreachable, t1),
            unreachable,
            "times stay"
        );
        let not_ready = with_managed(&node("False", false), &unreachable, t1);
        assert_eq!(
            keys(&not_ready),
            [
                "mine:NoExecute",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute"
            ]
        );
        assert_eq!(with_managed(&node("True", false), &not_ready, t1), [own]);
    }
}
