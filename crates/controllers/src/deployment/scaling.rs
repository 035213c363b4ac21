//! A deployment whose wanted number changes, also in the middle of a rollout: every active set
//! gets its share.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{
    arithmetic::{Share, proportional},
    rollout::Rollout,
    sets::{self, DESIRED_REPLICAS, MAX_REPLICAS, is_recreate, limits, wanted},
};
use crate::{error::SyncError, pods::created};

impl Rollout<'_> {
    /// Scales the sets without rolling on; makes no new set.
    pub(super) async fn scale_proportionally(&mut self) -> Result<(), SyncError> {
        self.find_sets_and_revision(false).await?;
        let wanted = wanted(&self.deployment);
        if let Some(only) = self.active_or_latest() {
            if sets::replicas(&only) != wanted
                || sets::number(&only, DESIRED_REPLICAS) != Some(wanted)
            {
                self.scale(&only, wanted).await?;
            }
            return Ok(());
        }
        if self.is_saturated() {
            for set in self.old.clone() {
                if sets::replicas(&set) > 0 {
                    self.scale(&set, 0).await?;
                }
            }
            return Ok(());
        }
        if !is_recreate(&self.deployment) {
            self.share_out().await?;
        }
        Ok(())
    }

    async fn share_out(&mut self) -> Result<(), SyncError> {
        let limits = limits(&self.deployment);
        let mut active: Vec<_> =
            self.sets().filter(|set| sets::replicas(set) > 0).cloned().collect();
        let grows = limits.most() > active.iter().map(|set| sets::replicas(set)).sum();
        active.sort_by_key(|set| (sets::replicas(set), created(&set.metadata)));
        if grows {
            active.reverse();
        } else {
            active.sort_by_key(|set| (Reverse(sets::replicas(set)), created(&set.metadata)));
        }
        let actual =
            self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let shares: Vec<_> = active
            .iter()
            .map(|set| Share {
                replicas: sets::replicas(set),
                most_before: sets::number(set, MAX_REPLICAS).unwrap_or(actual),
            })
            .collect();
        for (set, size) in active.iter().zip(proportional(limits, &shares)) {
            self.scale(set, size).await?;
        }
        Ok(())
    }

    /// The one set to scale when no rollout is under way.
    fn active_or_latest(&self) -> Option<Arc<ReplicaSet>> {
        let mut active = self.sets().filter(|set| sets::replicas(set) > 0);
        match (active.next(), active.next()) {
            (Some(only), None) => Some(Arc::clone(only)),
            (None, _) => self.new.clone().or_else(|| self.old.last().cloned()),
            _ => None,
        }
    }

    /// The new set alone already serves what is wanted.
    fn is_saturated(&self) -> bool {
        let wanted = wanted(&self.deployment);
        self.new.as_ref().is_some_and(|new| {
            sets::number(new, DESIRED_REPLICAS) == Some(wanted)
                && sets::replicas(new) == wanted
                && sets::available(new) == wanted
        })
    }
}
