//! How long to wait before trying again over a network.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The delay of the first retry, before jitter.
const FIRST: Duration = Duration::from_secs(1);
/// The longest delay, before jitter: a link that comes back is found within a minute, and a
/// heartbeat's answer ends the wait sooner.
const LONGEST: Duration = Duration::from_secs(60);

/// After a failure a node that is a member waits to be asked by the cloud, and no longer than this. It is there
/// for a cloud that forgets to ask: a million nodes that all waited for it would be 2,000 a second.
const UNASKED: Duration = Duration::from_secs(600);

/// Exponential with full jitter: a site of many nodes whose link returns does not arrive at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retry {
    failures: u32,
}

impl Retry {
    /// The delay before the next try.
    pub(crate) fn delay(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        jittered(ceiling)
    }
}

/// How long to wait to be asked before trying unasked.
pub(crate) fn unasked() -> Duration {
    UNASKED / 2 + jittered(UNASKED / 2)
}

/// Uniform between zero and `ceiling`.
pub(crate) fn jittered(ceiling: Duration) -> Duration {
    ceiling.mul_f64(f64::from(random_u32()) / f64::from(u32::MAX))
}

/// Not for secrets: the standard library's per-process keys, hashed anew each time.
pub(crate) fn random_u32() -> u32 {
    let hash = RandomState::new().hash_one(std::time::Instant::now());
    u32::try_from(hash >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_minute() {
        let mut retry = Retry::default();
        for failures in 0..40 {
            let ceiling = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
            assert!(retry.delay() <= ceiling);
        }
        let spread: Vec<_> = (0..50).map(|_| jittered(LONGEST)).collect();
        assert!(
            spread.iter().any(|it| *it < LONGEST / 2) && spread.iter().any(|it| *it > LONGEST / 2)
        );
    }
}
