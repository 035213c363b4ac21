//! Sets that nearly always have one element. There is one of them for each cell, site and label of a million
//! nodes, so the first element is held in place.

use std::collections::BTreeSet;

/// A set, in order.
#[derive(Debug, Default)]
pub(crate) enum Few<T> {
    #[default]
    None,
    One(T),
    /// Boxed, so that the rare case does not widen the common one.
    #[expect(clippy::box_collection, reason = "a set in place would be wider than the box")]
    Many(Box<BTreeSet<T>>),
}

impl<T: Copy + Ord> Few<T> {
    pub(crate) fn insert(&mut self, element: T) {
        match self {
            Self::None => *self = Self::One(element),
            Self::One(one) if *one == element => {}
            Self::One(one) => *self = Self::Many(Box::new([*one, element].into())),
            Self::Many(many) => {
                many.insert(element);
            }
        }
    }

    pub(crate) fn remove(&mut self, element: &T) {
        match self {
            Self::One(one) if one == element => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(many) => {
                many.remove(element);
                // One is left at least: there were two.
                if many.len() == 1
                    && let Some(last) = many.first()
                {
                    *self = Self::One(*last);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(crate) fn first(&self) -> Option<T> {
        self.iter().next()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one) => (Some(*one), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|many| many.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn one_takes_little() {
        assert_eq!(size_of::<Few<u32>>(), 16);
    }

    proptest! {
        #[test]
        fn it_is_a_set(changes in vec((any::<bool>(), 0..4_u32), 0..40)) {
            let (mut few, mut set) = (Few::default(), BTreeSet::new());
            for (enters, element) in changes {
                if enters {
                    few.insert(element);
                    set.insert(element);
                } else {
                    few.remove(&element);
                    set.remove(&element);
                }
                prop_assert_eq!(few.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!((few.len(), few.is_empty()), (set.len(), set.is_empty()));
                prop_assert_eq!(few.first(), set.first().copied());
            }
        }
    }
}
