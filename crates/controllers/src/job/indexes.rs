//! Completion indexes as a job's status writes them: `0,2-5,7`, in order, without repetition.

use std::{collections::BTreeSet, fmt};

/// A set of indexes, kept as intervals: a job may have a hundred thousand of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// Ordered, disjoint, not adjacent; both ends inclusive.
    intervals: Vec<(i32, i32)>,
}

impl Indexes {
    /// Reads the indexes below `completions`; intervals that cannot be read are left out.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut intervals = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else {
                continue;
            };
            if first >= 0 && first <= last && first < completions {
                intervals.push((first, last.min(completions - 1)));
            }
        }
        Self::normal(intervals)
    }

    pub(super) fn of(indexes: impl IntoIterator<Item = i32>) -> Self {
        Self::normal(indexes.into_iter().map(|index| (index, index)).collect())
    }

    fn normal(mut intervals: Vec<(i32, i32)>) -> Self {
        intervals.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last)
                }
                _ => merged.push((first, last)),
            }
        }
        Self { intervals: merged }
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Self::normal(self.intervals.iter().chain(&other.intervals).copied().collect())
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        let after = self.intervals.partition_point(|(_, last)| *last < index);
        self.intervals.get(after).is_some_and(|(first, _)| *first <= index)
    }

    pub(super) fn total(&self) -> i32 {
        let lengths = self.intervals.iter().map(|(first, last)| last - first + 1);
        lengths.fold(0, i32::saturating_add)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// How many indexes both have.
    pub(super) fn common(&self, other: &Self) -> i32 {
        let (mut mine, mut theirs) = (self.intervals.iter(), other.intervals.iter());
        let (mut left, mut right) = (mine.next(), theirs.next());
        let mut common = 0_i32;
        while let (Some(a), Some(b)) = (left, right) {
            common = common.saturating_add((a.1.min(b.1) - a.0.max(b.0) + 1).max(0));
            if a.1 < b.1 { left = mine.next() } else { right = theirs.next() }
        }
        common
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub(super) fn first_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut candidate = 0;
        let end = (completions, completions);
        for (first, last) in self.intervals.iter().copied().chain([end]) {
            let room = count - missing.len();
            missing.extend((candidate..first.min(completions)).take(room));
            candidate = last.saturating_add(1);
        }
        missing
    }

    /// As a set, for few indexes.
    pub(super) fn contains_all(&self, wanted: &Self) -> bool {
        self.common(wanted) == wanted.total()
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        Self::of(indexes.into_iter().collect::<BTreeSet<_>>())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (first, last) in &self.intervals {
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                // Two neighbours are two indexes, not an interval.
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_those_of_kubernetes() {
        for (text, completions, printed, total) in [
            ("", 5, "", 0),
            ("0", 5, "0", 1),
            ("0,1", 5, "0,1", 2),
            ("0,1,2", 5, "0-2", 3),
            ("0-2,4,6-9", 10, "0-2,4,6-9", 8),
            ("0-2,4,6-9", 8, "0-2,4,6,7", 6),
            ("x,1-y,3", 5, "3", 1),
        ] {
            let indexes = Indexes::parse(text, completions);
            assert_eq!((indexes.to_string().as_str(), indexes.total()), (printed, total), "{text}");
        }
    }

    proptest! {
        #[test]
        fn intervals_behave_as_sets(
            a in prop::collection::btree_set(0i32..40, 0..30),
            b in prop::collection::btree_set(0i32..40, 0..30),
            count in 0usize..10,
        ) {
            let (left, right) = (Indexes::of(a.clone()), Indexes::of(b.clone()));
            prop_assert_eq!(Indexes::parse(&left.to_string(), 40), left.clone());
            let union: BTreeSet<i32> = a.union(&b).copied().collect();
            prop_assert_eq!(left.union(&right), Indexes::of(union));
            prop_assert_eq!(left.common(&right) as usize, a.intersection(&b).count());
            prop_assert_eq!(left.contains_all(&right), a.is_superset(&b));
            for index in 0..40 {
                prop_assert_eq!(left.contains(index), a.contains(&index));
            }
            let missing: Vec<i32> = (0..40).filter(|index| !a.contains(index)).take(count).collect();
            prop_assert_eq!(left.first_missing(count, 40), missing);
        }
    }
}
