//! Recreate: all old pods are gone before the first new one starts.

use super::{rollout::Rollout, sets, sets::wanted};
use crate::{
    error::SyncError,
    informer::Index,
    pods::{is_finished, uid},
    worker::Again,
};

impl Rollout<'_> {
    /// One step: down to nothing, then up.
    pub(super) async fn recreate(&mut self) -> Result<Again, SyncError> {
        self.find_sets_and_revision(false).await?;
        let mut shrunk = false;
        for set in self.old.clone() {
            if sets::replicas(&set) > 0 {
                shrunk |= self.scale(&set, 0).await?;
            }
        }
        if shrunk || self.old_pods_run() {
            return self.write_status().await;
        }
        if self.new.is_none() {
            self.find_sets_and_revision(true).await?;
        }
        if let Some(new) = self.new.clone() {
            let wanted = wanted(&self.deployment);
            if sets::replicas(&new) != wanted {
                self.scale(&new, wanted).await?;
            }
        }
        if self.is_complete() {
            self.remove_old_revisions().await?;
        }
        self.write_status().await
    }

    fn old_pods_run(&self) -> bool {
        self.old.iter().any(|set| {
            sets::actual(set) > 0
                || self
                    .context
                    .pods
                    .by(Index::Owner, uid(&set.metadata))
                    .iter()
                    .any(|pod| !is_finished(pod))
        })
    }
}
