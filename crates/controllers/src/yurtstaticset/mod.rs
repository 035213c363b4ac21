//! `YurtStaticSet`: pods that run from files of nodes, kept at one version. A node has one of a set when the API
//! shows a mirror of it, called as the set and the node.
//!
//! The new manifest travels with an offer on the mirror, so that it reaches the node as everything does, also one
//! that was away; the node writes its file once the upgrade is approved. With `OTA` others approve, with
//! `AdvancedRollingUpdate` this controller does, some nodes at a time. On nodes that are not ours nothing reads the
//! offer: there the ConfigMap and the condition are what OpenYurt's own hub goes by.

mod decide;
mod manifest;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, stream};
use serde_json::json;
use toono_openyurt::YurtStaticSet;
use toono_wire::upgrade;

use crate::{
    context::Context,
    daemonset::upgrade::{is_ready as node_is_ready, offer},
    error::SyncError,
    key::Key,
    kinds::pod::Pod,
    object::Metadata,
    patch,
    pods::{controller_of, is_ready, node_name},
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};
use decide::{Act, Spot};
use manifest::Wanted;

const COMPONENT: &str = "yurtstaticset-controller";
/// Pods that are written at the same time: enough to cover a commit's latency.
const MAX_IN_FLIGHT: usize = 64;

/// The controller.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    memory: Mutex<HashMap<Key, Memory>>,
}

/// What is remembered of a set while this runs. Losing it does no harm but that a few more nodes may be replaced at
/// once.
#[derive(Debug, Default)]
struct Memory {
    /// Nodes that were approved by this controller and have not come back with the new pod: while a node replaces
    /// its pod there is no mirror to see that by.
    under_way: BTreeMap<String, String>,
    /// The ConfigMap's content as last written.
    written: Option<String>,
    /// What was last told of a template that is none.
    complaint: Option<String>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.static_sets.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(set) = change.latest() {
                    queue.add(Key::of(&set.metadata));
                }
            }
        });
        context.pods.on_change({
            let queue = Arc::clone(&queue);
            let sets = context.static_sets.reader();
            move |change| {
                let pods = change.old.iter().chain(&change.new);
                for key in pods.filter_map(|pod| set_of(pod)) {
                    if sets.get(&key).is_some() {
                        queue.add(key);
                    }
                }
            }
        });
        context.nodes.on_change({
            let queue = Arc::clone(&queue);
            let sets = context.static_sets.reader();
            move |change| {
                let ready = |node: &Option<Arc<_>>| node.as_deref().is_some_and(node_is_ready);
                if ready(&change.old) != ready(&change.new) {
                    sets.all().iter().for_each(|set| queue.add(Key::of(&set.metadata)));
                }
            }
        });
        Self { queue, memory: Mutex::default() }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.static_sets.wait_synced().await;
        context.pods.wait_synced().await;
        context.nodes.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let (this, context) = (&self, &context);
        let sync = |key: Key| async move { this.sync(context, &key).await };
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sync(&self, context: &Context, key: &Key) -> Result<Again, SyncError> {
        let set = context.static_sets.get(key);
        let Some(set) = set.filter(|set| set.metadata.deletion_timestamp.is_none()) else {
            self.memory().remove(key);
            return Ok(None);
        };
        let wanted = match manifest::wanted(&set) {
            Ok(wanted) => wanted,
            Err(bad) => {
                self.complain(context, key, &set, bad.reason(), &bad.to_string());
                return Ok(None);
            }
        };
        self.memory().entry(key.clone()).or_default().complaint = None;
        self.keep_config_map(context, key, &set, &wanted).await?;
        let mirrors = mirrors(context, key);
        self.upgrade(context, key, &set, &wanted, &mirrors).await?;
        write_status(context, key, &set, &wanted, &mirrors).await?;
        Ok(None)
    }

    /// Once, however often the set is looked at.
    fn complain(
        &self,
        context: &Context,
        key: &Key,
        set: &YurtStaticSet,
        reason: &'static str,
        text: &str,
    ) {
        let told = self.memory().entry(key.clone()).or_default().complaint.replace(text.to_owned());
        if told.as_deref() != Some(text) {
            let recorder = &context.recorder;
            recorder.record(COMPONENT, set, Severity::Warning, reason, text.to_owned());
        }
    }

    async fn keep_config_map(
        &self,
        context: &Context,
        key: &Key,
        set: &YurtStaticSet,
        wanted: &Wanted,
    ) -> Result<(), SyncError> {
        let known = self.memory().get(key).and_then(|memory| memory.written.clone());
        if known.as_ref() == Some(&wanted.text) {
            return Ok(());
        }
        manifest::write(context, key, set, wanted).await?;
        self.memory().entry(key.clone()).or_default().written = Some(wanted.text.clone());
        Ok(())
    }

    async fn upgrade(
        &self,
        context: &Context,
        key: &Key,
        set: &YurtStaticSet,
        wanted: &Wanted,
        mirrors: &BTreeMap<String, Arc<Pod>>,
    ) -> Result<(), SyncError> {
        let offer = wanted.offer();
        let text = offer.to_text();
        let acts = {
            let mut memory = self.memory();
            let under_way = &mut memory.entry(key.clone()).or_default().under_way;
            let ready = |node: &str| {
                context.nodes.get(&Key::new("", node)).is_some_and(|node| node_is_ready(&node))
            };
            under_way.retain(|node, revision| {
                let settled = mirrors.get(node).is_some_and(|pod| {
                    manifest::hash_of(pod) == Some(revision.as_str()) && is_ready(pod)
                });
                ready(node) && *revision == wanted.revision && !settled
            });
            let spots: Vec<Spot> = mirrors
                .iter()
                .map(|(node, pod)| {
                    spot(pod, (&offer.revision, &text), ready(node), under_way.contains_key(node))
                })
                .collect();
            let absent = under_way.keys().filter(|node| !mirrors.contains_key(*node)).count();
            let acts = decide::acts(&spots, wanted.strategy(mirrors.len()), absent);
            for ((node, _), act) in mirrors.iter().zip(&acts) {
                if *act == Act::Approve {
                    under_way.insert(node.clone(), wanted.revision.clone());
                }
            }
            acts
        };
        tell(context, set, wanted, mirrors, &acts);
        let offer = &offer;
        let writes = mirrors.values().cloned().zip(acts).map(|(pod, act)| async move {
            match act {
                Act::Nothing => Ok(()),
                Act::Offer => offer::make(context, pod, offer, false).await,
                Act::Approve => offer::make(context, pod, offer, true).await,
                Act::Withdraw => offer::withdraw(context, pod).await,
            }
        });
        let writes: Vec<_> = writes.collect();
        let outcomes: Vec<_> = stream::iter(writes).buffer_unordered(MAX_IN_FLIGHT).collect().await;
        outcomes.into_iter().collect()
    }
}

