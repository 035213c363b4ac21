//! The arithmetic of rollouts, without any object: how many replicas each set gets.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The wanted number and how far a rollout may deviate from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) wanted: i32,
    pub(crate) max_surge: i32,
    pub(crate) max_unavailable: i32,
}

/// A number or a percentage of `total`.
pub(crate) fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 =
                text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total));
            let rounded = if round_up {
                product.saturating_add(99).div_euclid(100)
            } else {
                product.div_euclid(100)
            };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

impl Limits {
    /// No deviation upwards, none counted downwards.
    pub(crate) fn none(wanted: i32) -> Self {
        Self { wanted, max_surge: 0, max_unavailable: 0 }
    }

    /// The surge is rounded up, the unavailability down; both zero would be a standstill, so then
    /// one may be unavailable.
    pub(crate) fn resolve(wanted: i32, surge: &IntOrString, unavailable: &IntOrString) -> Self {
        let max_surge = resolve(surge, wanted, true).max(0);
        let mut max_unavailable = resolve(unavailable, wanted, false).max(0);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self { wanted, max_surge, max_unavailable: max_unavailable.min(wanted) }
    }

    /// The most replicas there may be.
    pub(crate) fn most(&self) -> i32 {
        self.wanted.saturating_add(self.max_surge)
    }

    /// The fewest available there must be.
    pub(crate) fn fewest(&self) -> i32 {
        self.wanted - self.max_unavailable
    }

    /// What the new set grows to when `total` replicas exist in all sets, `new` of them in it.
    pub(crate) fn grown(&self, total: i32, new: i32) -> i32 {
        let room = self.most() - total;
        if room <= 0 { new } else { new + room.min(self.wanted - new) }
    }
}

/// An old replica set's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OldSet {
    pub(crate) replicas: i32,
    pub(crate) available: i32,
}

/// How the old sets, oldest first, shrink beside a new set of `new_replicas`, of which
/// `new_available` are available. Replicas that are not available go first: they serve nobody.
pub(crate) fn shrink_old(
    limits: Limits,
    old: &[OldSet],
    new_replicas: i32,
    new_available: i32,
) -> Vec<i32> {
    let total: i32 = old.iter().map(|set| set.replicas).sum::<i32>() + new_replicas;
    let mut sizes: Vec<_> = old.iter().map(|set| set.replicas).collect();
    let mut budget = total - limits.fewest() - (new_replicas - new_available);
    if budget <= 0 {
        return sizes;
    }
    for (size, set) in sizes.iter_mut().zip(old) {
        let unhealthy = (*size - set.available).max(0).min(budget);
        *size -= unhealthy;
        budget -= unhealthy;
    }
    let available: i32 = old.iter().map(|set| set.available).sum::<i32>() + new_available;
    let mut budget = available - limits.fewest();
    for size in &mut sizes {
        let down = (*size).min(budget).max(0);
        *size -= down;
        budget -= down;
    }
    sizes
}

/// An active replica set's numbers while the deployment is scaled in the middle of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) replicas: i32,
    /// The most replicas of the deployment when this set was last sized.
    pub(crate) most_before: i32,
}

