//! Evicting pods from nodes with NoExecute taints, each when its tolerations run out.
//!
//! For taints that mean "this node is silent" two rules come on top: a node's autonomy duration
//! keeps its pods, and the pace of evictions depends on how much of its pool is silent with it. A
//! pool that is silent altogether is most likely a cut link, and then its pods run on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use toono_placement::{Effect, Taint, Toleration};

use super::{
    COMPONENT, POOL_LABEL,
    pace::{Pace, Pools},
    pool,
    pools::{Census, Censuses},
};
use crate::{
    autonomy::{Autonomy, is_silence},
    context::Context,
    error::{SyncError, is_conflict, is_not_found},
    informer::Index,
    key::Key,
    kinds::{
        node::Node,
        pod::{Pod, WatchedPod},
    },
    object::Metadata,
    pods::{is_finished, uid},
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};

/// How soon a held back eviction is considered again: pools change slowly.
const RECHECK_HELD: Duration = Duration::from_secs(10);

/// Evicts the pods of tainted nodes; its queue holds nodes.
pub(super) struct Evictor {
    queue: Arc<WorkQueue<Key>>,
    pools: Mutex<Pools>,
    censuses: Arc<Censuses>,
}

impl Evictor {
    pub(super) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        let censuses = Arc::new(Censuses::default());
        context.nodes.on_change({
            let (queue, censuses) = (Arc::clone(&queue), Arc::clone(&censuses));
            move |change| {
                censuses.observe(change);
                if let Some(node) = change.new.as_ref().filter(|node| has_no_execute(node))
                    && change.old.as_ref().is_none_or(|old| !evicts_as(node, old))
                {
                    queue.add(Key::of(&node.metadata));
                }
            }
        });
        context.pods.on_change({
            let queue = Arc::clone(&queue);
            let nodes = context.nodes.reader();
            move |change| {
                let Some(name) = change.new.as_ref().and_then(|pod| crate::pods::node_name(pod))
                else {
                    return;
                };
                let key = Key::new("", name);
                if nodes.get(&key).is_some_and(|node| has_no_execute(&node)) {
                    queue.add(key);
                }
            }
        });
        let pools = Mutex::new(Pools::new(context.config.eviction.clone()));
        Self { queue, pools, censuses }
    }

    pub(super) async fn run(&self, context: &Context) {
        let sync = |key: Key| async move { self.sync(context, &key).await };
        worker::run(COMPONENT, context.config.concurrent_syncs, Arc::clone(&self.queue), sync)
            .await;
    }

    async fn sync(&self, context: &Context, key: &Key) -> Result<Again, SyncError> {
        let Some(node) = context.nodes.get(key) else { return Ok(None) };
        let now = Timestamp::now();
        let mut again: Again = None;
        let mut due = Vec::new();
        for pod in context.pods.by(Index::Node, &key.name) {
            if is_finished(&pod) || pod.metadata.is_leaving() {
                continue;
            }
            match verdict(&node, &pod, now) {
                Verdict::Stays => {}
                Verdict::Waits(left) => again = Some(again.map_or(left, |known| known.min(left))),
                Verdict::Due { silent } => due.push((pod, silent)),
            }
        }
        let held = due.iter().any(|(_, silent)| *silent) && !self.may_evict(&node);
        for (pod, silent) in due {
            if !(silent && held) {
                evict(context, &pod).await?;
            }
        }
        if held {
            again = Some(again.map_or(RECHECK_HELD, |known| known.min(RECHECK_HELD)));
        }
        Ok(again)
    }

    fn may_evict(&self, node: &Node) -> bool {
        let pool_name = pool(node);
        let Census { total, silent } = self.censuses.of(pool_name);
        let name = node.metadata.name();
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = pools.admit(pool_name, name, total, silent, tokio::time::Instant::now());
        tracing::debug!(
            node = name,
            label = POOL_LABEL,
            pool = pool_name,
            ?pace,
            "eviction considered"
        );
        pace == Pace::Now
    }
}

fn has_no_execute(node: &Node) -> bool {
    node.taints().iter().any(|taint| &*taint.effect == "NoExecute")
}

/// Whether the pods of a node have to go just when they would with `other` in its place.
fn evicts_as(node: &Node, other: &Node) -> bool {
    node.taints() == other.taints()
        && node.autonomy() == other.autonomy()
        && pool(node) == pool(other)
}

/// What a node's taints mean for one of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    Waits(Duration),
    /// `silent`: only because the node is silent.
    Due {
        silent: bool,
    },
}

