//! What a stateful set does next about its pods, and what its status counts. Pure.
//!
//! Ordered sets do one thing at a time: pods are made from the lowest ordinal up, each after its
//! predecessors are available; deleted from the highest down; replaced from the highest down.
//! Parallel ones do all at once, but for updates.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::view::{View, is_running_and_ready, is_terminating, revision};
use crate::{
    kinds::pod::Pod,
    pods::{is_available, is_finished},
};

/// The revisions of the set, by name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revisions<'a> {
    /// What pods below the partition are of.
    pub(super) current: &'a str,
    /// What all others shall be of.
    pub(super) update: &'a str,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Make the pod of this ordinal, of the current or of the update revision.
    Create { ordinal: i32, current: bool },
    /// Delete a pod that has ended; it is made again once it is gone.
    Recreate(Arc<Pod>),
    /// See that the pod has its labels and its claims.
    Repair(Arc<Pod>, i32),
    /// Delete a pod that is not asked for any more.
    Condemn(Arc<Pod>),
    /// Delete a pod of another revision.
    Replace(Arc<Pod>),
}

/// The pods of a set in their places.
pub(super) struct Plan<'a> {
    view: &'a View<'a>,
    revisions: Revisions<'a>,
    now: Timestamp,
    replicas: BTreeMap<i32, Arc<Pod>>,
    /// Pods outside of the ordinals asked for.
    condemned: BTreeMap<i32, Arc<Pod>>,
}

/// The counts of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) replicas: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) current: i32,
    pub(super) updated: i32,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        view: &'a View<'a>,
        revisions: Revisions<'a>,
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> Self {
        let (mut replicas, mut condemned) = (BTreeMap::new(), BTreeMap::new());
        for pod in pods {
            let Some(ordinal) = view.ordinal(pod) else { continue };
            let wanted = (view.start..view.end()).contains(&ordinal);
            let place = if wanted { &mut replicas } else { &mut condemned };
            place.insert(ordinal, Arc::clone(pod));
        }
        Self { view, revisions, now, replicas, condemned }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for pod in self.replicas.values().chain(self.condemned.values()) {
            counts.replicas += 1;
            counts.ready += i32::from(is_running_and_ready(pod));
            counts.available += i32::from(self.is_available(pod));
            if !is_terminating(pod) {
                counts.current += i32::from(revision(pod) == self.revisions.current);
                counts.updated += i32::from(revision(pod) == self.revisions.update);
            }
        }
        counts
    }

    /// Whether all pods are of the update revision and ready, which makes it the current one.
    pub(super) fn is_rolled_out(&self) -> bool {
        let counts = self.counts();
        self.view.rolling
            && counts.updated == counts.replicas
            && counts.ready == counts.replicas
            && counts.replicas == self.view.replicas
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_running_and_ready(pod) && is_available(pod, self.view.min_ready, self.now)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        is_running_and_ready(pod) && !is_terminating(pod)
    }

    /// What to do now. What has to wait for the effects of that comes in a later plan.
    pub(super) fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        if !self.fill(&mut acts) || !self.shrink(&mut acts) {
            return acts;
        }
        if self.view.rolling {
            self.update(&mut acts);
        }
        acts
    }

    /// Sees that each ordinal has a pod; tells whether to go on.
    fn fill(&self, acts: &mut Vec<Act>) -> bool {
        let mut complete = true;
        for ordinal in self.view.start..self.view.end() {
            let (act, settled) = match self.replicas.get(&ordinal) {
                None => (Some(self.creation(ordinal)), false),
                Some(pod) if is_finished(pod) => {
                    let act = (!is_terminating(pod)).then(|| Act::Recreate(Arc::clone(pod)));
                    (act, false)
                }
                Some(pod) => {
                    let settled = !is_terminating(pod) && self.is_available(pod);
                    (Some(Act::Repair(Arc::clone(pod), ordinal)), settled)
                }
            };
            let ended = self.replicas.get(&ordinal).is_none_or(|pod| is_finished(pod));
            acts.extend(act);
            if self.view.ordered && !settled {
                return false;
            }
            complete &= !ended;
        }
        // A parallel set goes on while its pods start, but not while one of them has ended.
        complete || !self.view.ordered
    }

    fn creation(&self, ordinal: i32) -> Act {
        Act::Create { ordinal, current: self.view.rolling && ordinal < self.view.partition }
    }

    /// Deletes from the top what is not asked for; tells whether to go on.
    fn shrink(&self, acts: &mut Vec<Act>) -> bool {
        let all = self.replicas.iter().chain(&self.condemned);
        // One that has ended will never be healthy: nothing waits for it.
        let may_recover = |pod: &Pod| !self.is_healthy(pod) && !is_finished(pod);
        let first_unhealthy =
            all.filter(|(_, pod)| may_recover(pod)).map(|(ordinal, _)| *ordinal).min();
        for (ordinal, pod) in self.condemned.iter().rev() {
            if is_terminating(pod) {
                if self.view.ordered {
                    return false;
                }
                continue;
            }
            let waits =
                !self.is_available(pod) && !is_finished(pod) && first_unhealthy != Some(*ordinal);
            if self.view.ordered && waits {
                return false;
            }
            acts.push(Act::Condemn(Arc::clone(pod)));
            if self.view.ordered {
                return false;
            }
        }
        true
    }

    /// Deletes pods of other revisions from the top, as many as may be unavailable. One that is
    /// unavailable anyway costs nothing.
    fn update(&self, acts: &mut Vec<Act>) {
        let missing = usize::try_from(self.view.replicas).unwrap_or(0)
            - self.replicas.len().min(usize::try_from(self.view.replicas).unwrap_or(0));
        let down = |pod: &Arc<Pod>| is_terminating(pod) || !self.is_available(pod);
        let unavailable = self.replicas.values().filter(|pod| down(pod)).count() + missing;
        let budget = usize::try_from(self.view.max_unavailable).unwrap_or(1);
        let mut left = budget.saturating_sub(unavailable);
        for (_, pod) in self.replicas.range(self.view.partition..).rev() {
            if revision(pod) == self.revisions.update || is_terminating(pod) || is_finished(pod) {
                continue;
            }
            if self.is_available(pod) {
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            acts.push(Act::Replace(Arc::clone(pod)));
        }
    }
}
