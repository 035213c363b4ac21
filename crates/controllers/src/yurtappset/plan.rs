//! Which workloads to make, to keep and to delete. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{app::Kind, live::Live};
use crate::{
    names,
    object::{Claimable, Metadata},
};

/// Longest name of a workload: the names and labels of a StatefulSet's pods and revisions add up to eleven
/// characters to it, and none may have more than 63.
const MAX_NAME_LENGTH: usize = 52;

/// What there is to do about a set's workloads.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Pools without a workload.
    pub(super) create: Vec<String>,
    /// By pool, the workload that it has and keeps.
    pub(super) keep: BTreeMap<String, Live>,
    /// Workloads that no pool is to have.
    pub(super) delete: Vec<Live>,
    /// Pools whose workload is being deleted by somebody: a new one follows when it is gone.
    pub(super) leaving: BTreeSet<String>,
}

impl Plan {
    /// `workloads` are all that the set owns, of both kinds.
    pub(super) fn new<'a>(
        pools: impl IntoIterator<Item = &'a str>,
        kind: Kind,
        mut workloads: Vec<Live>,
    ) -> Self {
        let mut plan = Self::default();
        let pools: BTreeSet<&str> = pools.into_iter().collect();
        // Of several the one that was there first stays.
        workloads.sort_by(|a, b| age(a).cmp(&age(b)));
        for live in workloads {
            let pool = live.pool().map(str::to_owned);
            let pool = pool.filter(|pool| live.kind() == kind && pools.contains(pool.as_str()));
            match pool {
                _ if live.metadata().is_leaving() => plan.leaving.extend(pool),
                Some(pool) if !plan.keep.contains_key(&pool) => {
                    plan.keep.insert(pool, live);
                }
                _ => plan.delete.push(live),
            }
        }
        plan.leaving.retain(|pool| !plan.keep.contains_key(pool));
        let there = |pool: &str| plan.keep.contains_key(pool) || plan.leaving.contains(pool);
        plan.create = pools.into_iter().filter(|pool| !there(pool)).map(str::to_owned).collect();
        plan
    }
}

fn age(live: &Live) -> (Option<jiff::Timestamp>, &str) {
    (live.metadata().created(), live.metadata().name())
}

/// The name of a pool's workload: always the same, so that a request whose answer was lost makes no second one.
/// `taken` counts names before it that others have.
pub(super) fn name(set: &str, uid: &str, pool: &str, taken: u32) -> String {
    let suffix = names::hashed(&[uid, pool, &taken.to_string()]);
    let room = MAX_NAME_LENGTH - suffix.len() - 1;
    let prefix = format!("{set}-{pool}");
    let prefix = prefix.get(..room).unwrap_or(&prefix).trim_end_matches(['-', '.']);
    format!("{prefix}-{suffix}")
}
