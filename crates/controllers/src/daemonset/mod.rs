//! DaemonSet: one pod on each node that is meant to run it.

mod history;
mod nodes;
mod status;
mod update;
pub(crate) mod upgrade;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;

use crate::{
    claim::{self, selector, selects},
    context::Context,
    error::SyncError,
    expectations::Expectations,
    informer::{Change, Index, Reader},
    key::Key,
    kinds::pod::Pod,
    object::Metadata,
    podcontrol::PodControl,
    pods::{controller_of, created, is_finished, uid},
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};
use nodes::Eligibility;

const COMPONENT: &str = "daemonset-controller";
/// The label that ties a pod to the revision of its template.
const HASH_LABEL: &str = "controller-revision-hash";

/// What of daemon sets is done here, and not by other controllers of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Duties {
    /// A daemon on each node that is to have one, the revisions of the template, the status.
    pub(crate) keeps: bool,
    /// Daemons are replaced as an annotation says. Whoever keeps them makes the new ones.
    pub(crate) upgrades: bool,
}

/// The daemon set controller.
pub(crate) struct Controller {
    duties: Duties,
    queue: Arc<WorkQueue<Key>>,
    expectations: Arc<Expectations>,
    /// What was told last of sets whose annotations say nothing that can be meant: it is told once.
    complaints: Mutex<HashMap<Key, String>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context, duties: Duties) -> Self {
        let queue = Arc::new(WorkQueue::new());
        let expectations = Arc::new(Expectations::default());
        context.daemon_sets.on_change({
            let (queue, expectations) = (Arc::clone(&queue), Arc::clone(&expectations));
            move |change| {
                let Some(set) = change.latest() else { return };
                let key = Key::of(&set.metadata);
                if change.new.is_none() {
                    expectations.forget(&key);
                }
                queue.add(key);
            }
        });
        context.pods.on_change({
            let (queue, expectations) = (Arc::clone(&queue), Arc::clone(&expectations));
            let sets = context.daemon_sets.reader();
            move |change| pod_changed(change, &sets, &queue, &expectations)
        });
        context.nodes.on_change({
            let queue = Arc::clone(&queue);
            let sets = context.daemon_sets.reader();
            move |change| {
                // Heartbeats and usage change nothing about where daemons run.
                let (matters, readiness) = match (&change.old, &change.new) {
                    (Some(old), Some(new)) => {
                        (!new.admits_as(old), upgrade::is_ready(new) != upgrade::is_ready(old))
                    }
                    _ => (true, true),
                };
                if matters || readiness {
                    let concerned =
                        |set: &&Arc<DaemonSet>| matters || upgrade::follows_readiness(set);
                    let all = sets.all();
                    all.iter().filter(concerned).for_each(|set| queue.add(Key::of(&set.metadata)));
                }
            }
        });
        if !duties.keeps {
            // Others make them, and what is the newest one decides what is old.
            context.revisions.on_change({
                let queue = Arc::clone(&queue);
                move |change| {
                    change
                        .latest()
                        .and_then(|it| history::set_of(it))
                        .into_iter()
                        .for_each(|key| queue.add(key))
                }
            });
        }
        Self { duties, queue, expectations, complaints: Mutex::default() }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.daemon_sets.wait_synced().await;
        context.pods.wait_synced().await;
        context.nodes.wait_synced().await;
        context.revisions.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let (this, context) = (&self, &context);
        let sync = |key: Key| async move { this.sync(context, &key).await };
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }

    async fn sync(&self, context: &Context, key: &Key) -> Result<Again, SyncError> {
        let Some(set) = context.daemon_sets.get(key) else {
            self.expectations.forget(key);
            self.complaints().remove(key);
            return Ok(None);
        };
        let Some(spec) = &set.spec else { return Ok(None) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let may_manage = self.expectations.satisfied(key);
        let Some((hash, pods)) = self.history_and_pods(context, key, &set).await? else {
            return Ok(None);
        };
        let work = Work { context, set: &set, key, hash: &hash, expectations: &self.expectations };
        let daemons = work.survey(pods);
        if may_manage {
            if self.duties.keeps {
                work.manage(&daemons, self.duties).await?;
            }
            if self.expectations.satisfied(key) {
                self.upgrade(&work, &daemons).await?;
            }
        }
        let now = Timestamp::now();
        let settling = match self.duties.keeps {
            true => status::write(&work, &daemons, now).await?,
            false => status::is_settling(&status::count(&work, &daemons, now)),
        };
        let min_ready = u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0);
        Ok((settling && min_ready > 0).then(|| Duration::from_secs(min_ready)))
    }
}

