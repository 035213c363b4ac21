//! Which pools get a workload, and with which tweaks. Pure.

use std::collections::BTreeMap;

use super::app::{App, Reach, Tweak};

/// The pools that there are, by name, with their labels.
pub(super) type Pools = BTreeMap<String, BTreeMap<String, String>>;

/// The pools of a set, and what it names in vain.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// By pool, the places of its tweaks in the set's list.
    pub(super) tweaks: BTreeMap<String, Vec<usize>>,
    /// Pools that the set names and that are not there.
    pub(super) missing: Vec<String>,
    /// What tweaks name that is not there, or is not among the set's pools.
    pub(super) idle: Vec<String>,
    /// Whether some tweak names a pool that is not there.
    pub(super) tweaks_miss: bool,
}

impl Choice {
    pub(super) fn new(app: &App, pools: &Pools) -> Self {
        let chosen = pools.iter().filter(|(pool, labels)| app.reach.includes(pool, labels));
        let tweaks = chosen.map(|(pool, labels)| (pool.clone(), tweaks_of(app, pool, labels)));
        let mut choice = Self {
            tweaks: tweaks.collect(),
            missing: absent(&app.reach, pools),
            ..Self::default()
        };
        for (place, tweak) in app.tweaks.iter().enumerate() {
            choice.look_at(place + 1, tweak, pools);
        }
        choice
    }

    fn look_at(&mut self, number: usize, tweak: &Tweak, pools: &Pools) {
        for pool in &tweak.reach.names {
            if !pools.contains_key(pool) {
                self.tweaks_miss = true;
                self.idle.push(format!("tweak {number} names pool {pool}, which is not there"));
            } else if !self.tweaks.contains_key(pool) {
                self.idle
                    .push(format!("tweak {number} names pool {pool}, which is not of this set"));
            }
        }
    }
}

/// The places of the tweaks that reach a pool.
pub(super) fn tweaks_of(app: &App, pool: &str, labels: &BTreeMap<String, String>) -> Vec<usize> {
    let all = app.tweaks.iter().enumerate();
    all.filter(|(_, tweak)| tweak.reach.includes(pool, labels)).map(|(place, _)| place).collect()
}

fn absent(reach: &Reach, pools: &Pools) -> Vec<String> {
    reach.names.iter().filter(|name| !pools.contains_key(*name)).cloned().collect()
}
