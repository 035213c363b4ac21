//! One look at a set: its revision, its workloads one by one, its status.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::core::Selector;
use tokio::time::Instant;
use toono_openyurt::{
    YurtAppSet,
    keys::{POOL_NAME, REF_YURT_APP_SET},
    yurt_app_set::{YurtAppSetStatus, condition::APP_UPDATED},
};

use super::{
    COMPONENT,
    app::{App, Kind},
    choice::{Choice, Pools},
    history::History,
    labels_of,
    live::Live,
    look::{Done, Look, Outcome},
    memory::{Basis, Memory, Refusal},
    plan::Plan,
    status::{self, Facts},
    write,
};
use crate::{
    claim::{claim_with, selector},
    context::Context,
    error::SyncError,
    expectations::Expectations,
    informer::Index,
    key::Key,
    object::Metadata,
    patch,
    pods::uid,
    recorder::Severity,
    worker::Again,
};

/// Requests of one set under way at the same time.
const MAX_IN_FLIGHT: usize = 16;
/// A rollout over a thousand pools changes the numbers all the time; they are written this often.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// A set being looked at.
pub(super) struct Sync<'a> {
    pub(super) context: &'a Context,
    pub(super) set: &'a YurtAppSet,
    pub(super) key: &'a Key,
    pub(super) expectations: &'a Expectations,
}

/// What the set asks for, now and before.
#[derive(Clone, Copy)]
struct Asked<'a> {
    app: &'a App,
    choice: &'a Choice,
    pools: &'a Pools,
    history: &'a History,
}

