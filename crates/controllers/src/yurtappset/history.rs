//! The revisions of a set: what `spec.workload` was, to go back to.
//!
//! A set's present workload is always its newest revision. Going back is writing an older one's workload into the
//! set: then that revision is given the next number.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::core::Selector;
use serde_json::{Value, json};
use toono_openyurt::{YurtAppSet, keys::REF_YURT_APP_SET, yurt_app_set::YurtAppSetSpec};

use super::app::App;
use crate::{
    claim,
    context::Context,
    error::SyncError,
    hash::hash_of,
    history::{self, Draft},
};

/// The revisions.
pub(super) struct History {
    /// What is to be rolled out.
    pub(super) current: Arc<ControllerRevision>,
    pub(super) collisions: i32,
    /// The number that `current` had before it was returned to.
    pub(super) returned_from: Option<i64>,
    all: Vec<Arc<ControllerRevision>>,
}

/// What a revision keeps: a patch that puts the workload back.
fn data_of(set: &YurtAppSet) -> Value {
    // Encoding has no failure: the structure has string keys only.
    let mut workload = serde_json::to_value(&set.spec.workload).unwrap_or_default();
    if let Some(fields) = workload.as_object_mut() {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"workload": workload}})
}

impl History {
    /// Brings the history up to date; `mark` selects the set's own.
    pub(super) async fn sync(
        context: &Context,
        set: &YurtAppSet,
        mark: &Selector,
    ) -> Result<Self, SyncError> {
        let mut all = claim::claim(context, set, mark, &context.revisions).await?;
        all.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
        let newest = all.last().map_or(0, |revision| revision.revision);
        let data = data_of(set);
        let before = set.status.as_ref().and_then(|status| status.collision_count);
        if let Some(known) = history::find(&all, &data).cloned() {
            let returned = known.revision < newest;
            if returned {
                history::renumber(context, &known, newest + 1).await?;
            }
            let returned_from = returned.then_some(known.revision);
            return Ok(Self {
                current: known,
                collisions: before.unwrap_or(0),
                returned_from,
                all,
            });
        }
        let mut collisions = before.unwrap_or(0);
        loop {
            let mut labels = set.metadata.labels.clone().unwrap_or_default();
            let name = set.metadata.name.clone().unwrap_or_default();
            labels.insert(REF_YURT_APP_SET.to_owned(), name);
            let hash = hash_of(&data, Some(collisions));
            let draft = Draft { data: data.clone(), hash, labels, number: newest + 1 };
            if let Some(made) = history::make(context, set, draft).await? {
                return Ok(Self { current: Arc::new(made), collisions, returned_from: None, all });
            }
            collisions += 1;
        }
    }

    pub(super) fn current_name(&self) -> &str {
        self.current.metadata.name.as_deref().unwrap_or_default()
    }

    /// What the set asked for at a revision, if that is kept.
    pub(super) fn app_of(&self, revision: &str) -> Option<App> {
        let named =
            |known: &&Arc<ControllerRevision>| known.metadata.name.as_deref() == Some(revision);
        let known = self.all.iter().find(named)?;
        let workload = known.data.as_ref()?.0.pointer("/spec/workload")?;
        let workload = serde_json::from_value(workload.clone()).ok()?;
        App::new(&YurtAppSetSpec { workload, ..YurtAppSetSpec::default() }).ok()
    }

    /// Removes the oldest beyond the limit. What a workload was written for last is still needed: it says what
    /// is to be taken from it.
    pub(super) async fn prune(
        &self,
        context: &Context,
        limit: Option<i32>,
        needed: &BTreeSet<String>,
    ) -> Result<(), SyncError> {
        let in_use = |known: &ControllerRevision| {
            let name = known.metadata.name.as_deref().unwrap_or_default();
            name == self.current_name() || needed.contains(name)
        };
        history::prune(context, &self.all, limit, in_use).await
    }
}