impl Controller {
    /// The hash of the present template, and the set's pods: brought up to date, or as others have them. Nothing
    /// where there is nothing to do.
    async fn history_and_pods(
        &self,
        context: &Context,
        key: &Key,
        set: &DaemonSet,
    ) -> Result<Option<(String, Vec<Arc<Pod>>)>, SyncError> {
        let Some(spec) = &set.spec else { return Ok(None) };
        if self.duties.keeps {
            let Some(selector) = selector("DaemonSet", key, &spec.selector)? else {
                return Ok(None);
            };
            let pods = claim::claim(context, set, &selector, &context.pods).await?;
            let hash = history::sync(context, set, &selector, &pods).await?;
            return Ok(Some((hash, pods)));
        }
        if upgrade::strategy(set) == Ok(None) {
            self.complaints().remove(key);
            return Ok(None);
        }
        let hash = history::as_others_have_it(context, set);
        Ok(hash.map(|hash| (hash, context.pods.by(Index::Owner, uid(&set.metadata)))))
    }

    /// Replaces daemons of an old template, in the way that the set says.
    async fn upgrade(&self, work: &Work<'_>, daemons: &Daemons) -> Result<(), SyncError> {
        let Duties { keeps, upgrades } = self.duties;
        let strategy = if upgrades { upgrade::strategy(work.set) } else { Ok(None) };
        match strategy {
            Ok(strategy) => {
                self.complaints().remove(work.key);
                match strategy {
                    Some(strategy) => upgrade::step(work, daemons, &strategy).await,
                    None if keeps => update::step(work, daemons).await,
                    None => Ok(()),
                }
            }
            Err(bad) => {
                let text = bad.to_string();
                let told = self.complaints().insert(work.key.clone(), text.clone());
                if told.as_ref() != Some(&text) {
                    let recorder = &work.context.recorder;
                    recorder.record(COMPONENT, work.set, Severity::Warning, bad.reason(), text);
                }
                if keeps { update::step(work, daemons).await } else { Ok(()) }
            }
        }
    }

    fn complaints(&self) -> MutexGuard<'_, HashMap<Key, String>> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A daemon set being worked on.
struct Work<'a> {
    context: &'a Context,
    set: &'a DaemonSet,
    key: &'a Key,
    /// The hash of the present template's revision.
    hash: &'a str,
    expectations: &'a Expectations,
}

/// Where the daemons are and where they should be.
struct Daemons {
    /// By node: whether it should run one, and those that it has, oldest first. Nodes that neither
    /// should nor do are left out.
    nodes: HashMap<String, (Eligibility, Vec<Arc<Pod>>)>,
    /// Daemons of nodes that do not exist.
    stray: Vec<Arc<Pod>>,
}

impl Daemons {
    /// The nodes that are to run one, by name, each with those that it has.
    fn wanted(&self) -> Vec<(&str, &[Arc<Pod>])> {
        let wanted = self.nodes.iter().filter(|(_, (can, _))| *can == Eligibility::Yes);
        let mut nodes: Vec<_> =
            wanted.map(|(name, (_, pods))| (name.as_str(), pods.as_slice())).collect();
        nodes.sort_by_key(|(name, _)| *name);
        nodes
    }
}

