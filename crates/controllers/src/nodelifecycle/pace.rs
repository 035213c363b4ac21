//! How fast the nodes of a pool may be emptied.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::config::EvictionConfig;

/// A silent pool that came back may still be settling: the clock of its evictions starts anew.
const SETTLING: Duration = Duration::from_secs(60);
/// How long a node that was admitted stays so: its pods become due one after the other.
const ADMITTED_FOR: Duration = Duration::from_secs(60);
/// Pools remembered; beyond it those that rest are forgotten.
const MAX_POOLS: usize = 10_000;

/// Whether a node may be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Now,
    Later,
    /// The whole pool is silent.
    Never,
}

#[derive(Default)]
struct Pool {
    next: Option<Instant>,
    admitted: HashMap<String, Instant>,
}

/// The pace of each pool.
pub(super) struct Pools {
    config: EvictionConfig,
    pools: HashMap<String, Pool>,
}

impl Pools {
    pub(super) fn new(config: EvictionConfig) -> Self {
        Self { config, pools: HashMap::new() }
    }

    /// Whether `node` may be emptied now, `silent` of its pool's `total` nodes being silent. A yes
    /// is spent.
    pub(super) fn admit(
        &mut self,
        pool: &str,
        node: &str,
        total: usize,
        silent: usize,
        now: Instant,
    ) -> Pace {
        if self.pools.len() >= MAX_POOLS {
            self.pools.retain(|_, pool| pool.next.is_some_and(|next| next > now));
        }
        let state = self.pools.entry(pool.to_owned()).or_default();
        if total > 1 && silent >= total {
            state.next = Some(now + SETTLING);
            state.admitted.clear();
            return Pace::Never;
        }
        state.admitted.retain(|_, until| *until > now);
        if state.admitted.contains_key(node) {
            return Pace::Now;
        }
        let Some(pause) = EvictionConfig::pause(rate(&self.config, total, silent)) else {
            return Pace::Later;
        };
        if state.next.is_some_and(|next| next > now) {
            return Pace::Later;
        }
        state.next = Some(now + pause);
        state.admitted.insert(node.to_owned(), now + ADMITTED_FOR);
        Pace::Now
    }
}

/// Kubernetes' rule: partly disrupted from a share of the nodes and more than two of them.
fn rate(config: &EvictionConfig, total: usize, silent: usize) -> f64 {
    let share = silent as f64 / total.max(1) as f64;
    if silent <= 2 || share < config.disrupted_share {
        config.nodes_per_second
    } else if total > config.small_pool_nodes {
        config.disrupted_nodes_per_second
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_depends_on_the_pool() {
        let mut pools = Pools::new(EvictionConfig::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pools.admit("a", "n1", 10, 2, start), Pace::Now);
        assert_eq!(pools.admit("a", "n1", 10, 2, at(1)), Pace::Now, "its other pods follow");
        assert_eq!(pools.admit("a", "n2", 10, 2, at(9)), Pace::Later);
        assert_eq!(pools.admit("b", "n3", 10, 1, at(9)), Pace::Now, "pools are independent");
        assert_eq!(pools.admit("a", "n2", 10, 2, at(10)), Pace::Now);
        assert_eq!(pools.admit("a", "n4", 10, 6, at(60)), Pace::Later, "small and disrupted: stop");
        assert_eq!(pools.admit("a", "n4", 10, 10, at(60)), Pace::Never);
        assert_eq!(pools.admit("a", "n4", 10, 1, at(61)), Pace::Later, "settles first");
        assert_eq!(pools.admit("a", "n4", 10, 1, at(121)), Pace::Now);
        assert_eq!(pools.admit("big", "n1", 100, 60, start), Pace::Now);
        assert_eq!(pools.admit("big", "n2", 100, 60, at(99)), Pace::Later);
        assert_eq!(pools.admit("big", "n2", 100, 60, at(100)), Pace::Now);
        assert_eq!(pools.admit("single", "n1", 1, 1, start), Pace::Now, "alone it is no pool");
    }
}
