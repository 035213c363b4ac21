//! Pods of autonomous nodes tolerate their node's silence as long as the node may keep them, also where somebody
//! else evicts. What their authors wrote is kept beside it and comes back when the node's autonomy ends.
//!
//! A toleration only ever becomes longer than its author wrote it. Daemons and mirrors of static pods stay anyway.
//! The node's condition `Autonomy` says what it is trusted with.

mod plan;
mod told;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use toono_placement::Effect;

use self::plan::{Silence, Tolerated};
use crate::{
    autonomy::Autonomy,
    context::Context,
    error::{SyncError, is_not_found},
    informer::{Change, Index, Reader},
    key::Key,
    kinds::{
        kind,
        node::Node,
        pod::{ORIGINAL_NOT_READY, ORIGINAL_UNREACHABLE, Pod},
    },
    object::{Claimable, Metadata},
    patch,
    pods::{is_active, node_name, uid},
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};

const COMPONENT: &str = "podbinding-controller";
/// Pods that are bound at once: a pool's annotation may change a write for each of thousands of pods.
const AT_ONCE: usize = 64;

impl Silence {
    /// The annotation that keeps what a pod's author wrote.
    fn annotation(self) -> &'static str {
        match self {
            Self::NotReady => ORIGINAL_NOT_READY,
            Self::Unreachable => ORIGINAL_UNREACHABLE,
        }
    }
}

/// The controller.
pub(crate) struct Controller {
    pods: Arc<WorkQueue<Key>>,
    /// Nodes whose autonomy changed before somebody's eyes, for the events.
    told: Arc<WorkQueue<Key>>,
    /// Nodes whose condition does not say what it should.
    conditions: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let (queue, told) = (Arc::new(WorkQueue::new()), Arc::new(WorkQueue::new()));
        let conditions = Arc::new(WorkQueue::new());
        context.nodes.on_change({
            let conditions = Arc::clone(&conditions);
            move |change| {
                if let Some(node) = change.new.as_deref().filter(|node| !told::is_told(node)) {
                    conditions.add(Key::of(&node.metadata));
                }
            }
        });
        context.nodes.on_change({
            let (queue, told) = (Arc::clone(&queue), Arc::clone(&told));
            let pods = context.pods.reader();
            move |change| enqueue_pods_of(change, &pods, &queue, &told)
        });
        context.pods.on_change({
            let queue = Arc::clone(&queue);
            let nodes = context.nodes.reader();
            move |change| {
                let pod = change.new.as_deref().filter(|new| !is_same(change.old.as_deref(), new));
                if let Some(pod) = pod
                    && let Some(node) = node_of(pod, &nodes)
                    && !is_right(pod, Autonomy::of(&node))
                {
                    queue.add(Key::of(&pod.metadata));
                }
            }
        });
        Self { pods: queue, told, conditions }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.nodes.wait_synced().await;
        context.pods.wait_synced().await;
        let shared = &context;
        let sync = |key: Key| async move { sync(shared, &key).await };
        let tell = |key: Key| async move { tell(shared, &key) };
        let condition = |key: Key| async move { told::sync(shared, &key).await };
        futures::join!(
            worker::run(COMPONENT, AT_ONCE, self.pods, sync),
            worker::run(COMPONENT, 1, self.told, tell),
            worker::run(COMPONENT, AT_ONCE, self.conditions, condition)
        );
    }
}

/// A node whose autonomy changed, or that is seen after its pods, brings them.
fn enqueue_pods_of(
    change: &Change<Node>,
    pods: &Reader<Pod>,
    queue: &WorkQueue<Key>,
    told: &WorkQueue<Key>,
) {
    let Some(node) = &change.new else { return };
    let old = change.old.as_deref();
    if old.is_some_and(|old| old.autonomy() == node.autonomy()) {
        return;
    }
    if old.is_some() {
        told.add(Key::of(&node.metadata));
    }
    let autonomy = Autonomy::of(node);
    for pod in pods.by(Index::Node, node.metadata.name()) {
        if !is_right(&pod, autonomy) {
            queue.add(Key::of(&pod.metadata));
        }
    }
}

