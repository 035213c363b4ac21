//! StatefulSet: pods with names of their own, made, deleted and updated in order.
//!
//! [`plan`] decides what is to be done; here it is done.

pub(crate) mod claims;
mod history;
mod plan;
mod pod;
#[cfg(test)]
mod tests;
mod view;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetStatus},
    core::v1::Pod as WholePod,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};
use serde_json::json;

use crate::{
    claim::{self, selector, selects},
    context::Context,
    error::{SyncError, is_conflict, is_namespace_terminating, is_not_found},
    informer::{Change, Index, Reader},
    key::Key,
    kinds::pod::{Pod, WatchedPod},
    object::Metadata,
    patch,
    podcontrol::{MAX_PODS_AT_ONCE, slow_start},
    pods::{controller_of, uid},
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};
use claims::Made;
use history::History;
use plan::{Act, Plan, Revisions};
use view::{INDEX_LABEL, NAME_LABEL, View};

const COMPONENT: &str = "statefulset-controller";
/// Pause before looking again whether a former pod's claim is gone.
const CLAIM_RETRY: Duration = Duration::from_secs(1);

/// The stateful set controller.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.stateful_sets.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(set) = change.latest() {
                    queue.add(Key::of(&set.metadata));
                }
            }
        });
        context.pods.on_change({
            let queue = Arc::clone(&queue);
            let sets = context.stateful_sets.reader();
            move |change| pod_changed(change, &sets, &queue)
        });
        Self { queue }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.stateful_sets.wait_synced().await;
        context.pods.wait_synced().await;
        context.revisions.wait_synced().await;
        context.claims.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let context = &context;
        let sync = |key: Key| async move { sync(context, &key).await };
        worker::run(COMPONENT, workers, self.queue, sync).await;
    }
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(set) = context.stateful_sets.get(key) else { return Ok(None) };
    let Some(spec) = &set.spec else { return Ok(None) };
    let Some(selector) = selector("StatefulSet", key, &spec.selector)? else { return Ok(None) };
    let view = View::new(&set, spec);
    let name = view.name.to_owned();
    let ours = move |pod: &Pod| view::ordinal(&name, pod).is_some();
    let pods = claim::claim_with(context, &*set, &selector, &context.pods, None, &ours).await?;
    let history = history::sync(context, &set, spec, &selector).await?;
    let revisions = Revisions { current: history.current_name(), update: history.update_name() };
    let plan = Plan::new(&view, revisions, &pods, Timestamp::now());
    let work = Work { context, set: &set, key, view: &view, history: &history };
    let done = if set.metadata.deletion_timestamp.is_none() {
        work.carry_out(plan.acts()).await
    } else {
        Ok(None)
    };
    work.write_status(&plan).await?;
    history.prune(context, spec, &pods).await?;
    let counts = plan.counts();
    let min_ready = u64::try_from(view.min_ready).unwrap_or(0);
    let settling = (counts.ready != counts.available).then(|| Duration::from_secs(min_ready));
    Ok(done?.into_iter().chain(settling).min())
}

/// A stateful set being worked on.
struct Work<'a> {
    context: &'a Context,
    set: &'a StatefulSet,
    key: &'a Key,
    view: &'a View<'a>,
    history: &'a History,
}

