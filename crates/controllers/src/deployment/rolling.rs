//! RollingUpdate: the new set grows and the old ones shrink within the limits, step by step.

use std::sync::Arc;

use super::{
    arithmetic::{OldSet, shrink_old},
    rollout::Rollout,
    sets::{self, limits, wanted},
};
use crate::{error::SyncError, worker::Again};

impl Rollout<'_> {
    /// One step of a rolling update: either up or down, then the status.
    pub(super) async fn roll(&mut self) -> Result<Again, SyncError> {
        self.find_sets_and_revision(true).await?;
        if !self.grow_new().await? && !self.shrink_old().await? && self.is_complete() {
            self.remove_old_revisions().await?;
        }
        self.write_status().await
    }

    /// Brings the new set towards the wanted number.
    pub(super) async fn grow_new(&mut self) -> Result<bool, SyncError> {
        let Some(new) = self.new.clone() else { return Ok(false) };
        let (wanted, size) = (wanted(&self.deployment), sets::replicas(&new));
        let target = if size > wanted {
            wanted
        } else {
            limits(&self.deployment).grown(self.sum(sets::replicas), size)
        };
        if target == size { Ok(false) } else { self.scale(&new, target).await }
    }

    async fn shrink_old(&mut self) -> Result<bool, SyncError> {
        let Some(new) = self.new.clone() else { return Ok(false) };
        let active: Vec<Arc<_>> =
            self.old.iter().filter(|set| sets::replicas(set) > 0).cloned().collect();
        let numbers: Vec<_> = active
            .iter()
            .map(|set| OldSet { replicas: sets::replicas(set), available: sets::available(set) })
            .collect();
        let limits = limits(&self.deployment);
        let sizes = shrink_old(limits, &numbers, sets::replicas(&new), sets::available(&new));
        let mut shrunk = false;
        for (set, size) in active.iter().zip(sizes) {
            if size != sets::replicas(set) {
                shrunk |= self.scale(set, size).await?;
            }
        }
        Ok(shrunk)
    }
}