impl Sync<'_> {
    pub(super) async fn run(&self, memory: &mut Memory) -> Result<Again, SyncError> {
        let app = match App::new(&self.set.spec) {
            Ok(app) => app,
            Err(error) => return self.invalid(memory, error.to_string()).await,
        };
        if let Some(why) = toono_api::names::label_value(&self.key.name).first() {
            let why = format!("the set's name cannot be a label of its workloads: {why}");
            return self.invalid(memory, why).await;
        }
        let mark = BTreeMap::from([(REF_YURT_APP_SET.to_owned(), self.key.name.to_string())]);
        let mark = selector("YurtAppSet", self.key, &labels_selector(mark))?;
        let Some(mark) = mark else { return Ok(None) };
        let workloads = self.claim(app.kind, &mark).await?;
        let history = History::sync(self.context, self.set, &mark).await?;
        if let Some(number) = history.returned_from {
            let revision = history.current_name();
            let said = format!("back to revision {number}, {revision}, under a new number");
            self.tell(Severity::Normal, "RolledBack", said);
        }
        let pools: Pools = self
            .context
            .node_pools
            .all()
            .iter()
            .map(|pool| (pool.metadata.name().to_owned(), labels_of(pool)))
            .collect();
        let choice = Choice::new(&app, &pools);
        let plan = Plan::new(choice.tweaks.keys().map(String::as_str), app.kind, workloads);
        let mut facts = Facts::default();
        self.delete(&plan, &mut facts).await;
        let asked = Asked { app: &app, choice: &choice, pools: &pools, history: &history };
        self.bring_up(&asked, &plan, memory, &mut facts).await;
        memory.pools.retain(|pool, _| choice.tweaks.contains_key(pool));
        let waits = memory.pools.values().filter_map(|pool| pool.failure.as_ref());
        let retry = waits.map(|refusal| refusal.again).min();
        let retry = retry.map(|at| at.saturating_duration_since(Instant::now()));
        let retry = retry.or((!facts.not_deleted.is_empty()).then_some(STATUS_INTERVAL));
        let revisions = plan.keep.values().filter_map(|live| live.revision().map(str::to_owned));
        let needed: BTreeSet<String> = revisions.collect();
        let again = self.write_status(facts, &choice, &history, memory).await?;
        history.prune(self.context, app.revision_history_limit, &needed).await?;
        Ok(retry.into_iter().chain(again).min())
    }

    /// All workloads of the set: of its kind those that it adopts too, of the other kind those that it has from
    /// before.
    async fn claim(&self, kind: Kind, mark: &Selector) -> Result<Vec<Live>, SyncError> {
        let (context, set) = (self.context, self.set);
        let owner = uid(&set.metadata);
        Ok(match kind {
            Kind::Deployment => {
                let (own, fits) = (&context.deployments, &is_of_pool as &Fits<Deployment>);
                let own = claim_with(context, set, mark, own, None, fits).await?;
                let others = context.stateful_sets.by(Index::Owner, owner);
                let own = own.into_iter().map(Live::Deployment);
                own.chain(others.into_iter().map(Live::StatefulSet)).collect()
            }
            Kind::StatefulSet => {
                let (own, fits) = (&context.stateful_sets, &is_of_pool as &Fits<StatefulSet>);
                let own = claim_with(context, set, mark, own, None, fits).await?;
                let others = context.deployments.by(Index::Owner, owner);
                let own = own.into_iter().map(Live::StatefulSet);
                own.chain(others.into_iter().map(Live::Deployment)).collect()
            }
        })
    }

    /// Deletes what no pool is to have.
    async fn delete(&self, plan: &Plan, facts: &mut Facts) {
        let deletions: Vec<BoxFuture<'_, _>> =
            plan.delete.iter().map(|live| self.delete_one(live).boxed()).collect();
        let mut deletions = stream::iter(deletions).buffer_unordered(MAX_IN_FLIGHT);
        let mut gone = Vec::new();
        while let Some((live, deleted)) = deletions.next().await {
            let name = live.metadata().name().to_owned();
            let kind = live.kind().name();
            match deleted {
                Ok(_) => gone.push(format!("{kind} {name}")),
                Err(why) => {
                    let said =
                        format!("{kind} {name} of pool {}: {why}", live.pool().unwrap_or("?"));
                    self.tell(Severity::Warning, "FailedDelete", said);
                    facts.not_deleted.insert(name, why);
                }
            }
        }
        self.tell_all("SuccessfulDelete", "deleted what no pool is to have:", gone);
    }

    async fn delete_one<'l>(&self, live: &'l Live) -> (&'l Live, Result<bool, String>) {
        let workload = Key::of(live.metadata());
        self.expectations.expect_deletions(self.key, [workload.clone()]);
        let deleted = write::delete(self.context, live).await;
        if !matches!(deleted, Ok(true)) {
            self.expectations.deletion_observed(self.key, &workload);
        }
        (live, deleted)
    }

    /// Sees that each pool has its workload, and that it is as it should be.
    async fn bring_up(
        &self,
        asked: &Asked<'_>,
        plan: &Plan,
        memory: &mut Memory,
        facts: &mut Facts,
    ) {
        let Asked { app, choice, pools, history } = *asked;
        facts.leaving = plan.leaving.iter().cloned().collect();
        let older = older_apps(plan, history);
        let look = Look { sync: self, app, history, older: &older, pools, known: &memory.pools };
        let revision: Arc<str> = history.current_name().into();
        let due = choice.tweaks.iter().filter(|(pool, _)| !plan.leaving.contains(*pool));
        let mut looks: Vec<BoxFuture<'_, Outcome>> = Vec::new();
        for (pool, tweaks) in due {
            let basis = Basis { revision: Arc::clone(&revision), tweaks: tweaks.clone() };
            looks.push(look.at(pool, plan.keep.get(pool), basis).boxed());
        }
        let looks = stream::iter(looks).buffer_unordered(MAX_IN_FLIGHT);
        let outcomes: Vec<Outcome> = looks.collect().await;
        for (pool, live) in &plan.keep {
            facts.progress.insert(pool.clone(), live.progress());
        }
        let (mut created, mut updated) = (Vec::new(), Vec::new());
        for Outcome { pool, memory: of_pool, done, refused } in outcomes {
            let there = plan.keep.contains_key(&pool);
            match done {
                Done::Current => facts.current.push(pool.clone()),
                Done::Created => created.push(pool.clone()),
                Done::Updated => updated.push(pool.clone()),
                Done::Waiting => {}
            }
            if let Some(refusal) = &of_pool.failure {
                if refused && refusal.is_first() {
                    self.tell_refusal(&pool, there, refusal);
                }
                let failures = if there { &mut facts.not_updated } else { &mut facts.not_created };
                failures.insert(pool.clone(), refusal.why.clone());
            }
            if !of_pool.notes.is_empty() {
                facts.notes.insert(pool.clone(), of_pool.notes.join(", "));
            }
            memory.pools.insert(pool, of_pool);
        }
        facts.created.clone_from(&created);
        let kind = app.kind.name();
        self.tell_all("SuccessfulCreate", &format!("made a {kind} for"), created);
        self.tell_all("SuccessfulUpdate", &format!("updated the {kind} of"), updated);
    }

    async fn write_status(
        &self,
        facts: Facts,
        choice: &Choice,
        history: &History,
        memory: &mut Memory,
    ) -> Result<Again, SyncError> {
        let before = self.set.status.clone().unwrap_or_default();
        let status = YurtAppSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: Some(history.collisions),
            current_revision: history.current_name().to_owned(),
            ..facts.status(choice, &before)
        };
        self.tell_turns(&status, memory);
        let again = self.put_status(status, memory).await?;
        Ok(again)
    }

    /// Writes a status that is new, not too often.
    async fn put_status(
        &self,
        status: YurtAppSetStatus,
        memory: &mut Memory,
    ) -> Result<Again, SyncError> {
        let before = self.set.status.as_ref();
        if before == Some(&status) {
            return Ok(None);
        }
        let same_generation =
            before.is_some_and(|before| before.observed_generation == status.observed_generation);
        let since = memory.status_at.map(|at| at.elapsed()).filter(|_| same_generation);
        if let Some(since) = since.filter(|since| *since < STATUS_INTERVAL) {
            return Ok(Some(STATUS_INTERVAL - since));
        }
        let api = self.context.api::<YurtAppSet>(&self.key.namespace);
        patch::write_status(&api, self.set, before, &status).await.map_err(SyncError::api(
            "update the status of",
            "YurtAppSet",
            self.key,
        ))?;
        memory.status_at = Some(Instant::now());
        Ok(None)
    }

    /// Says that nothing can be made of the set. What there is stays as it is.
    async fn invalid(&self, memory: &mut Memory, why: String) -> Result<Again, SyncError> {
        let before = self.set.status.clone().unwrap_or_default();
        let verdict = (false, "InvalidSpec", why);
        let status = YurtAppSetStatus {
            observed_generation: self.set.metadata.generation,
            conditions: status::conditions(&before.conditions, [(APP_UPDATED, verdict)]),
            ..before
        };
        self.tell_turns(&status, memory);
        self.put_status(status, memory).await
    }

    /// Tells of conditions that turned, once.
    fn tell_turns(&self, status: &YurtAppSetStatus, memory: &mut Memory) {
        let before = self.set.status.as_ref();
        for condition in &status.conditions {
            let (Some(reason), Some(message)) = (&condition.reason, &condition.message) else {
                continue;
            };
            let (severity, reason) = match reason.as_str() {
                "NoFindPools" => (Severity::Warning, "NoFindPools"),
                "PoolsMissing" => (Severity::Warning, "PoolsMissing"),
                "InvalidSpec" => (Severity::Warning, "InvalidSpec"),
                "WorkloadsUpdatedWithNotes" => (Severity::Warning, "WorkloadsUpdatedWithNotes"),
                "AllWorkloadsReady" => (Severity::Normal, "AllWorkloadsReady"),
                _ => continue,
            };
            let known = before.and_then(|status| {
                let same = |known: &&_| {
                    let known: &toono_openyurt::node_pool::NodePoolCondition = known;
                    known.type_ == condition.type_ && known.reason == condition.reason
                };
                status.conditions.iter().find(same)
            });
            let known = known.filter(|known| known.message.as_ref() == Some(message));
            if known.is_none() && memory.told.get(reason) != Some(message) {
                memory.told.insert(reason, message.clone());
                self.tell(severity, reason, message.clone());
            }
        }
        let holds = |reason: &str| {
            let reasons = status.conditions.iter().filter_map(|it| it.reason.as_deref());
            reasons.into_iter().any(|known| known == reason)
        };
        memory.told.retain(|reason, _| holds(reason));
    }

    fn tell_refusal(&self, pool: &str, there: bool, refusal: &Refusal) {
        let reason = if there { "FailedUpdate" } else { "FailedCreate" };
        self.tell(Severity::Warning, reason, format!("pool {pool}: {}", refusal.why));
    }

    fn tell_all(&self, reason: &'static str, what: &str, mut whom: Vec<String>) {
        if !whom.is_empty() {
            whom.sort_unstable();
            self.tell(Severity::Normal, reason, status::names(what, &whom));
        }
    }

    fn tell(&self, severity: Severity, reason: &'static str, message: String) {
        self.context.recorder.record(COMPONENT, self.set, severity, reason, message);
    }
}

/// Which workloads a set may have.
type Fits<K> = dyn Fn(&K) -> bool + std::marker::Sync;

/// Without a pool's name it is of no pool, and nobody's.
fn is_of_pool<K: kube::Resource>(workload: &K) -> bool {
    workload.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(POOL_NAME))
}

fn labels_selector(
    labels: BTreeMap<String, String>,
) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    }
}

/// What the set asked for when its workloads were written last.
fn older_apps(plan: &Plan, history: &History) -> HashMap<String, App> {
    let revisions: BTreeSet<&str> = plan.keep.values().filter_map(Live::revision).collect();
    let older = revisions.into_iter().filter(|revision| *revision != history.current_name());
    older.filter_map(|revision| Some((revision.to_owned(), history.app_of(revision)?))).collect()
}
