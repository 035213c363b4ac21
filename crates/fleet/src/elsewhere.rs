//! When other servers heard nodes last, by their news. Pure bookkeeping, 8 bytes a node, and nothing where there
//! is one server.

use std::time::Duration;

use toono_session::NodeIndex;

/// What times are counted in: a tenth of a second.
const UNIT_MS: u128 = 100;

/// By index.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere(Vec<Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// 0 for never.
    at: u32,
    by: u16,
}

impl Elsewhere {
    /// A server has heard a node. `most` is how large the table may become.
    pub(crate) fn heard(&mut self, index: NodeIndex, by: u16, now: Duration, most: u32) {
        let Ok(place) = usize::try_from(index.0) else { return };
        if index.0 >= most {
            return;
        }
        if self.0.len() <= place {
            self.0.resize(place + 1, Seen { at: 0, by: 0 });
        }
        if let Some(seen) = self.0.get_mut(place) {
            let at = now.as_millis() / UNIT_MS;
            *seen = Seen { at: u32::try_from(at).unwrap_or(u32::MAX).max(1), by };
        }
    }

    /// When a node was heard by another server last, and by which.
    pub(crate) fn last(&self, index: NodeIndex) -> Option<(Duration, u16)> {
        let seen = self.0.get(usize::try_from(index.0).ok()?)?;
        let at = Duration::from_millis(u64::from(seen.at) * u64::try_from(UNIT_MS).unwrap_or(0));
        (seen.at > 0).then_some((at, seen.by))
    }

    /// What was said of a node was of another one with its index.
    pub(crate) fn forget(&mut self, index: NodeIndex) {
        let place = usize::try_from(index.0).unwrap_or(usize::MAX);
        if let Some(seen) = self.0.get_mut(place) {
            seen.at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_far_indexes_grow_nothing() {
        let mut elsewhere = Elsewhere::default();
        let at = Duration::from_millis;
        assert_eq!(elsewhere.last(NodeIndex(3)), None);
        elsewhere.heard(NodeIndex(3), 1, at(1_250), 10);
        elsewhere.heard(NodeIndex(3), 2, at(2_399), 10);
        elsewhere.heard(NodeIndex(10), 2, at(2_399), 10);
        assert_eq!(elsewhere.last(NodeIndex(3)), Some((at(2_300), 2)));
        assert_eq!((elsewhere.last(NodeIndex(2)), elsewhere.0.len()), (None, 4));
        elsewhere.forget(NodeIndex(3));
        assert_eq!(elsewhere.last(NodeIndex(3)), None);
    }
}
