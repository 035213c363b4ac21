//! When to look at which member again: a wheel of seconds. A heartbeat does not move its member in it; the
//! member is looked at when it would be silent had there been none, and then its next look is set. So a
//! million nodes with 40 s of grace are 25,000 looks a second, however often they speak.

use std::{collections::VecDeque, time::Duration};

use toono_session::NodeIndex;

/// The longest that a look can be put off. More is looked at, and set again, in between.
const SLOTS: u64 = 256;

/// Each member is in it once at most.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Members by the second of their look, from `next` on.
    slots: VecDeque<Vec<NodeIndex>>,
    /// The second of the first slot.
    next: u64,
    /// Which indexes are in a slot.
    waiting: Vec<bool>,
}

impl Looks {
    /// Looks at a member once `at` has passed, unless a look at it is set already.
    pub(crate) fn set(&mut self, index: NodeIndex, at: Duration) {
        let Ok(place) = usize::try_from(index.0) else { return };
        if self.waiting.len() <= place {
            self.waiting.resize(place + 1, false);
        }
        let Some(waits) = self.waiting.get_mut(place) else { return };
        if std::mem::replace(waits, true) {
            return;
        }
        // Up, so that the time has passed when the second has come.
        let second = at.as_secs() + 1;
        let slot = second.saturating_sub(self.next).min(SLOTS - 1);
        let slot = usize::try_from(slot).unwrap_or(0);
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, Vec::new);
        }
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.push(index);
        }
    }

    /// Takes out whom to look at now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<NodeIndex> {
        let mut due = Vec::new();
        while self.next <= now.as_secs() {
            self.next += 1;
            match self.slots.pop_front() {
                Some(slot) if due.is_empty() => due = slot,
                Some(slot) => due.extend(slot),
                None => self.next = now.as_secs() + 1,
            }
        }
        for index in &due {
            let place = usize::try_from(index.0).unwrap_or(usize::MAX);
            if let Some(waits) = self.waiting.get_mut(place) {
                *waits = false;
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, millis: u64) -> Duration {
        Duration::from_millis(seconds * 1000 + millis)
    }

    #[test]
    fn a_look_comes_when_its_time_has_passed_and_once() {
        let mut looks = Looks::default();
        looks.set(NodeIndex(1), at(3, 500));
        looks.set(NodeIndex(1), at(1, 0));
        looks.set(NodeIndex(2), at(2, 0));
        assert!(looks.due(at(2, 999)).is_empty());
        assert_eq!(looks.due(at(3, 0)), [NodeIndex(2)]);
        assert!(looks.due(at(3, 900)).is_empty());
        assert_eq!(looks.due(at(4, 0)), [NodeIndex(1)]);
        looks.set(NodeIndex(1), at(4, 0));
        assert_eq!(looks.due(at(1_000, 0)), [NodeIndex(1)]);
        looks.set(NodeIndex(7), at(10, 0));
        assert_eq!(looks.due(at(1_001, 0)), [NodeIndex(7)], "what is overdue comes at once");
    }

    #[test]
    fn far_looks_come_earlier_rather_than_never() {
        let mut looks = Looks::default();
        looks.set(NodeIndex(1), at(100_000, 0));
        let come = (0..1_000).find(|second| !looks.due(at(*second, 0)).is_empty());
        assert_eq!(come, Some(SLOTS - 1));
    }
}
