//! Node lifecycle: what follows from a node's conditions. Somebody else writes them; here nodes
//! are tainted, the pods of a silent node marked not ready, and pods evicted when their time is up.
//! An autonomous node's are believed to serve until its time is over.

mod evict;
mod pace;
mod pools;
mod taints;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use serde_json::json;

use crate::{
    autonomy::{Autonomy, Left, silent_since},
    context::Context,
    error::{SyncError, is_not_found},
    informer::{Change, Index},
    key::Key,
    kinds::{
        node::Node,
        pod::{Pod, WatchedPod},
    },
    patch,
    pods::{condition, is_finished, is_ready, node_name},
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};
use evict::Evictor;

const COMPONENT: &str = "node-controller";
/// Nodes that are seen to at once: a region's return is a write for each, and writes that are under way together
/// share a sync of the disk.
const AT_ONCE: usize = 64;
/// The label that names a node's pool: nodes of a pool share a place and so a fate.
use toono_openyurt::keys::NODE_POOL as POOL_LABEL;
/// The reason on pods whose node is not ready.
const NODE_NOT_READY: &str = "NodeNotReady";

/// A node's readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    NotReady,
    Unreachable,
    /// No condition yet: the node has never reported.
    Unreported,
}

fn readiness(node: &Node) -> Readiness {
    match node.condition("Ready").map(|ready| &*ready.status) {
        Some("True") => Readiness::Ready,
        Some("Unknown") => Readiness::Unreachable,
        Some(_) => Readiness::NotReady,
        None => Readiness::Unreported,
    }
}

fn pool(node: &Node) -> &str {
    node.pool()
}

/// The node lifecycle controller.
pub(crate) struct Controller {
    nodes: Arc<WorkQueue<Key>>,
    evictor: Arc<Evictor>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let nodes = Arc::new(WorkQueue::new());
        let evictor = Arc::new(Evictor::new(context));
        context.nodes.on_change({
            let nodes = Arc::clone(&nodes);
            move |change| {
                if let Some(node) = &change.new
                    && matters(change.old.as_deref(), node)
                {
                    nodes.add(Key::of(&node.metadata));
                }
            }
        });
        context.pods.on_change({
            let nodes = Arc::clone(&nodes);
            move |change| {
                if let Some(node) = node_of_marked(change) {
                    nodes.add(Key::new("", node));
                }
            }
        });
        Self { nodes, evictor }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.nodes.wait_synced().await;
        context.pods.wait_synced().await;
        let shared = &context;
        let sync = |key: Key| async move { sync(shared, &key).await };
        futures::join!(
            worker::run(COMPONENT, AT_ONCE, self.nodes, sync),
            self.evictor.run(&context)
        );
    }
}

/// Whether there may be something to do for a node: most of what nodes report changes nothing here.
/// One that is ready when it is first seen has at most pods to take the mark from, and those are
/// told of themselves.
fn matters(old: Option<&Node>, new: &Node) -> bool {
    let now = readiness(new);
    let known = old.map_or(Readiness::Ready, readiness);
    let is_other = |old: &Node| old.autonomy() != new.autonomy();
    known != now
        || !taints::are_right(new)
        || (now != Readiness::Ready && old.is_some_and(is_other))
}

/// The node of a pod that is now seen to be marked: it may have returned before, or while nobody
/// watched.
fn node_of_marked(change: &Change<Pod>) -> Option<&str> {
    let pod = change.new.as_deref().filter(|pod| is_marked(pod))?;
    let known = change.old.as_deref().is_some_and(is_marked);
    node_name(pod).filter(|_| !known)
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(node) = context.nodes.get(key) else { return Ok(None) };
    taints::sync(context, &node, key).await?;
    match readiness(&node) {
        Readiness::Ready => mark_ready_again(context, key).await?,
        Readiness::NotReady | Readiness::Unreachable => {
            let now = jiff::Timestamp::now();
            // The taint that was just written is not in the cache yet.
            let since = silent_since(&node).unwrap_or(now);
            match Autonomy::of(&node).left(since, now) {
                Left::Nothing => mark_not_ready(context, key).await?,
                Left::This(left) => {
                    mark_ready_again(context, key).await?;
                    return Ok(Some(left));
                }
                Left::Everything => mark_ready_again(context, key).await?,
            }
        }
        Readiness::Unreported => {}
    }
    Ok(None)
}