/// New sizes in proportion to the old ones. `sets` come in the order of preference: the largest
/// first, among equals the newest when growing and the oldest when shrinking. The first takes
/// what rounding leaves over.
pub(crate) fn proportional(limits: Limits, sets: &[Share]) -> Vec<i32> {
    let total: i32 = sets.iter().map(|set| set.replicas).sum();
    let allowed = if limits.wanted > 0 { limits.most() } else { 0 };
    let to_add = allowed - total;
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in sets {
        let share = share(limits, *set, to_add, added);
        added += share;
        sizes.push(set.replicas + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

fn share(limits: Limits, set: Share, to_add: i32, added: i32) -> i32 {
    if set.replicas == 0 || to_add == added {
        return 0;
    }
    let fraction = if limits.wanted == 0 {
        -set.replicas
    } else {
        let before = f64::from(set.most_before.max(1));
        let size = f64::from(set.replicas) * f64::from(limits.most()) / before;
        size.round() as i32 - set.replicas
    };
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(text: &str) -> IntOrString {
        IntOrString::String(text.to_owned())
    }

    #[test]
    fn percentages_round_as_in_kubernetes() {
        let limits = Limits::resolve(10, &percent("25%"), &percent("25%"));
        assert_eq!((limits.max_surge, limits.max_unavailable), (3, 2));
        let limits = Limits::resolve(1, &percent("25%"), &percent("25%"));
        assert_eq!((limits.max_surge, limits.max_unavailable), (1, 0));
        let limits = Limits::resolve(10, &IntOrString::Int(0), &percent("1%"));
        assert_eq!((limits.max_surge, limits.max_unavailable), (0, 1));
        assert_eq!(
            Limits::resolve(2, &IntOrString::Int(0), &IntOrString::Int(5)).max_unavailable,
            2
        );
    }

    #[test]
    fn the_new_set_grows_into_the_room() {
        let limits = Limits { wanted: 10, max_surge: 3, max_unavailable: 2 };
        assert_eq!(limits.grown(10, 0), 3);
        assert_eq!(limits.grown(13, 3), 3);
        assert_eq!(limits.grown(11, 5), 7);
        assert_eq!(limits.grown(2, 0), 10);
    }

    #[test]
    fn proportional_scaling_as_documented() {
        // The example of Kubernetes' page on deployments: 10 → 15 with maxSurge 3 in a stuck
        // rollout of 8 old and 5 new replicas gives 11 old and 7 new.
        let limits = Limits { wanted: 15, max_surge: 3, max_unavailable: 2 };
        let sets = [Share { replicas: 8, most_before: 13 }, Share { replicas: 5, most_before: 13 }];
        assert_eq!(proportional(limits, &sets), [11, 7]);
        let limits = Limits { wanted: 0, ..limits };
        assert_eq!(proportional(limits, &sets), [0, 0]);
    }

    proptest! {
        /// A rollout of any shape never has too many or too few replicas and always ends.
        #[test]
        fn a_rollout_keeps_its_limits_and_ends(
            wanted in 1..40_i32,
            surge in 0..10_i32,
            unavailable in 0..10_i32,
            start in 1..40_i32,
            healthy in proptest::collection::vec(any::<bool>(), 1..200),
        ) {
            let limits = Limits::resolve(wanted, &IntOrString::Int(surge), &IntOrString::Int(unavailable));
            let mut old = [OldSet { replicas: start.min(limits.most()), available: start.min(limits.most()) }];
            let (mut new, mut new_available) = (0, 0);
            let mut steps = 0;
            while old[0].replicas > 0 || new != wanted || new_available != wanted {
                let before = old[0].available + new_available;
                new = limits.grown(old[0].replicas + new, new).max(new);
                prop_assert!(old[0].replicas + new <= limits.most().max(old[0].replicas));
                let sizes = shrink_old(limits, &old, new, new_available);
                old[0].replicas = sizes[0];
                old[0].available = old[0].available.min(sizes[0]);
                prop_assert!(old[0].available + new_available >= limits.fewest().min(before));
                // Some of the new pods become available; in the end all do.
                let gained = if *healthy.get(steps).unwrap_or(&true) { 1 } else { 0 };
                new_available = (new_available + gained).min(new);
                steps += 1;
                prop_assert!(steps < 1000, "no progress: old {:?} new {new}/{new_available}", old);
            }
        }

        #[test]
        fn proportional_scaling_adds_up(
            wanted in 0..100_i32,
            surge in 0..20_i32,
            replicas in proptest::collection::vec(1..50_i32, 1..6),
        ) {
            let limits = Limits { wanted, max_surge: surge, max_unavailable: 0 };
            let total: i32 = replicas.iter().sum();
            let mut sets: Vec<_> =
                replicas.iter().map(|replicas| Share { replicas: *replicas, most_before: total }).collect();
            sets.sort_by_key(|set| -set.replicas);
            let sizes = proportional(limits, &sets);
            prop_assert!(sizes.iter().all(|size| *size >= 0));
            let allowed = if wanted == 0 { 0 } else { wanted + surge };
            prop_assert_eq!(sizes.iter().sum::<i32>(), allowed);
        }
    }
}