/// Says on the node what its annotation was taken for.
fn tell(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(node) = context.nodes.get(key) else { return Ok(None) };
    let (severity, reason, message) = match (node.autonomy(), Autonomy::of(&node)) {
        (Some(text), _) if Autonomy::parse(text).is_none() => {
            let why = "is no duration such as 90s, 12h or 0: its pods stay for ever";
            (Severity::Warning, "InvalidAutonomyDuration", format!("{text:?} {why}"))
        }
        (_, Autonomy::ForEver) => {
            let message = "Its pods stay for ever when it is silent".to_owned();
            (Severity::Normal, "AutonomyEnabled", message)
        }
        (Some(text), Autonomy::For(_)) => {
            let message = format!("Its pods stay for {text} when it is silent");
            (Severity::Normal, "AutonomyEnabled", message)
        }
        _ => {
            let message = "Its pods stay as long as they tolerate when it is silent".to_owned();
            (Severity::Normal, "AutonomyDisabled", message)
        }
    };
    context.recorder.record(COMPONENT, &*node, severity, reason, message);
    Ok(None)
}

/// Whether there is nothing here that was not there before. Pods of a template share it, so its address tells.
fn is_same(old: Option<&Pod>, new: &Pod) -> bool {
    let Some(old) = old else { return false };
    let same = |silence: Silence| originals(old, silence) == originals(new, silence);
    std::ptr::eq(old.template(), new.template())
        && old.node_name() == new.node_name()
        && Silence::ALL.into_iter().all(same)
}

fn node_of(pod: &Pod, nodes: &Reader<Node>) -> Option<Arc<Node>> {
    nodes.get(&Key::new("", node_name(pod)?))
}

/// Whether the pod is as it should be on a node of this autonomy, or not ours to change.
fn is_right(pod: &Pod, autonomy: Autonomy) -> bool {
    // Most pods are of this kind, and all of them come by.
    if autonomy == Autonomy::None && Silence::ALL.into_iter().all(|it| originals(pod, it).is_none())
    {
        return true;
    }
    let stays = |kind: &str| ["DaemonSet", "Node"].contains(&kind);
    let right = |silence: Silence| {
        let held = tolerated(pod, silence);
        held.on(autonomy) == held
    };
    !is_active(pod)
        || pod.metadata.owners().iter().any(|owner| stays(&owner.kind))
        || Silence::ALL.into_iter().all(right)
}

fn tolerated(pod: &Pod, silence: Silence) -> Tolerated {
    let all = pod.template().placement.tolerations.iter();
    let of_taint = all.filter(|toleration| {
        *toleration.key == *silence.taint() && toleration.effect == Some(Effect::NoExecute)
    });
    Tolerated {
        seconds: of_taint.map(|toleration| toleration.seconds).collect(),
        originals: originals(pod, silence).map(str::to_owned),
    }
}

fn originals(pod: &Pod, silence: Silence) -> Option<&str> {
    pod.metadata.annotation(silence.annotation())
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(pod) = context.pods.get(key) else { return Ok(None) };
    let node = node_name(&pod).and_then(|name| context.nodes.get(&Key::new("", name)));
    let Some(autonomy) = node.map(|node| Autonomy::of(&node)) else { return Ok(None) };
    if is_right(&pod, autonomy) {
        return Ok(None);
    }
    // A list of tolerations is written whole, so it is read whole.
    let api: Api<BoundPod> = context.api(&key.namespace);
    let read = api.get_opt(&key.name).await.map_err(SyncError::api("read", "Pod", key))?;
    let Some(read) = read.filter(|read| uid(&read.metadata) == uid(&pod.metadata)) else {
        return Ok(None);
    };
    let Some(change) = read.change(autonomy) else { return Ok(None) };
    match patch::merge(&api, &key.name, &patch::on_top_of(&read, change)).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("bind", "Pod", key)(error)),
    }
}

/// A pod by what is changed of it; of tolerations also what nobody here knows.
#[derive(Clone, Debug, Deserialize)]
struct BoundPod {
    metadata: ObjectMeta,
    spec: BoundSpec,
}
kind!(BoundPod, NamespaceResourceScope, "", "v1", "Pod", "pods");

#[derive(Clone, Debug, Deserialize)]
struct BoundSpec {
    #[serde(default)]
    tolerations: Vec<Map<String, Value>>,
}

