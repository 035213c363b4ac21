//! How long a job waits before it makes another pod after failures.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::facts::finished_at;
use crate::kinds::pod::Pod;

/// The pause after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// Doublings after which the pause is the longest anyway.
const MAX_DOUBLINGS: i32 = 6;

/// A job's failures since its last success. Kept in memory: after a restart a job starts afresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    failures: i32,
    last: Option<Timestamp>,
}

impl Record {
    /// The record once these pods are counted too.
    pub(super) fn with(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let last_success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let counts = |at: &Timestamp| last_success.is_none_or(|success| *at > success);
        let failures: Vec<_> = failed.iter().map(|pod| finished_at(pod)).filter(counts).collect();
        let before = if last_success.is_some() { Self::default() } else { self };
        Self {
            failures: before
                .failures
                .saturating_add(i32::try_from(failures.len()).unwrap_or(i32::MAX)),
            last: failures.into_iter().max().or(before.last),
        }
    }

    /// How long to wait from now on.
    pub(super) fn remaining(self, now: Timestamp) -> Duration {
        self.last.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// What is left of the pause after so many failures, the last of them then.
pub(super) fn remaining(failures: i32, last: Timestamp, now: Timestamp) -> Duration {
    if failures <= 0 {
        return Duration::ZERO;
    }
    let doublings = (failures - 1).min(MAX_DOUBLINGS).unsigned_abs();
    let pause = (FIRST * 2_u32.pow(doublings)).min(LONGEST);
    let elapsed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    pause.saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(finished: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {}, "status": {"containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": finished}}}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn pauses_double_and_end() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let seconds: Vec<_> =
            (0..9).map(|failures| remaining(failures, now, now).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 320, 600, 600]);
        let earlier = "2025-12-31T23:59:53Z".parse().unwrap();
        assert_eq!(remaining(1, earlier, now).as_secs(), 3);
        assert_eq!(remaining(1, now, earlier).as_secs(), 10, "a clock that was set back");
    }

    #[test]
    fn a_success_forgives_what_failed_before_it() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (early, late) = (pod("2025-12-31T23:59:58Z"), pod("2026-01-01T00:00:00Z"));
        let two = Record::default().with(&[], &[Arc::clone(&early), Arc::clone(&late)]);
        assert_eq!(two.remaining(now).as_secs(), 20);
        assert_eq!(two.with(&[], &[Arc::clone(&late)]).remaining(now).as_secs(), 40);
        assert_eq!(two.with(&[Arc::clone(&late)], &[Arc::clone(&early)]), Record::default());
        let after = two.with(&[early], &[late]);
        assert_eq!(after.remaining(now).as_secs(), 10);
        assert_eq!(two.with(&[], &[]), two);
    }
}