fn spot(pod: &Pod, (revision, text): (&str, &str), node_ready: bool, under_way: bool) -> Spot {
    let current = manifest::hash_of(pod) == Some(revision);
    Spot {
        current,
        ready: is_ready(pod),
        node_ready,
        under_way,
        told: if current { offer::is_withdrawn(pod) } else { offer::is_made(pod, text) },
        noted: pod.metadata.annotation(upgrade::OFFER).is_some(),
        approved: pod.metadata.annotation(upgrade::APPROVED) == Some(revision)
            && pod.metadata.annotation(upgrade::OFFER) == Some(text),
    }
}

fn tell(
    context: &Context,
    set: &YurtStaticSet,
    wanted: &Wanted,
    mirrors: &BTreeMap<String, Arc<Pod>>,
    acts: &[Act],
) {
    let on = |act: Act| {
        let nodes = mirrors.keys().zip(acts).filter(move |(_, it)| **it == act);
        nodes.map(|(node, _)| node.as_str()).collect::<Vec<_>>()
    };
    let tell = |reason, message| {
        context.recorder.record(COMPONENT, set, Severity::Normal, reason, message);
    };
    let (offered, started) = (on(Act::Offer), on(Act::Approve));
    if !offered.is_empty() {
        let (revision, count) = (&wanted.revision, offered.len());
        let message =
            format!("Offered revision {revision} to {count} nodes, which wait for an approval");
        tell("UpgradeOffered", message);
    }
    if !started.is_empty() {
        let nodes = started.join(", ");
        tell("UpgradeStarted", format!("Revision {} goes to {nodes}", wanted.revision));
    }
}

/// The set that a mirror is of, if there is one of that name.
fn set_of(pod: &Pod) -> Option<Key> {
    if !is_mirror(pod) {
        return None;
    }
    let suffix = format!("-{}", node_name(pod)?.to_lowercase());
    let name = pod.metadata.name().strip_suffix(&suffix)?;
    Some(Key::new(pod.metadata.namespace(), name))
}

/// A node owns what shows a pod of its own; it owns no other.
fn is_mirror(pod: &Pod) -> bool {
    controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "Node")
}

/// By node.
fn mirrors(context: &Context, set: &Key) -> BTreeMap<String, Arc<Pod>> {
    let of_node = |name: &str| {
        let pod = Key::new(&set.namespace, &format!("{}-{}", set.name, name.to_lowercase()));
        let pod = context.pods.get(&pod)?;
        let there = is_mirror(&pod) && node_name(&pod) == Some(name) && !pod.metadata.is_leaving();
        there.then(|| (name.to_owned(), pod))
    };
    let nodes = context.nodes.all();
    nodes.iter().filter_map(|node| of_node(node.metadata.name())).collect()
}

async fn write_status(
    context: &Context,
    key: &Key,
    set: &YurtStaticSet,
    wanted: &Wanted,
    mirrors: &BTreeMap<String, Arc<Pod>>,
) -> Result<(), SyncError> {
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(mirrors.values().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let new = toono_openyurt::yurt_static_set::YurtStaticSetStatus {
        observed_generation: set.metadata.generation,
        total_number: count(&|_| true),
        ready_number: count(&is_ready),
        upgraded_number: count(&|pod| manifest::hash_of(pod) == Some(wanted.revision.as_str())),
    };
    if set.status.as_ref() == Some(&new) {
        return Ok(());
    }
    let change = patch::on_top_of(set, json!({"status": new}));
    let api = context.api::<YurtStaticSet>(&key.namespace);
    patch::merge_status(&api, &key.name, &change).await.map(drop).map_err(SyncError::api(
        "update the status of",
        "YurtStaticSet",
        key,
    ))
}
