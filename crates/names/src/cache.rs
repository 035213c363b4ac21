//! What upstreams said: kept for its time, and beyond it for when no upstream answers (RFC 8767). It is bounded in
//! bytes; what nobody asked for lately goes first.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    reply::Kept,
    upstream::{Ask, Said},
};

/// What an entry costs beside its message and its name: two references, the tables' places.
const OVERHEAD: usize = 160;
/// Nothing is told that much beyond its time: three days are what RFC 8767 (5) recommends at most.
const MAX_STALE: Duration = Duration::from_hours(72);
/// After an upstream failed, it is not asked again for what can be told meanwhile (RFC 8767, 5).
const RECHECK: Duration = Duration::from_secs(30);

/// The answers. Its clock is any that only goes on.
#[derive(Debug)]
pub struct Cache {
    entries: HashMap<Arc<Ask>, Entry>,
    /// In the order in which they are looked at when room is needed.
    queue: VecDeque<Arc<Ask>>,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    message: Box<[u8]>,
    taken: Duration,
    ttl: Duration,
    /// Asked for since it was last looked at for room.
    is_used: bool,
    /// No upstream is asked before this.
    not_before: Duration,
}

impl Cache {
    /// A cache of so many bytes, its own tables counted.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), queue: VecDeque::new(), bytes: 0, limit }
    }

    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is to be told now without asking anybody.
    pub(crate) fn fresh(&mut self, ask: &Ask, now: Duration) -> Option<Kept<'_>> {
        let entry = self.entries.get_mut(ask)?;
        entry.is_used = true;
        let is_stale = now >= entry.taken + entry.ttl;
        if is_stale && now >= entry.not_before {
            return None;
        }
        entry.told(now, is_stale)
    }

    /// What may be told when no upstream answers.
    pub(crate) fn any(&self, ask: &Ask, now: Duration) -> Option<Kept<'_>> {
        let entry = self.entries.get(ask)?;
        entry.told(now, now >= entry.taken + entry.ttl)
    }

    /// No upstream answered.
    pub(crate) fn failed(&mut self, ask: &Ask, now: Duration) {
        if let Some(entry) = self.entries.get_mut(ask) {
            entry.not_before = now + RECHECK;
        }
    }

    /// Keeps what an upstream said.
    pub(crate) fn put(&mut self, ask: &Ask, said: &Said, now: Duration) {
        let cost = cost(ask, said.message.len());
        if said.ttl == 0 || cost > self.limit {
            return;
        }
        let entry = Entry {
            message: said.message.as_slice().into(),
            taken: now,
            ttl: Duration::from_secs(said.ttl.into()),
            is_used: false,
            not_before: Duration::ZERO,
        };
        if let Some(place) = self.entries.get_mut(ask) {
            self.bytes = self.bytes + cost - self::cost(ask, place.message.len());
            *place = entry;
        } else {
            let ask = Arc::new(ask.clone());
            self.queue.push_back(ask.clone());
            self.entries.insert(ask, entry);
            self.bytes += cost;
        }
        self.make_room();
    }

    /// Lets go of what was not asked for since it was last looked at.
    fn make_room(&mut self) {
        while self.bytes > self.limit {
            let Some(ask) = self.queue.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&*ask) else { continue };
            if std::mem::take(&mut entry.is_used) {
                self.queue.push_back(ask);
                continue;
            }
            self.bytes -= cost(&ask, entry.message.len());
            self.entries.remove(&*ask);
        }
    }
}

impl Entry {
    fn told(&self, now: Duration, is_stale: bool) -> Option<Kept<'_>> {
        let age = now.saturating_sub(self.taken);
        if age > self.ttl + MAX_STALE {
            return None;
        }
        let age_s = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        Some(Kept { message: &self.message, age_s, is_stale })
    }
}

fn cost(ask: &Ask, message: usize) -> usize {
    OVERHEAD + ask.name().as_bytes().len() + message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::Name;

    fn ask(number: u32) -> Ask {
        Ask::of(Name::of(&format!("n{number}.test")).unwrap(), 1)
    }

    #[test]
    fn it_keeps_what_is_asked_for() {
        let mut cache = Cache::new(10 * 1024);
        let said = Said { message: vec![0; 400], ttl: 60 };
        for number in 0..1000 {
            cache.put(&ask(number), &said, Duration::ZERO);
            assert!(cache.fresh(&ask(0), Duration::ZERO).is_some(), "{number}");
        }
        assert!(cache.fresh(&ask(1), Duration::ZERO).is_none());
        assert!(cache.fresh(&ask(999), Duration::ZERO).is_some());
    }

    #[test]
    fn beyond_its_time_it_is_told_only_when_nobody_answers() {
        let mut cache = Cache::new(1024);
        let at = Duration::from_secs;
        cache.put(&ask(1), &Said { message: vec![0; 40], ttl: 60 }, at(100));
        assert_eq!(cache.fresh(&ask(1), at(130)).unwrap().age_s, 30);
        assert!(cache.fresh(&ask(1), at(160)).is_none());
        assert!(cache.any(&ask(1), at(160)).unwrap().is_stale);
        cache.failed(&ask(1), at(160));
        assert!(cache.fresh(&ask(1), at(189)).unwrap().is_stale, "nobody is asked in vain");
        assert!(cache.fresh(&ask(1), at(190)).is_none(), "it is time to ask again");
        assert!(cache.any(&ask(1), at(160) + MAX_STALE).is_some());
        assert!(cache.any(&ask(1), at(161) + MAX_STALE).is_none());
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_it_may(lengths in proptest::collection::vec((0_u32..50, 0_usize..3000), 0..200)) {
            let mut cache = Cache::new(8 * 1024);
            for (number, length) in lengths {
                cache.put(&ask(number), &Said { message: vec![0; length], ttl: 1 }, Duration::ZERO);
                prop_assert!(cache.bytes() <= 8 * 1024);
                prop_assert_eq!(cache.entries.len(), cache.queue.len());
                let sum: usize = cache.entries.iter().map(|(ask, it)| cost(ask, it.message.len())).sum();
                prop_assert_eq!(sum, cache.bytes());
            }
        }
    }
}