impl Work<'_> {
    fn survey(&self, pods: Vec<Arc<Pod>>) -> Daemons {
        let probe = nodes::probe(self.set);
        let mut nodes = HashMap::new();
        for node in self.context.nodes.all() {
            let eligibility = nodes::eligibility(&probe, &node.placement());
            if eligibility != Eligibility::No {
                nodes.insert(node.metadata.name().to_owned(), (eligibility, Vec::new()));
            }
        }
        let exists = |name: &str| self.context.nodes.get(&Key::new("", name)).is_some();
        let mut stray = Vec::new();
        for pod in pods {
            match nodes::target(&pod) {
                Some(name) if nodes.contains_key(name) || exists(name) => {
                    let none = || (Eligibility::No, Vec::new());
                    nodes.entry(name.to_owned()).or_insert_with(none).1.push(pod);
                }
                _ => stray.push(pod),
            }
        }
        for (_, daemons) in nodes.values_mut() {
            daemons.sort_by_key(|pod| (created(&pod.metadata), pod.metadata.key()));
        }
        Daemons { nodes, stray }
    }

    fn control(&self) -> PodControl<'_, DaemonSet> {
        PodControl {
            context: self.context,
            expectations: self.expectations,
            component: COMPONENT,
            owner: self.set,
            key: self.key,
        }
    }

    async fn manage(&self, daemons: &Daemons, duties: Duties) -> Result<(), SyncError> {
        let mut lacking = Vec::new();
        let mut surplus: Vec<_> =
            daemons.stray.iter().filter(|pod| !leaving(pod)).cloned().collect();
        for (node, (eligibility, pods)) in &daemons.nodes {
            let present = pods.iter().filter(|pod| !leaving(pod));
            match eligibility {
                Eligibility::No => surplus.extend(present.cloned()),
                Eligibility::OnlyKeep | Eligibility::Yes => {
                    let (finished, alive): (Vec<_>, Vec<_>) =
                        present.cloned().partition(|pod| is_finished(pod));
                    // A finished daemon makes room for another.
                    surplus.extend(finished);
                    surplus.extend(update::duplicates(self, &alive));
                    if *eligibility == Eligibility::Yes && pods.is_empty() {
                        lacking.push(node.as_str());
                    }
                }
            }
        }
        lacking.sort_unstable();
        self.create_on(&lacking).await?;
        let heirs = if duties.upgrades { upgrade::heirs(self, daemons) } else { Vec::new() };
        let heirs =
            heirs.iter().map(|it| nodes::pod_for(self.set, &it.template, &it.hash, &it.node));
        self.control().create(heirs.collect()).await?;
        self.control().delete(&surplus).await
    }

    async fn create_on(&self, nodes: &[&str]) -> Result<(), SyncError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let template = self.set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let pod = |node: &&str| nodes::pod_for(self.set, &template, self.hash, node);
        self.control().create(nodes.iter().map(pod).collect()).await
    }
}

fn leaving(pod: &Pod) -> bool {
    pod.metadata.is_leaving()
}

/// The daemon set that a pod's reference means, if that very one still exists.
fn referenced(sets: &Reader<DaemonSet>, pod: &Pod) -> Option<Key> {
    let reference =
        controller_of(&pod.metadata).filter(|reference| reference.kind == "DaemonSet")?;
    let key = Key::new(pod.metadata.namespace(), &reference.name);
    let set = sets.get(&key)?;
    (uid(&set.metadata) == reference.uid).then_some(key)
}

fn pod_changed(
    change: &Change<Pod>,
    sets: &Reader<DaemonSet>,
    queue: &WorkQueue<Key>,
    expectations: &Expectations,
) {
    if let Some(pod) = &change.old
        && let Some(key) = referenced(sets, pod)
    {
        if change.new.is_none() {
            expectations.deletion_observed(&key, &Key::of(&pod.metadata));
        }
        queue.add(key);
    }
    let Some(pod) = &change.new else { return };
    if let Some(key) = referenced(sets, pod) {
        if change.old.is_none() {
            expectations.creation_observed(&key);
        }
        if leaving(pod) {
            expectations.deletion_observed(&key, &Key::of(&pod.metadata));
        }
        queue.add(key);
    } else if controller_of(&pod.metadata).is_none() && !leaving(pod) {
        for set in sets.by(Index::Namespace, pod.metadata.namespace()) {
            let key = Key::of(&set.metadata);
            let Some(spec) = &set.spec else { continue };
            if let Ok(Some(selector)) = selector("DaemonSet", &key, &spec.selector)
                && selects(&selector, &**pod)
            {
                queue.add(key);
            }
        }
    }
}
