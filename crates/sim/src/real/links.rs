//! What each node's link was like, from moment to moment.

use std::{ops::Range, time::Duration};

use toono_lab::Loss;

use super::plan::Place;

/// A time in which a node's link lost something.
#[derive(Debug, Clone)]
struct Spell {
    place: Place,
    loss: Loss,
    from: Duration,
    /// None while it lasts.
    until: Option<Duration>,
}

/// The links of all nodes, by number.
pub(super) struct Links(Vec<Vec<Spell>>);

impl Links {
    /// All are whole.
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![Vec::new(); nodes])
    }

    /// These nodes lose something from now on.
    pub(super) fn cut(&mut self, nodes: Range<usize>, place: Place, loss: Loss, at: Duration) {
        for spells in self.0.get_mut(nodes).into_iter().flatten() {
            spells.push(Spell { place, loss, from: at, until: None });
        }
    }

    /// What was cut at this place is whole again.
    pub(super) fn heal(&mut self, nodes: Range<usize>, place: Place, at: Duration) {
        for spells in self.0.get_mut(nodes).into_iter().flatten() {
            for spell in spells.iter_mut().filter(|spell| spell.place == place) {
                spell.until.get_or_insert(at);
            }
        }
    }

    /// When a node's link lost something.
    pub(super) fn impaired(&self, node: usize) -> Vec<Range<Duration>> {
        self.merged(node, |_| true)
    }

    /// When a node could not ask and be answered by any way.
    pub(super) fn dark(&self, node: usize) -> Vec<Range<Duration>> {
        self.merged(node, |loss| loss != Loss::Udp)
    }

    /// When nothing of what a node said arrived.
    pub(super) fn mute(&self, node: usize) -> Vec<Range<Duration>> {
        self.merged(node, |loss| matches!(loss, Loss::All | Loss::Outbound))
    }

    /// Times that touch are one.
    fn merged(&self, node: usize, of: impl Fn(Loss) -> bool) -> Vec<Range<Duration>> {
        let spells = self.0.get(node).into_iter().flatten().filter(|spell| of(spell.loss));
        let mut times: Vec<_> =
            spells.map(|spell| spell.from..spell.until.unwrap_or(Duration::MAX)).collect();
        times.sort_by_key(|time| time.start);
        let mut merged: Vec<Range<Duration>> = Vec::new();
        for time in times {
            match merged.last_mut() {
                Some(last) if time.start <= last.end => last.end = last.end.max(time.end),
                _ => merged.push(time),
            }
        }
        merged
    }
}

/// The longest time within `window` that none of `times` (in their order) touches.
pub(super) fn longest_gap(times: &[Range<Duration>], window: Range<Duration>) -> Duration {
    let (mut longest, mut free_from) = (Duration::ZERO, window.start);
    for time in times {
        let ends = time.start.min(window.end);
        longest = longest.max(ends.saturating_sub(free_from));
        free_from = free_from.max(time.end);
    }
    longest.max(window.end.saturating_sub(free_from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(range: Range<u64>) -> Range<Duration> {
        Duration::from_secs(range.start)..Duration::from_secs(range.end)
    }

    #[test]
    fn spells_of_a_site_and_of_a_node_are_told_apart_and_merged() {
        let mut links = Links::new(3);
        let at = Duration::from_secs;
        links.cut(0..2, Place::Site(0), Loss::Inbound, at(10));
        links.cut(1..2, Place::Node(1), Loss::All, at(15));
        links.heal(0..2, Place::Site(0), at(20));
        links.cut(1..2, Place::Site(0), Loss::Udp, at(40));
        links.heal(1..2, Place::Node(1), at(30));
        links.heal(1..2, Place::Site(0), at(50));
        assert_eq!(links.dark(0), [seconds(10..20)]);
        assert_eq!(links.mute(0), []);
        assert_eq!(links.dark(1), [seconds(10..30)]);
        assert_eq!(links.mute(1), [seconds(15..30)]);
        assert_eq!(links.impaired(1), [seconds(10..30), seconds(40..50)]);
        assert_eq!(links.impaired(2), []);
        links.cut(2..3, Place::Node(2), Loss::All, at(5));
        assert_eq!(links.dark(2), [at(5)..Duration::MAX]);
    }

    #[test]
    fn gaps() {
        let gap = |times: &[(u64, u64)], window: Range<u64>| {
            let times: Vec<_> = times.iter().map(|(from, until)| seconds(*from..*until)).collect();
            longest_gap(&times, seconds(window)).as_secs()
        };
        assert_eq!(gap(&[], 5..20), 15);
        assert_eq!(gap(&[(0, 7), (10, 12)], 5..20), 8);
        assert_eq!(gap(&[(0, 30)], 5..20), 0);
        assert_eq!(gap(&[(30, 40)], 5..20), 15);
        assert_eq!(gap(&[(18, 40)], 5..20), 13);
    }
}