/// A silent node's pods are not known to serve anybody, so endpoints must leave them out.
async fn mark_not_ready(context: &Context, node: &Key) -> Result<(), SyncError> {
    for pod in context.pods.by(Index::Node, &node.name) {
        if is_ready(&pod) && !is_finished(&pod) {
            context.recorder.record(
                COMPONENT,
                &*pod,
                Severity::Warning,
                NODE_NOT_READY,
                "Node is not ready".to_owned(),
            );
            set_ready(context, &pod, false).await?;
        }
    }
    Ok(())
}

/// Takes the mark back where the containers were last reported ready; what changed meanwhile the
/// node reports itself.
async fn mark_ready_again(context: &Context, node: &Key) -> Result<(), SyncError> {
    for pod in context.pods.by(Index::Node, &node.name) {
        let containers = &pod.report().containers;
        let serving = !containers.is_empty() && containers.iter().all(|container| container.ready);
        if is_marked(&pod) && serving && !is_finished(&pod) {
            set_ready(context, &pod, true).await?;
        }
    }
    Ok(())
}

/// Whether it was marked because of its node.
fn is_marked(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.reason.as_deref() == Some(NODE_NOT_READY))
}

async fn set_ready(context: &Context, pod: &Pod, ready: bool) -> Result<(), SyncError> {
    let key = Key::of(&pod.metadata);
    let change = json!({"status": {"conditions": [{
        "type": "Ready",
        "status": if ready { "True" } else { "False" },
        "reason": (!ready).then_some(NODE_NOT_READY),
        "message": null,
        "lastTransitionTime": Time(jiff::Timestamp::now()),
    }]}});
    let change = patch::on_top_of(pod, change);
    let api: Api<WatchedPod> = context.api(&key.namespace);
    match patch::merge_status_lists(&api, &key.name, &change).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(SyncError::api("update the status of", "Pod", &key)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::node::AUTONOMY;

    fn node(ready: Option<&str>, taint: Option<&str>, version: u32) -> Node {
        let conditions = ready.map(|ready| json!([{"type": "Ready", "status": ready}]));
        let taints = taint.map(|key| json!([{"key": key, "effect": "NoSchedule"}]));
        serde_json::from_value(json!({
            "metadata": {"name": "n", "resourceVersion": version.to_string()},
            "spec": {"taints": taints}, "status": {"conditions": conditions}}))
        .unwrap()
    }

    #[test]
    fn only_changes_with_something_to_do_are_looked_at() {
        let ready = |version| node(Some("True"), None, version);
        let unreported = |version| node(None, Some(taints::NOT_READY), version);
        let silent = |autonomy: Option<&str>| -> Node {
            let taint = |effect| json!({"key": taints::UNREACHABLE, "effect": effect});
            let annotations = autonomy.map(|text| json!({AUTONOMY: text}));
            let node = json!({"metadata": {"name": "n", "annotations": annotations},
                "spec": {"taints": [taint("NoSchedule"), taint("NoExecute")]},
                "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
            serde_json::from_value(node).unwrap()
        };
        for (old, new, expected) in [
            (None, ready(1), false),
            (None, node(Some("True"), Some(taints::NOT_READY), 1), true),
            (None, node(Some("Unknown"), None, 1), true),
            (Some(silent(None)), silent(None), false),
            (Some(silent(Some("1h"))), silent(Some("1h")), false),
            (Some(silent(Some("1h"))), silent(None), true),
            (Some(silent(None)), silent(Some("1h")), true),
            (Some(ready(1)), ready(2), false),
            (Some(ready(1)), node(Some("True"), Some("mine"), 2), false),
            (Some(ready(1)), node(Some("Unknown"), None, 2), true),
            (Some(unreported(1)), unreported(2), false),
            (Some(unreported(1)), node(Some("True"), Some(taints::NOT_READY), 2), true),
        ] {
            assert_eq!(matters(old.as_ref(), &new), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn a_pod_that_becomes_marked_brings_its_node() {
        let pod = |reason: Option<&str>| -> Option<Arc<Pod>> {
            let conditions = json!([{"type": "Ready", "status": "False", "reason": reason}]);
            let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"},
                "status": {"conditions": conditions}});
            Some(Arc::new(serde_json::from_value(pod).unwrap()))
        };
        let marked = Some(NODE_NOT_READY);
        for (old, new, expected) in [
            (None, pod(marked), Some("n")),
            (pod(None), pod(marked), Some("n")),
            (pod(marked), pod(marked), None),
            (pod(marked), pod(None), None),
            (pod(marked), None, None),
        ] {
            let change = Change { known: old.clone(), old, new };
            assert_eq!(node_of_marked(&change), expected);
        }
    }
}
