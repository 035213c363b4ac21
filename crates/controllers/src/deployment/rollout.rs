//! One deployment being worked on: its replica sets, told apart into the new and the old ones, and
//! the writes that scale them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::{
    COMPONENT,
    sets::{self, DESIRED_REPLICAS, MAX_REPLICAS, by_creation, find_new, limits, wanted},
};
use crate::{context::Context, error::SyncError, key::Key, patch, recorder::Severity};

/// A deployment and its replica sets.
pub(super) struct Rollout<'a> {
    pub(super) context: &'a Context,
    pub(super) key: Key,
    pub(super) deployment: Deployment,
    all: Vec<Arc<ReplicaSet>>,
    /// The set of the deployment's present template, once it was found or made.
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// The others, oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(
        context: &'a Context,
        deployment: Deployment,
        all: Vec<Arc<ReplicaSet>>,
    ) -> Self {
        let key = Key::of(&deployment.metadata);
        Self { context, key, deployment, all, new: None, old: Vec::new() }
    }

    /// Tells the new set from the old ones.
    pub(super) fn find_sets(&mut self) {
        self.new = find_new(&self.deployment, &self.all);
        let new_name = self.new.as_ref().and_then(|set| set.metadata.name.clone());
        self.old = self.all.iter().filter(|set| set.metadata.name != new_name).cloned().collect();
        self.old.sort_by(|a, b| by_creation(a, b));
    }

    /// All sets: the old ones, oldest first, then the new one.
    pub(super) fn sets(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    pub(super) fn sum(&self, of: fn(&ReplicaSet) -> i32) -> i32 {
        self.sets().map(|set| of(set)).sum()
    }

    /// The wanted number changed since the sets were last sized.
    pub(super) fn is_scaling(&self) -> bool {
        let wanted = wanted(&self.deployment);
        self.all.iter().any(|set| {
            sets::replicas(set) > 0
                && sets::number(set, DESIRED_REPLICAS).is_some_and(|known| known != wanted)
        })
    }

    /// Scales a set and tells so; says whether its size changed.
    pub(super) async fn scale(
        &mut self,
        set: &Arc<ReplicaSet>,
        size: i32,
    ) -> Result<bool, SyncError> {
        let before = sets::replicas(set);
        let annotations = self.size_annotations();
        let annotated =
            annotations.iter().all(|(name, value)| sets::annotation(set, name) == Some(value));
        if before == size && annotated {
            return Ok(false);
        }
        let change = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": size}});
        self.patch_set(set, change).await?;
        if before != size {
            let direction = if before < size { "up" } else { "down" };
            let name = set.metadata.name.as_deref().unwrap_or_default();
            self.tell(
                Severity::Normal,
                format!("Scaled {direction} replica set {name} from {before} to {size}"),
            );
        }
        Ok(before != size)
    }

    /// The annotations that remember for what size of the deployment a set was sized.
    pub(super) fn size_annotations(&self) -> BTreeMap<String, String> {
        let wanted = wanted(&self.deployment);
        let most = limits(&self.deployment).most();
        [(DESIRED_REPLICAS, wanted), (MAX_REPLICAS, most)]
            .map(|(name, number)| (name.to_owned(), number.to_string()))
            .into()
    }

    /// Patches a set on top of what was read and takes over the answer.
    pub(super) async fn patch_set(
        &mut self,
        set: &Arc<ReplicaSet>,
        change: Value,
    ) -> Result<(), SyncError> {
        let key = Key::of(&set.metadata);
        let api = self.context.api::<ReplicaSet>(&key.namespace);
        let changed = patch::merge(&api, &key.name, &patch::on_top_of(&**set, change))
            .await
            .map_err(SyncError::api("update", "ReplicaSet", &key))?;
        self.take_over(changed);
        Ok(())
    }

    /// Puts a written set in the place of the one that was read.
    pub(super) fn take_over(&mut self, changed: ReplicaSet) {
        let changed = Arc::new(changed);
        let same = |set: &Arc<ReplicaSet>| set.metadata.name == changed.metadata.name;
        for set in self.all.iter_mut().chain(&mut self.old).chain(&mut self.new) {
            if same(set) {
                *set = Arc::clone(&changed);
            }
        }
    }

    /// Takes over the new set that was just made.
    pub(super) fn made(&mut self, set: ReplicaSet) {
        let set = Arc::new(set);
        self.all.push(Arc::clone(&set));
        self.new = Some(set);
    }

    pub(super) fn tell(&self, severity: Severity, message: String) {
        self.context.recorder.record(
            COMPONENT,
            &self.deployment,
            severity,
            "ScalingReplicaSet",
            message,
        );
    }
}