impl Work<'_> {
    async fn carry_out(&self, acts: Vec<Act>) -> Result<Again, SyncError> {
        let mut creations = Vec::new();
        for act in acts {
            match act {
                Act::Create { ordinal, current } => creations.push((ordinal, current)),
                Act::Repair(pod, ordinal) => self.repair(&pod, ordinal).await?,
                Act::Recreate(pod) => self.recreate(&pod).await?,
                Act::Condemn(pod) => {
                    let ordinal = self.view.ordinal(&pod).unwrap_or_default();
                    claims::own(self.context, self.set, self.view, &pod.metadata, ordinal, true)
                        .await?;
                    self.delete(&pod).await?;
                }
                Act::Replace(pod) => self.delete(&pod).await?,
            }
        }
        creations.truncate(MAX_PODS_AT_ONCE);
        let waiting = std::sync::atomic::AtomicBool::new(false);
        let (_, result) = slow_start(&creations, |(ordinal, current)| {
            let waiting = &waiting;
            async move {
                if !self.create(ordinal, current).await? {
                    waiting.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(())
            }
        })
        .await;
        result.map(|()| waiting.into_inner().then_some(CLAIM_RETRY))
    }

    /// Makes a pod and its claims; tells whether it could be made already.
    async fn create(&self, ordinal: i32, current: bool) -> Result<bool, SyncError> {
        let name = self.view.pod_name(ordinal);
        if let Made::Wait = self.create_claims(ordinal).await? {
            return Ok(false);
        }
        let (template, revision) = if current {
            (self.history.current_template(self.view.spec), self.history.current_name())
        } else {
            (self.view.spec.template.clone(), self.history.update_name())
        };
        let pod = pod::pod(self.set, self.view, &template, revision, ordinal);
        let api: Api<WholePod> = self.context.api(&self.key.namespace);
        match api.create(&PostParams::default(), &pod).await {
            Ok(made) => {
                self.tell_pod("create", &name, None);
                claims::own(self.context, self.set, self.view, &made.metadata, ordinal, false)
                    .await?;
                Ok(true)
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    self.tell_pod("create", &name, Some(&error));
                }
                Err(SyncError::api("create a pod of", "StatefulSet", self.key)(error))
            }
        }
    }

    async fn create_claims(&self, ordinal: i32) -> Result<Made, SyncError> {
        let (pod, set) = (self.view.pod_name(ordinal), self.view.name);
        claims::create(self.context, self.key, self.view, ordinal, |claim, error| match error {
            None => {
                let message =
                    format!("create Claim {claim} Pod {pod} in StatefulSet {set} success");
                self.tell(Severity::Normal, "SuccessfulCreate", message);
            }
            Some(error) => {
                let message = format!(
                    "create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {error}"
                );
                self.tell(Severity::Warning, "FailedCreate", message);
            }
        })
        .await
    }

    /// Sees that a pod has the labels of its name and the claims of its ordinal.
    async fn repair(&self, pod: &Pod, ordinal: i32) -> Result<(), SyncError> {
        if crate::pods::phase(pod) == "Pending" && !pod.metadata.is_leaving() {
            self.create_claims(ordinal).await?;
        }
        claims::own(self.context, self.set, self.view, &pod.metadata, ordinal, false).await?;
        let name = self.view.pod_name(ordinal);
        let index = ordinal.to_string();
        let known = |label: &str, value: &str| pod.metadata.label(label) == Some(value);
        if known(NAME_LABEL, &name) && known(INDEX_LABEL, &index) {
            return Ok(());
        }
        let change = json!({"metadata": {"labels": {NAME_LABEL: name, INDEX_LABEL: index}}});
        let api: Api<WatchedPod> = self.context.api(&self.key.namespace);
        match patch::merge(&api, &name, &patch::on_top_of(pod, change)).await {
            Ok(_) => self.tell_pod("update", &name, None),
            Err(error) if is_not_found(&error) => {}
            Err(error) => {
                return Err(SyncError::api("label a pod of", "StatefulSet", self.key)(error));
            }
        }
        Ok(())
    }

    async fn recreate(&self, pod: &Pod) -> Result<(), SyncError> {
        let name = pod.metadata.name();
        let set = self.key;
        let (severity, reason, what) = if crate::pods::phase(pod) == "Failed" {
            (Severity::Warning, "RecreatingFailedPod", "failed")
        } else {
            (Severity::Normal, "RecreatingTerminatedPod", "terminated")
        };
        self.tell(severity, reason, format!("StatefulSet {set} is recreating {what} Pod {name}"));
        self.delete(pod).await
    }

    async fn delete(&self, pod: &Pod) -> Result<(), SyncError> {
        let key = Key::of(&pod.metadata);
        let api: Api<WatchedPod> = self.context.api(&key.namespace);
        let only_this =
            Preconditions { uid: Some(uid(&pod.metadata).to_owned()), resource_version: None };
        match api.delete(&key.name, &DeleteParams::default().preconditions(only_this)).await {
            Ok(_) => self.tell_pod("delete", &key.name, None),
            // It is gone, or another has its name: the cache will show.
            Err(error) if is_not_found(&error) || is_conflict(&error) => {}
            Err(error) => {
                self.tell_pod("delete", &key.name, Some(&error));
                return Err(SyncError::api("delete a pod of", "StatefulSet", self.key)(error));
            }
        }
        Ok(())
    }

    async fn write_status(&self, plan: &Plan<'_>) -> Result<(), SyncError> {
        let counts = plan.counts();
        let rolled_out = plan.is_rolled_out();
        let (current, update) = (self.history.current_name(), self.history.update_name());
        let old = self.set.status.clone().unwrap_or_default();
        let positive = |number: i32| Some(number).filter(|number| *number != 0);
        let status = StatefulSetStatus {
            available_replicas: Some(counts.available),
            collision_count: Some(self.history.collisions.unwrap_or(0)),
            conditions: old.conditions.clone(),
            current_replicas: positive(if rolled_out { counts.updated } else { counts.current }),
            current_revision: Some(if rolled_out { update } else { current }.to_owned()),
            observed_generation: self.set.metadata.generation,
            ready_replicas: positive(counts.ready),
            replicas: counts.replicas,
            update_revision: Some(update.to_owned()),
            updated_replicas: positive(counts.updated),
        };
        if self.set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.api::<StatefulSet>(&self.key.namespace);
        patch::write_status(&api, self.set, self.set.status.as_ref(), &status)
            .await
            .map(drop)
            .map_err(SyncError::api("update the status of", "StatefulSet", self.key))
    }

    fn tell_pod(&self, verb: &str, pod: &str, error: Option<&kube::Error>) {
        let set = self.view.name;
        let (severity, reason) = match (verb, error) {
            ("create", None) => (Severity::Normal, "SuccessfulCreate"),
            ("delete", None) => (Severity::Normal, "SuccessfulDelete"),
            (_, None) => (Severity::Normal, "SuccessfulUpdate"),
            ("create", Some(_)) => (Severity::Warning, "FailedCreate"),
            (_, Some(_)) => (Severity::Warning, "FailedDelete"),
        };
        let outcome = match error {
            None => "successful".to_owned(),
            Some(error) => format!("failed error: {error}"),
        };
        self.tell(severity, reason, format!("{verb} Pod {pod} in StatefulSet {set} {outcome}"));
    }

    fn tell(&self, severity: Severity, reason: &'static str, message: String) {
        self.context.recorder.record(COMPONENT, self.set, severity, reason, message);
    }
}

/// The set that a pod's reference means, if that very one still exists.
fn referenced(sets: &Reader<StatefulSet>, pod: &Pod) -> Option<Key> {
    let reference =
        controller_of(&pod.metadata).filter(|reference| reference.kind == "StatefulSet")?;
    let key = Key::new(pod.metadata.namespace(), &reference.name);
    let set = sets.get(&key)?;
    (uid(&set.metadata) == reference.uid).then_some(key)
}

fn pod_changed(change: &Change<Pod>, sets: &Reader<StatefulSet>, queue: &WorkQueue<Key>) {
    for pod in change.old.iter().chain(&change.new) {
        if let Some(key) = referenced(sets, pod) {
            queue.add(key);
        }
    }
    let Some(pod) = &change.new else { return };
    if controller_of(&pod.metadata).is_some() || pod.metadata.is_leaving() {
        return;
    }
    for set in sets.by(Index::Namespace, pod.metadata.namespace()) {
        let key = Key::of(&set.metadata);
        let Some(spec) = &set.spec else { continue };
        if view::ordinal(&key.name, pod).is_some()
            && let Ok(Some(selector)) = selector("StatefulSet", &key, &spec.selector)
            && selects(&selector, &**pod)
        {
            queue.add(key);
        }
    }
}
