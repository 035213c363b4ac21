//! From readings of counters, which nobody takes but who asks, to rates over a sensible window.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A rate over less than this says little: a metrics-server asks each 15 s.
const LEAST_WINDOW: Duration = Duration::from_secs(10);

/// Processor time in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Billionths of a core.
    pub(crate) nano_cores: u64,
    pub(crate) window: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    nanos: u64,
}

/// Two earlier readings of each group: the last, and the one before that, at least a window earlier.
#[derive(Debug)]
struct Earlier {
    before: Option<Reading>,
    last: Reading,
    asked: Instant,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Rates(HashMap<PathBuf, Earlier>);

impl Rates {
    /// The rate since an earlier question that is a window ago or more; before there was one, since the group's
    /// start, which was `age` ago.
    pub(crate) fn of(
        &mut self,
        group: &Path,
        now: Instant,
        nanos: u64,
        age: Option<Duration>,
    ) -> Option<Rate> {
        let reading = Reading { at: now, nanos };
        let first = Earlier { before: None, last: reading, asked: now };
        let earlier = self.0.entry(group.to_owned()).or_insert(first);
        earlier.asked = now;
        if now.duration_since(earlier.last.at) >= LEAST_WINDOW {
            earlier.before = Some(std::mem::replace(&mut earlier.last, reading));
        }
        match earlier.before {
            Some(before) => rate(nanos.saturating_sub(before.nanos), now.duration_since(before.at)),
            None => rate(nanos, age?),
        }
    }

    /// Groups that were not asked for at this time are gone.
    pub(crate) fn forget_others(&mut self, now: Instant) {
        self.0.retain(|_, earlier| earlier.asked == now);
    }
}

fn rate(nanos: u64, window: Duration) -> Option<Rate> {
    let share = u128::from(nanos).saturating_mul(1_000_000_000).checked_div(window.as_nanos())?;
    Some(Rate { nano_cores: u64::try_from(share).unwrap_or(u64::MAX), window })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_a_window_that_says_something() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let path = Path::new("a");
        let second = 1_000_000_000;
        // Half a core in each second.
        let mut ask = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            let age = Some(Duration::from_secs(seconds + 100));
            let rate = rates.of(path, now, 50 * second + seconds * second / 2, age).unwrap();
            (rate.nano_cores, rate.window.as_secs())
        };
        assert_eq!(ask(0), (second / 2, 100), "since its start");
        assert_eq!(ask(4), (second / 2, 104));
        assert_eq!(ask(12), (second / 2, 12));
        assert_eq!(ask(15), (second / 2, 15));
        assert_eq!(ask(60), (second / 2, 48));
        assert_eq!(ask(61), (second / 2, 49));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.of(Path::new("a"), start, 1, None);
        rates.of(Path::new("b"), start, 1, None);
        let later = start + Duration::from_secs(20);
        assert_eq!(
            rates.of(Path::new("b"), later, 20_000_000_001, None).unwrap().nano_cores,
            1_000_000_000
        );
        rates.forget_others(later);
        assert_eq!(rates.0.len(), 1);
    }
}
