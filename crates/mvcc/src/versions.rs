//! The versions of one object, oldest first. It must not know the object's key.

use crate::stored::{Packer, Value};
use crate::{Owner, Rev};

/// An object as of one revision.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) value: Value,
    pub(crate) created: Rev,
    pub(crate) modified: Rev,
    pub(crate) owner: Owner,
}

/// What a revision made of an object.
#[derive(Clone, Debug)]
pub(crate) enum Version {
    Object(Object),
    Deleted(Rev),
}

impl Version {
    fn rev(&self) -> Rev {
        match self {
            Self::Object(object) => object.modified,
            Self::Deleted(rev) => *rev,
        }
    }

    fn object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            Self::Deleted(_) => None,
        }
    }
}

/// All remembered versions of one object. Nearly every object of a big cluster rests with one, so
/// that one is held in place, without an allocation of its own.
#[derive(Debug)]
pub(crate) enum Versions {
    One(Object),
    /// By rising revision, never beginning with a deletion. Boxed so that the rare case does not widen
    /// the common one.
    #[expect(clippy::box_collection, reason = "a vector in place would be wider than the box")]
    Many(Box<Vec<Version>>),
}

impl Versions {
    /// The object now, if it exists.
    pub(crate) fn newest(&self) -> Option<&Object> {
        match self {
            Self::One(object) => Some(object),
            Self::Many(versions) => versions.last().and_then(Version::object),
        }
    }

    /// The object as a read at `rev` sees it, if it does.
    pub(crate) fn at(&self, rev: Rev) -> Option<&Object> {
        match self {
            Self::One(object) => (object.modified <= rev).then_some(object),
            // From the back: nearly all reads are at or near the head.
            Self::Many(versions) => {
                versions.iter().rev().find(|version| version.rev() <= rev).and_then(Version::object)
            }
        }
    }

    /// Everyone whom the object belonged to in one of its versions: one owner for each of its lives.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &Owner> {
        let (one, many) = match self {
            Self::One(object) => (Some(object), [].as_slice()),
            Self::Many(versions) => (None, versions.as_slice()),
        };
        one.into_iter().chain(many.iter().filter_map(Version::object)).map(|object| &object.owner)
    }

    /// The bytes of the version of a revision, packed if that is worth it, if the version is there.
    pub(crate) fn pack(&mut self, rev: Rev, packer: &mut Packer) -> Option<&Value> {
        let object = match self {
            Self::One(object) => Some(object),
            Self::Many(versions) => versions.iter_mut().find_map(|version| match version {
                Version::Object(object) if object.modified == rev => Some(object),
                _ => None,
            }),
        };
        let object = object.filter(|object| object.modified == rev)?;
        if let Some(packed) = packer.pack(&object.value) {
            object.value = packed;
        }
        Some(&object.value)
    }

    /// Adds a version that is newer than all others.
    pub(crate) fn push(&mut self, version: Version) {
        match self {
            Self::Many(versions) => versions.push(version),
            Self::One(first) => {
                let versions = vec![Version::Object(first.clone()), version];
                *self = Self::Many(Box::new(versions));
            }
        }
    }

    /// Takes the newest version back. Answers whether nothing is left.
    pub(crate) fn take_back(&mut self) -> bool {
        let Self::Many(versions) = self else { return true };
        versions.pop();
        match versions.as_slice() {
            [] => return true,
            [Version::Object(only)] => *self = Self::One(only.clone()),
            _ => {}
        }
        false
    }

    /// Forgets the versions that no read at `floor` or later sees. Answers whether nothing is left.
    pub(crate) fn compact(&mut self, floor: Rev) -> bool {
        let Self::Many(versions) = self else { return false };
        let mut forgotten = versions.partition_point(|version| version.rev() <= floor);
        // The newest at or below the floor is still what a read at the floor sees, unless it says
        // that there is nothing to see.
        let newest = forgotten.checked_sub(1).and_then(|newest| versions.get(newest));
        if matches!(newest, Some(Version::Object(_))) {
            forgotten = forgotten.saturating_sub(1);
        }
        versions.drain(..forgotten);
        match versions.as_slice() {
            [] => return true,
            [Version::Object(only)] => *self = Self::One(only.clone()),
            _ => versions.shrink_to_fit(),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_at_rest_stays_small() {
        // Millions are held; a growth here is a decision, not an accident.
        assert_eq!(size_of::<Versions>(), 64);
        assert_eq!(size_of::<Version>(), 64);
        assert_eq!(size_of::<Owner>(), 8);
    }
}