fn verdict(node: &Node, pod: &Pod, now: Timestamp) -> Verdict {
    let tolerations = &pod.template().placement.tolerations;
    let mut outcome = Verdict::Stays;
    for taint in node.taints().iter().filter(|taint| &*taint.effect == "NoExecute") {
        let parsed = Taint {
            key: (*taint.key).into(),
            value: taint.value.as_deref().unwrap_or_default().into(),
            effect: Effect::NoExecute,
        };
        let added = taint.added.unwrap_or(now);
        let silent = is_silence(&taint.key);
        let autonomy = if silent { Autonomy::of(node) } else { Autonomy::None };
        outcome = stricter(outcome, for_taint(&parsed, tolerations, added, autonomy, silent, now));
    }
    outcome
}

fn stricter(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Due { silent: a }, Verdict::Due { silent: b }) => Verdict::Due { silent: a && b },
        (due @ Verdict::Due { .. }, _) | (_, due @ Verdict::Due { .. }) => due,
        (Verdict::Waits(a), Verdict::Waits(b)) => Verdict::Waits(a.min(b)),
        (waits @ Verdict::Waits(_), _) | (_, waits @ Verdict::Waits(_)) => waits,
        _ => Verdict::Stays,
    }
}

fn for_taint(
    taint: &Taint,
    tolerations: &[Toleration],
    added: Timestamp,
    autonomy: Autonomy,
    silent: bool,
    now: Timestamp,
) -> Verdict {
    let matching: Vec<_> = tolerations.iter().filter(|one| one.tolerates(taint)).collect();
    // The shortest of the matching tolerations counts; one without a time counts as for ever.
    let shortest = matching.iter().filter_map(|one| one.seconds).min();
    let tolerated = match (matching.is_empty(), shortest) {
        (false, None) => return Verdict::Stays,
        (false, Some(seconds)) => SignedDuration::from_secs(seconds.max(0)),
        (true, _) => SignedDuration::ZERO,
    };
    let kept = match autonomy {
        Autonomy::ForEver => return Verdict::Stays,
        Autonomy::For(duration) => duration.max(tolerated),
        Autonomy::None => tolerated,
    };
    let left = kept - now.duration_since(added);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Verdict::Waits(left),
        _ => Verdict::Due { silent },
    }
}

async fn evict(context: &Context, pod: &Pod) -> Result<(), SyncError> {
    let key = Key::of(&pod.metadata);
    let message = format!("Marking for deletion Pod {key}");
    context.recorder.record(
        "taint-eviction-controller",
        pod,
        Severity::Normal,
        "TaintManagerEviction",
        message,
    );
    let api: Api<WatchedPod> = context.api(&key.namespace);
    let only_this =
        Preconditions { uid: Some(uid(&pod.metadata).to_owned()), resource_version: None };
    match api.delete(&key.name, &DeleteParams::default().preconditions(only_this)).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(SyncError::api("evict", "Pod", &key)(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{autonomy::UNREACHABLE, kinds::node::AUTONOMY};

    fn node(taint: &str, autonomy: Option<&str>) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "annotations": autonomy.map(|text| json!({AUTONOMY: text}))},
            "spec": {"taints": [{"key": taint, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap()
    }

    fn pod(seconds: Option<i64>) -> Pod {
        let toleration = json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds});
        serde_json::from_value(json!({"metadata": {"name": "p"},
            "spec": {"containers": [], "tolerations": [toleration]}}))
        .unwrap()
    }

    #[test]
    fn pods_go_when_their_time_is_up_and_autonomy_keeps_them() {
        let waits = |seconds| Verdict::Waits(Duration::from_secs(seconds));
        let due = Verdict::Due { silent: true };
        for (taint, autonomy, tolerated, at, expected) in [
            (UNREACHABLE, None, Some(300), "00:01:00", waits(240)),
            (UNREACHABLE, None, Some(300), "00:05:00", due),
            (UNREACHABLE, None, None, "12:00:00", Verdict::Stays),
            (UNREACHABLE, Some("0"), Some(300), "12:00:00", Verdict::Stays),
            (UNREACHABLE, Some("0s"), Some(300), "12:00:00", Verdict::Stays),
            (UNREACHABLE, Some("nonsense"), Some(300), "12:00:00", Verdict::Stays),
            (UNREACHABLE, Some("1h30m"), Some(300), "01:00:00", waits(1800)),
            (UNREACHABLE, Some("1h30m"), Some(300), "01:30:00", due),
            (UNREACHABLE, Some("10s"), Some(300), "00:01:00", waits(240)),
            ("own", Some("0"), Some(300), "00:00:00", Verdict::Due { silent: false }),
        ] {
            let now = format!("2026-01-01T{at}Z").parse().unwrap();
            let seen = verdict(&node(taint, autonomy), &pod(tolerated), now);
            assert_eq!(seen, expected, "{taint} {autonomy:?} {tolerated:?} {at}");
        }
    }
}
