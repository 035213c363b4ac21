//! What the parts are now, and were a moment ago, for who may not wait for the index: heartbeats.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use toono_wire::pool::Version;

/// What a node has of its part is right for so long after the part moved: a poke, or its hub, tells it.
const ON_ITS_WAY: Duration = Duration::from_secs(15);
/// Versions that a part can have in that time, at one a second.
const MOST_LATELY: usize = 16;

/// Of all parts.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    all: Option<History>,
    /// Of pools that have something of their own.
    own: HashMap<Arc<str>, History>,
}

#[derive(Debug, Default)]
struct History {
    now: Version,
    /// Shares of the versions before, newest last, and until when each was the newest.
    before: VecDeque<(Duration, u32)>,
}

impl History {
    fn set(&mut self, version: Version, now: Duration) {
        if self.now == version {
            return;
        }
        self.before.push_back((now, self.now.share()));
        self.now = version;
        while self.before.len() > MOST_LATELY {
            self.before.pop_front();
        }
    }
}

impl Versions {
    /// The parts are these now: what every pool has, and the pools that have more.
    pub(crate) fn set<'p>(
        &mut self,
        all: Version,
        own: impl Iterator<Item = (&'p Arc<str>, Version)>,
        now: Duration,
    ) {
        for (pool, version) in own {
            let known = self.own.entry(pool.clone()).or_insert_with(|| {
                // It had what every pool has.
                let (known, before) = self
                    .all
                    .as_ref()
                    .map_or_else(Default::default, |it| (it.now, it.before.clone()));
                History { now: known, before }
            });
            known.set(version, now);
        }
        match &mut self.all {
            Some(known) => known.set(all, now),
            // Nobody had what was before the first.
            None => self.all = Some(History { now: all, before: VecDeque::new() }),
        }
    }

    /// A pool's part now; none before all was read.
    pub(crate) fn of(&self, pool: &str) -> Option<Version> {
        self.history(pool).map(|history| history.now)
    }

    /// Shares of the versions that a pool's part had a moment ago.
    pub(crate) fn lately(&self, pool: &str, now: Duration) -> impl Iterator<Item = u32> {
        let before = self.history(pool).into_iter().flat_map(|history| history.before.iter().rev());
        before.take_while(move |(until, _)| now < *until + ON_ITS_WAY).map(|(_, share)| *share)
    }

    fn history(&self, pool: &str) -> Option<&History> {
        self.own.get(pool).or(self.all.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(revision: u64) -> Version {
        Version { revision, digest: 0x1_0000_0000 + revision }
    }

    fn lately(versions: &Versions, pool: &str, now: u64) -> Vec<u32> {
        versions.lately(pool, Duration::from_secs(now)).collect()
    }

    #[test]
    fn what_a_part_was_counts_a_little_longer() {
        let mut versions = Versions::default();
        assert!(versions.of("a").is_none() && lately(&versions, "a", 0).is_empty());
        for (revision, at) in [(1, 0), (2, 100), (2, 105), (3, 110)] {
            versions.set(version(revision), std::iter::empty(), Duration::from_secs(at));
        }
        assert_eq!(versions.of("a"), Some(version(3)));
        assert_eq!(lately(&versions, "a", 114), [2, 1]);
        assert_eq!(lately(&versions, "a", 116), [2]);
        let pool: Arc<str> = "b".into();
        versions.set(version(3), [(&pool, version(9))].into_iter(), Duration::from_secs(120));
        assert_eq!((versions.of("a"), versions.of("b")), (Some(version(3)), Some(version(9))));
        assert_eq!(lately(&versions, "b", 121), [3, 2], "it had what all had");
        for revision in 10..50 {
            versions.set(version(revision), std::iter::empty(), Duration::from_secs(121));
        }
        assert_eq!(lately(&versions, "a", 121).len(), MOST_LATELY);
    }
}