impl BoundPod {
    /// The merge patch that makes it right; none when it is.
    fn change(&self, autonomy: Autonomy) -> Option<Value> {
        let mut tolerations = self.spec.tolerations.clone();
        let mut annotations = Map::new();
        for silence in Silence::ALL {
            let text = |toleration: &Map<String, Value>, field: &str, wanted: &str| {
                toleration.get(field).and_then(Value::as_str) == Some(wanted)
            };
            let mut of_taint: Vec<_> = tolerations
                .iter_mut()
                .filter(|it| text(it, "key", silence.taint()) && text(it, "effect", "NoExecute"))
                .collect();
            let seconds = |it: &&mut Map<String, Value>| it.get("tolerationSeconds")?.as_i64();
            let known = self.metadata.annotations.as_ref();
            let held = Tolerated {
                seconds: of_taint.iter().map(seconds).collect(),
                originals: known.and_then(|all| all.get(silence.annotation()).cloned()),
            };
            let wanted = held.on(autonomy);
            if wanted.originals != held.originals {
                annotations.insert(silence.annotation().to_owned(), json!(wanted.originals));
            }
            for (toleration, seconds) in of_taint.iter_mut().zip(wanted.seconds) {
                match seconds {
                    Some(seconds) => {
                        toleration.insert("tolerationSeconds".to_owned(), seconds.into());
                    }
                    None => drop(toleration.remove("tolerationSeconds")),
                }
            }
        }
        let same = tolerations == self.spec.tolerations;
        if same && annotations.is_empty() {
            return None;
        }
        let mut change = json!({"metadata": {"annotations": annotations}});
        if !same && let Some(fields) = change.as_object_mut() {
            fields.insert("spec".to_owned(), json!({"tolerations": tolerations}));
        }
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autonomy::{NOT_READY, UNREACHABLE};

    fn read(tolerations: &Value, annotations: &Value) -> BoundPod {
        let pod = json!({"metadata": {"name": "p", "annotations": annotations},
            "spec": {"tolerations": tolerations}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn what_nobody_here_knows_of_a_toleration_stays() {
        let tolerations = |seconds: Option<i64>| {
            let mut silent =
                json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "new": 1});
            if let Some(seconds) = seconds {
                silent["tolerationSeconds"] = seconds.into();
            }
            json!([{"key": "mine", "effect": "NoExecute", "tolerationSeconds": 3}, silent,
                {"key": NOT_READY, "effect": "NoSchedule"}])
        };
        let none = json!(null);
        let change = read(&tolerations(Some(300)), &none).change(Autonomy::ForEver).unwrap();
        let kept = json!({ORIGINAL_UNREACHABLE: "300"});
        assert_eq!(change["spec"]["tolerations"], tolerations(None));
        assert_eq!(change["metadata"]["annotations"], kept);
        assert_eq!(read(&tolerations(None), &kept).change(Autonomy::ForEver), None);
        let change = read(&tolerations(None), &kept).change(Autonomy::None).unwrap();
        assert_eq!(change["spec"]["tolerations"], tolerations(Some(300)));
        assert_eq!(change["metadata"]["annotations"], json!({ORIGINAL_UNREACHABLE: null}));
    }

    #[test]
    fn daemons_mirrors_and_pods_that_end_are_left_alone() {
        let pod = |owner: &str, phase: &str| -> Pod {
            let owner = json!({"apiVersion": "v1", "kind": owner, "name": "o", "uid": "u", "controller": true});
            let toleration = json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300});
            serde_json::from_value(json!({"metadata": {"name": "p", "ownerReferences": [owner]},
                "spec": {"nodeName": "n", "tolerations": [toleration]}, "status": {"phase": phase}}))
            .unwrap()
        };
        assert!(!is_right(&pod("ReplicaSet", "Running"), Autonomy::ForEver));
        assert!(is_right(&pod("ReplicaSet", "Running"), Autonomy::None));
        for (owner, phase) in [("DaemonSet", "Running"), ("Node", "Running"), ("Job", "Succeeded")]
        {
            assert!(is_right(&pod(owner, phase), Autonomy::ForEver), "{owner} {phase}");
        }
    }
}
