//! The taints that follow from a node's conditions and from cordoning.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint as ApiTaint;
use kube::Api;
use serde_json::json;

use super::{COMPONENT, Readiness, readiness};
pub(super) use crate::autonomy::{NOT_READY, UNREACHABLE};
use crate::{
    autonomy::is_silence,
    context::Context,
    error::{SyncError, is_not_found},
    key::Key,
    kinds::node::{Node, Taint, WatchedNode},
    patch,
    recorder::Severity,
};

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
    if are_right(node) {
        return Ok(());
    }
    let present = node.taints();
    let wanted: Vec<ApiTaint> =
        with_managed(node, present, Timestamp::now()).iter().map(Into::into).collect();
    let api: Api<WatchedNode> = Api::all(context.client.clone());
    let taints = Some(wanted).filter(|wanted| !wanted.is_empty());
    let change = patch::on_top_of(node, json!({"spec": {"taints": taints}}));
    match patch::merge(&api, &key.name, &change).await {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(SyncError::api("taint", "Node", key)(error)),
    }
    let was_silent = present.iter().any(|taint| is_silence(&taint.key));
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
    let ready = node.condition("Ready");
    ready.is_some_and(|ready| ready.reason.as_deref() == Some("NodeStatusNeverUpdated"))
}

/// Whether the node has the taints that its conditions demand and no others of ours.
pub(super) fn are_right(node: &Node) -> bool {
    let demanded = demanded(node);
    let present = node.taints().iter().filter(|taint| is_ours(taint));
    let superfluous = |taint: &Taint| !demanded.contains(&(&*taint.key, &*taint.effect));
    !present.clone().any(superfluous)
        && demanded.iter().all(|(key, effect)| {
            present.clone().any(|taint| *taint.key == **key && *taint.effect == **effect)
        })
}

/// Whether a taint is one that follows from conditions.
fn is_ours(taint: &Taint) -> bool {
    let key = &*taint.key;
    let condition = is_silence(key);
    let state = key == UNSCHEDULABLE || PRESSURES.iter().any(|(_, known)| *known == key);
    (condition && &*taint.effect != "PreferNoSchedule") || (state && &*taint.effect == "NoSchedule")
}

/// The taints that the node shall have: those that are not ours, then ours, the known ones kept
/// with the time they were added, which evictions count from.
fn with_managed(node: &Node, present: &[Taint], now: Timestamp) -> Vec<Taint> {
    let demanded = demanded(node);
    let is_demanded = |taint: &Taint| demanded.contains(&(&*taint.key, &*taint.effect));
    let mut taints: Vec<_> =
        present.iter().filter(|taint| !is_ours(taint) || is_demanded(taint)).cloned().collect();
    for (key, effect) in demanded {
        if !taints.iter().any(|taint| *taint.key == *key && *taint.effect == *effect) {
            taints.push(Taint::new(key, effect, now));
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
    for (condition, key) in PRESSURES {
        if node.condition(condition).is_some_and(|known| &*known.status == "True") {
            demanded.push((key, "NoSchedule"));
        }
    }
    if node.is_unschedulable() {
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

    fn node(ready: &str, cordoned: bool, taints: &[Taint]) -> Node {
        let taints: Vec<ApiTaint> = taints.iter().map(Into::into).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"unschedulable": cordoned, "taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn after(ready: &str, cordoned: bool, taints: &[Taint], now: Timestamp) -> Vec<Taint> {
        let before = node(ready, cordoned, taints);
        let wanted = with_managed(&before, before.taints(), now);
        assert_eq!(are_right(&before), wanted == before.taints(), "{ready} {taints:?}");
        assert!(are_right(&node(ready, cordoned, &wanted)), "{ready} {taints:?}");
        wanted
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let own = Taint { added: None, ..Taint::new("mine", "NoExecute", Timestamp::MAX) };
        let (t0, t1) = (Timestamp::UNIX_EPOCH, "2026-01-01T00:00:00Z".parse().unwrap());
        let unreachable = after("Unknown", true, std::slice::from_ref(&own), t0);
        assert_eq!(
            keys(&unreachable),
            [
                "mine:NoExecute",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
                "node.kubernetes.io/unschedulable:NoSchedule"
            ]
        );
        assert_eq!(after("Unknown", true, &unreachable, t1), unreachable, "times stay");
        let not_ready = after("False", false, &unreachable, t1);
        assert_eq!(
            keys(&not_ready),
            [
                "mine:NoExecute",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute"
            ]
        );
        assert_eq!(after("True", false, &not_ready, t1), [own]);
    }
}
