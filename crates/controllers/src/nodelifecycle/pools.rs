//! How many nodes each pool has, and how many of them are silent, counted along with the changes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Readiness, pool, readiness};
use crate::{informer::Change, kinds::node::Node};

/// The nodes of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) total: usize,
    pub(super) silent: usize,
}

/// The nodes of each pool that has any.
#[derive(Debug, Default)]
pub(super) struct Censuses(Mutex<HashMap<Box<str>, Census>>);

impl Censuses {
    pub(super) fn of(&self, pool: &str) -> Census {
        self.pools().get(pool).copied().unwrap_or_default()
    }

    /// Counts a change. Each has to come by, in order.
    pub(super) fn observe(&self, change: &Change<Node>) {
        let place = |node: &'_ Node| (pool(node).to_owned(), readiness(node) != Readiness::Ready);
        let before = change.known.as_deref().map(place);
        let after = change.new.as_deref().map(place);
        if before == after {
            return;
        }
        let mut pools = self.pools();
        if let Some((pool, silent)) = before
            && let Some(census) = pools.get_mut(&*pool)
        {
            census.total = census.total.saturating_sub(1);
            census.silent = census.silent.saturating_sub(usize::from(silent));
            if census.total == 0 {
                pools.remove(&*pool);
            }
        }
        if let Some((pool, silent)) = after {
            let census = pools.entry(pool.into()).or_default();
            census.total += 1;
            census.silent += usize::from(silent);
        }
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<Box<str>, Census>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;
    use serde_json::json;

    use super::{super::POOL_LABEL, *};

    fn node(pool: u8, ready: &str) -> Arc<Node> {
        let labels = (pool > 0).then(|| json!({POOL_LABEL: format!("pool-{pool}")}));
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    proptest! {
        /// A node that is gone may leave with a state that was not told before.
        #[test]
        fn counts_equal_a_recount(
            changes in prop::collection::vec((0_u8..6, 0_u8..4, 0_usize..3, 0_u8..4), 1..200)
        ) {
            let censuses = Censuses::default();
            let mut nodes: BTreeMap<u8, Arc<Node>> = BTreeMap::new();
            for (name, pool, ready, action) in changes {
                let state = node(pool, ["True", "False", "Unknown"][ready]);
                let known = nodes.remove(&name);
                let change = if action == 0 {
                    Change { old: Some(state), new: None, known }
                } else {
                    nodes.insert(name, Arc::clone(&state));
                    Change { old: known.clone(), new: Some(state), known }
                };
                censuses.observe(&change);
                let mut naive: HashMap<Box<str>, Census> = HashMap::new();
                for node in nodes.values() {
                    let census = naive.entry(super::pool(node).into()).or_default();
                    census.total += 1;
                    census.silent += usize::from(readiness(node) != Readiness::Ready);
                }
                prop_assert_eq!(&*censuses.pools(), &naive);
            }
        }
    }
}
