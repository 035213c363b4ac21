//! Order statistics of a set of durations.

use std::time::Duration;

/// Durations, sorted.
pub(crate) struct Percentiles(Vec<Duration>);

impl Percentiles {
    pub(crate) fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort();
        Self(durations)
    }

    /// The smallest duration that `percent` of all do not exceed (nearest rank).
    pub(crate) fn at(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let set = Percentiles::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(set.at(50), Duration::from_millis(50));
        assert_eq!(set.at(99), Duration::from_millis(99));
        assert_eq!(set.at(100), Duration::from_millis(100));
        assert_eq!(Percentiles::of(vec![]).at(99), Duration::ZERO);
    }
}
