//! Revisions: finding or making the replica set of the present template, numbering it, and
//! forgetting the oldest.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::{DeleteParams, PostParams, Preconditions};
use serde_json::json;

use super::{
    conditions::{self, FOUND_REPLICA_SET, NEW_REPLICA_SET, PROGRESSING, REPLICA_SET_CREATE_ERROR},
    rollout::Rollout,
    sets::{
        self, REVISION, REVISION_HISTORY, TEMPLATE_HASH, find_new, is_recreate, limits, wanted,
    },
    status::has_deadline,
};
use crate::{
    claim::controller_reference,
    error::{SyncError, is_already_exists, is_not_found},
    hash::template_hash,
    key::Key,
    patch,
    pods::{controller_of, uid},
    recorder::Severity,
};

/// Longest history that is kept in a set's annotation.
const MAX_HISTORY_LENGTH: usize = 2000;
/// Annotations of the deployment that its sets do not get.
const NOT_COPIED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    sets::DESIRED_REPLICAS,
    sets::MAX_REPLICAS,
];

impl Rollout<'_> {
    /// Finds the sets and numbers the new one; makes it when there is none and `create`.
    pub(super) async fn find_sets_and_revision(&mut self, create: bool) -> Result<(), SyncError> {
        self.find_sets();
        let newest = self.old.iter().map(|set| sets::revision(set)).max().unwrap_or(0) + 1;
        if let Some(set) = self.new.clone() {
            self.update_new_set(&set, newest).await?;
            let revision = self
                .new
                .as_ref()
                .and_then(|set| sets::annotation(set, REVISION))
                .map(str::to_owned);
            self.note_revision(revision, FOUND_REPLICA_SET).await
        } else if create {
            self.create_new_set(newest).await?;
            self.note_revision(Some(newest.to_string()), NEW_REPLICA_SET).await
        } else {
            Ok(())
        }
    }

    async fn update_new_set(
        &mut self,
        set: &Arc<ReplicaSet>,
        newest: i64,
    ) -> Result<(), SyncError> {
        let annotations = self.annotations_for(Some(set), newest);
        let known = set.metadata.annotations.clone().unwrap_or_default();
        let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let set_min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let changed: BTreeMap<_, _> =
            annotations.iter().filter(|(name, value)| known.get(*name) != Some(value)).collect();
        if changed.is_empty() && min_ready.unwrap_or(0) == set_min_ready.unwrap_or(0) {
            return Ok(());
        }
        let change =
            json!({"metadata": {"annotations": changed}, "spec": {"minReadySeconds": min_ready}});
        self.patch_set(set, change).await
    }

    /// The annotations that the new set shall have: those of the deployment, its revision, and the
    /// revisions that it had before a rollback made it new again.
    fn annotations_for(&self, set: Option<&ReplicaSet>, newest: i64) -> BTreeMap<String, String> {
        let own = self.deployment.metadata.annotations.iter().flatten();
        let mut annotations: BTreeMap<_, _> = own
            .filter(|(name, _)| !NOT_COPIED.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let before = set.and_then(|set| sets::annotation(set, REVISION));
        if before.and_then(|text| text.parse().ok()).unwrap_or(0_i64) < newest {
            annotations.insert(REVISION.to_owned(), newest.to_string());
            if let Some(before) = before.filter(|before| !before.is_empty()) {
                let history =
                    set.and_then(|set| sets::annotation(set, REVISION_HISTORY)).unwrap_or_default();
                annotations.insert(REVISION_HISTORY.to_owned(), appended(history, before));
            }
        }
        annotations
    }

    async fn create_new_set(&mut self, revision: i64) -> Result<(), SyncError> {
        let set = self.new_set(revision);
        let key = Key::of(&set.metadata);
        let size = sets::replicas(&set);
        let api = self.context.api::<ReplicaSet>(&key.namespace);
        match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                self.made(created);
                if size > 0 {
                    let message = format!("Scaled up replica set {} from 0 to {size}", key.name);
                    self.tell(Severity::Normal, message);
                }
                Ok(())
            }
            Err(error) if is_already_exists(&error) => self.resolve_collision(&key).await,
            Err(error) => {
                let message = format!("Failed to create new replica set \"{}\": {error}", key.name);
                let failed =
                    conditions::condition(PROGRESSING, "False", REPLICA_SET_CREATE_ERROR, message);
                self.set_condition(failed).await?;
                Err(SyncError::api("create", "ReplicaSet", &key)(error))
            }
        }
    }

    /// The name is taken: by our own set that the cache does not show yet, or by another template
    /// with the same hash, and then the next try hashes differently.
    async fn resolve_collision(&mut self, key: &Key) -> Result<(), SyncError> {
        let api = self.context.api::<ReplicaSet>(&key.namespace);
        let taken = api.get(&key.name).await.map_err(SyncError::api("get", "ReplicaSet", key))?;
        let ours = controller_of(&taken.metadata)
            .is_some_and(|owner| owner.uid == uid(&self.deployment.metadata));
        let taken = Arc::new(taken);
        if ours && find_new(&self.deployment, &[Arc::clone(&taken)]).is_some() {
            self.made((*taken).clone());
            return Ok(());
        }
        let collisions =
            self.deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let change = json!({"status": {"collisionCount": collisions + 1}});
        self.patch_status(change).await?;
        Err(SyncError::Stale { key: key.clone() })
    }

    fn new_set(&self, revision: i64) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = template_hash(&spec.template, collisions);
        let mut template = spec.template;
        let metadata = template.metadata.get_or_insert_default();
        metadata.labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let labels = metadata.labels.clone();
        let mut selector = spec.selector;
        selector
            .match_labels
            .get_or_insert_default()
            .insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let mut annotations = self.annotations_for(None, revision);
        annotations.extend(self.size_annotations());
        let limits = limits(&self.deployment);
        let size = if is_recreate(&self.deployment) {
            wanted(&self.deployment)
        } else {
            limits.grown(self.sum(sets::replicas), 0)
        };
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", self.key.name)),
                namespace: Some(self.key.namespace.to_string()),
                labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference(&self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }

    /// Writes the revision on the deployment, and that there is something to progress to.
    async fn note_revision(
        &mut self,
        revision: Option<String>,
        reason: &str,
    ) -> Result<(), SyncError> {
        let known = self.deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
        if let Some(revision) = revision.filter(|revision| known != Some(revision)) {
            let api = self.context.api(&self.key.namespace);
            let change = json!({"metadata": {"annotations": {REVISION: revision}}});
            self.deployment = patch::merge(&api, &self.key.name, &change)
                .await
                .map_err(SyncError::api("annotate", "Deployment", &self.key))?;
        }
        let conditions = self.conditions();
        let starts =
            reason == NEW_REPLICA_SET || conditions::find(conditions, PROGRESSING).is_none();
        if !has_deadline(&self.deployment) || !starts {
            return Ok(());
        }
        let name =
            self.new.as_ref().and_then(|set| set.metadata.name.as_deref()).unwrap_or_default();
        let message = match reason {
            NEW_REPLICA_SET => format!("Created new replica set \"{name}\""),
            _ => format!("Found new replica set \"{name}\""),
        };
        self.set_condition(conditions::condition(PROGRESSING, "True", reason, message)).await
    }

    /// Deletes the oldest sets beyond the history limit, none that still has or wants pods.
    pub(super) async fn remove_old_revisions(&mut self) -> Result<(), SyncError> {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
            return Ok(());
        };
        let mut removable: Vec<_> = self
            .old
            .iter()
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .cloned()
            .collect();
        let excess = removable.len().saturating_sub(limit);
        removable.sort_by_key(|set| sets::revision(set));
        for set in removable.into_iter().take(excess) {
            let observed = set.status.as_ref().and_then(|status| status.observed_generation);
            if sets::actual(&set) != 0
                || sets::replicas(&set) != 0
                || set.metadata.generation > observed
            {
                continue;
            }
            let key = Key::of(&set.metadata);
            let only_this = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams::background().preconditions(only_this);
            match self.context.api::<ReplicaSet>(&key.namespace).delete(&key.name, &params).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(SyncError::api("delete", "ReplicaSet", &key)(error)),
            }
        }
        Ok(())
    }
}

/// The history with one more revision, the oldest dropped when it gets too long.
fn appended(history: &str, revision: &str) -> String {
    let mut revisions: Vec<_> = history.split(',').filter(|text| !text.is_empty()).collect();
    revisions.push(revision);
    let mut joined = revisions.join(",");
    while joined.len() > MAX_HISTORY_LENGTH && revisions.len() > 1 {
        revisions.remove(0);
        joined = revisions.join(",");
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_cut_at_its_front() {
        assert_eq!(appended("", "1"), "1");
        assert_eq!(appended("1,3", "5"), "1,3,5");
        let long = (1000..2000).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        let cut = appended(&long, "2000");
        assert!(cut.len() <= MAX_HISTORY_LENGTH && cut.ends_with(",1999,2000"), "{cut}");
    }
}
