//! Slots: how many nodes a second are asked for what costs them, and this server, a TLS handshake.
//!
//! No node does any of it because the server was away, or because it started anew: it is asked, in a reply or
//! by a poke, and who is not asked now is asked with a later heartbeat. So a region that comes back, or an
//! upgrade of everything, takes as long as it takes and disturbs nobody else. One core makes some 1,100
//! handshakes a second (docs/benchmarks.md).

use std::time::Duration;

/// Nodes cued a second to fetch what changed: above what desired state is expected to change, 1,000 a second.
const FETCHES_PER_SECOND: u32 = 2_000;
/// Nodes asked a second to compare their bundles: after a restart that some deletions did not wait for.
const COMPARES_PER_SECOND: u32 = 1_000;
/// Nodes asked a second for a full report, which is also some writes.
const REPORTS_PER_SECOND: u32 = 500;
/// Nodes of an older epoch told a second to fetch a new key: a million take over an hour, of seven days.
const REKEYS_PER_SECOND: u32 = 250;
/// Slots that nobody took are kept for so long: changes come in bursts, and need not wait for that.
const KEPT: Duration = Duration::from_millis(500);

/// All of them.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) fetches: Rate,
    pub(crate) compares: Rate,
    pub(crate) reports: Rate,
    pub(crate) rekeys: Rate,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            fetches: Rate::per_second(FETCHES_PER_SECOND),
            compares: Rate::per_second(COMPARES_PER_SECOND),
            reports: Rate::per_second(REPORTS_PER_SECOND),
            rekeys: Rate::per_second(REKEYS_PER_SECOND),
        }
    }
}

/// Slots of one kind, evenly spaced.
#[derive(Debug)]
pub(crate) struct Rate {
    each: Duration,
    /// When the next slot is.
    next: Duration,
}

impl Rate {
    fn per_second(slots: u32) -> Self {
        Self { each: Duration::from_secs(1) / slots.max(1), next: Duration::ZERO }
    }

    /// Takes a slot, if there is one now.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let next = self.next.max(now.saturating_sub(KEPT));
        let may = next <= now;
        if may {
            self.next = next + self.each;
        }
        may
    }

    /// How long it is until there is one.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_many_are_asked_a_second_and_a_burst_is_no_more() {
        let mut rate = Rate::per_second(1_000);
        let mut taken = 0;
        for millis in 0..10_000_u64 {
            let now = Duration::from_millis(60_000 + millis);
            taken += (0..5).filter(|_| rate.take(now)).count();
        }
        assert!((10_000..=10_501).contains(&taken), "{taken}");
        let later = Duration::from_secs(3_600);
        assert_eq!((0..5_000).filter(|_| rate.take(later)).count(), 501);
        assert_eq!(rate.wait(later), Duration::from_millis(1));
        assert!(!rate.take(later) && rate.take(later + rate.wait(later)));
    }
}
