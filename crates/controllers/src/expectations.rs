//! What a controller has asked for and not yet seen: until then its cache lies about how many pods
//! there are, and it must not count them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::key::Key;

/// After this an unseen change is given up on: something else must have undone it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

struct Expected {
    creations: usize,
    deletions: HashSet<Key>,
    since: Instant,
}

/// By owner, what is still to be seen.
#[derive(Default)]
pub(crate) struct Expectations {
    owners: Mutex<HashMap<Key, Expected>>,
}

impl Expectations {
    fn owners(&self) -> MutexGuard<'_, HashMap<Key, Expected>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self, owner: &Key, with: impl FnOnce(&mut Expected)) {
        let mut owners = self.owners();
        let expected = owners.entry(owner.clone()).or_insert_with(|| Expected {
            creations: 0,
            deletions: HashSet::new(),
            since: Instant::now(),
        });
        expected.since = Instant::now();
        with(expected);
    }

    /// `count` creations are about to be asked for.
    pub(crate) fn expect_creations(&self, owner: &Key, count: usize) {
        self.raise(owner, |expected| expected.creations += count);
    }

    /// These deletions are about to be asked for.
    pub(crate) fn expect_deletions(&self, owner: &Key, pods: impl IntoIterator<Item = Key>) {
        self.raise(owner, |expected| expected.deletions.extend(pods));
    }

    /// A creation was seen, or was refused.
    pub(crate) fn creation_observed(&self, owner: &Key) {
        if let Some(expected) = self.owners().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// A deletion was seen, or was refused.
    pub(crate) fn deletion_observed(&self, owner: &Key, pod: &Key) {
        if let Some(expected) = self.owners().get_mut(owner) {
            expected.deletions.remove(pod);
        }
    }

    /// Whether the cache shows all that was asked for.
    pub(crate) fn satisfied(&self, owner: &Key) -> bool {
        let mut owners = self.owners();
        let Some(expected) = owners.get(owner) else { return true };
        let seen = expected.creations == 0 && expected.deletions.is_empty();
        let satisfied = seen || expected.since.elapsed() > FORGOTTEN_AFTER;
        if satisfied {
            owners.remove(owner);
        }
        satisfied
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.owners().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn unseen_changes_hold_back_until_seen_or_forgotten() {
        let expectations = Expectations::default();
        let (owner, pod) = (Key::new("ns", "rs"), Key::new("ns", "pod"));
        assert!(expectations.satisfied(&owner));
        expectations.expect_creations(&owner, 2);
        expectations.expect_deletions(&owner, [pod.clone()]);
        expectations.creation_observed(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.deletion_observed(&owner, &pod);
        assert!(expectations.satisfied(&owner));
        expectations.expect_creations(&owner, 1);
        tokio::time::advance(FORGOTTEN_AFTER + Duration::from_secs(1)).await;
        assert!(expectations.satisfied(&owner));
    }
}
