//! The versions of one object, oldest first. It must not know the object's key.

use bytes::Bytes;

use crate::{Owner, Rev};

/// One version; a deletion is a version without a value.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) value: Option<Bytes>,
    pub(crate) created: Rev,
    pub(crate) modified: Rev,
    pub(crate) owner: Owner,
}

/// All remembered versions of one object. Nearly every object of a big cluster rests with one, so
/// that one is held in place, without an allocation of its own.
#[derive(Debug)]
pub(crate) enum Versions {
    One(Version),
    /// Two or more, by rising revision. Boxed so that the rare case does not widen the common one.
    #[expect(clippy::box_collection, reason = "a vector in place would be wider than the box")]
    Many(Box<Vec<Version>>),
}

impl Versions {
    /// The newest version.
    pub(crate) fn newest(&self) -> Option<&Version> {
        match self {
            Self::One(version) => Some(version),
            Self::Many(versions) => versions.last(),
        }
    }

    /// The version that a read at `rev` sees. A deletion is such a version.
    pub(crate) fn at(&self, rev: Rev) -> Option<&Version> {
        match self {
            Self::One(version) => (version.modified <= rev).then_some(version),
            // From the back: nearly all reads are at or near the head.
            Self::Many(versions) => versions.iter().rev().find(|version| version.modified <= rev),
        }
    }

    /// Adds a version that is newer than all others.
    pub(crate) fn push(&mut self, version: Version) {
        match self {
            Self::Many(versions) => versions.push(version),
            Self::One(first) => {
                let mut versions = Vec::with_capacity(2);
                versions.push(first.clone());
                versions.push(version);
                *self = Self::Many(Box::new(versions));
            }
        }
    }

    /// Forgets the versions that no read at `floor` or later sees. Answers whether nothing is left.
    pub(crate) fn compact(&mut self, floor: Rev) -> bool {
        match self {
            Self::One(version) => version.value.is_none() && version.modified <= floor,
            Self::Many(versions) => {
                let seen = versions.partition_point(|version| version.modified <= floor);
                // The newest at or below the floor is still what a read at the floor sees, unless
                // it says that there is nothing to see.
                let deleted = seen
                    .checked_sub(1)
                    .and_then(|last| versions.get(last))
                    .is_some_and(|version| version.value.is_none());
                versions.drain(..if deleted { seen } else { seen.saturating_sub(1) });
                if versions.len() <= 1 {
                    match versions.pop() {
                        Some(only) => *self = Self::One(only),
                        None => return true,
                    }
                } else {
                    versions.shrink_to_fit();
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_at_rest_stays_small() {
        // Millions are held; a growth here is a decision, not an accident.
        assert_eq!(size_of::<Version>(), 56);
        assert_eq!(size_of::<Versions>(), 56);
        assert_eq!(size_of::<Owner>(), 8);
    }
}
