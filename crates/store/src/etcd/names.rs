//! What the engine's keys in etcd are called, and how an object is kept in a value. It must not ask
//! etcd for anything.
//!
//! ```text
//! /toono/objects/GROUP/PLURAL/NAMESPACE/NAME   one object: owner and draft
//! /toono/last                                  what the newest deletion has deleted
//! /toono/compact                               who compacts next, and up to where
//! ```
//!
//! A value is the owner and the object with its hole: the revision that goes there is known only once
//! etcd has decided, and every server fills it in from the revision that etcd tells with the value.
//!
//! A deletion leaves no value behind, and yet its watchers are to see the object's last state. So the
//! transaction that deletes also writes that state to `/toono/last`, at the same revision. This is one
//! key, overwritten by every deletion: only its history has all of them, for as long as anyone can
//! still watch from there.
//!
//! ```text
//! object: version 1 | place 1 | place of its creation 1 | owner length 2 | head length 4
//!         | owner | head | tail
//! last:   ( key length 2 | object length 4 | key | object )…
//! ```
//!
//! Numbers are little-endian.

use bytes::{Buf, Bytes};
use toono_mvcc::{Draft, Key, Owner};

/// The bytes before the owner.
const HEAD_BYTES: usize = 9;

/// The format of an object's value.
const VERSION: u8 = 1;

/// A value is not one that a store wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign;

/// The engine's keys, below one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    objects: String,
    last: Bytes,
    compact: Bytes,
}

/// What a key in etcd is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Object(Key),
    Last,
    /// Somebody else's, or of no concern to a follower.
    Other,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        Self {
            objects: format!("{prefix}/objects/"),
            last: format!("{prefix}/last").into(),
            compact: format!("{prefix}/compact").into(),
        }
    }

    pub(crate) fn object(&self, key: &Key) -> Bytes {
        format!("{}{key}", self.objects).into()
    }

    /// All objects, as a range: from the first key to before the second.
    pub(crate) fn objects(&self) -> (Bytes, Bytes) {
        let mut end = self.objects.clone().into_bytes();
        // It ends in a slash, which has a successor.
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        (self.objects.clone().into(), end.into())
    }

    pub(crate) fn last(&self) -> Bytes {
        self.last.clone()
    }

    pub(crate) fn compact(&self) -> Bytes {
        self.compact.clone()
    }

    pub(crate) fn place(&self, key: &[u8]) -> Place {
        if key == self.last {
            return Place::Last;
        }
        let key = key.strip_prefix(self.objects.as_bytes());
        let key = key.and_then(|key| std::str::from_utf8(key).ok()).and_then(Key::parse);
        key.map_or(Place::Other, Place::Object)
    }
}

/// An object as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// The place in etcd's transaction of the commit that wrote it.
    pub(crate) place: u8,
    /// The same, of the commit that created it.
    pub(crate) created_place: u8,
    pub(crate) owner: Owner,
    pub(crate) draft: Draft,
}

impl Object {
    /// The object as a value.
    pub(crate) fn value(&self) -> Bytes {
        let mut value = Vec::with_capacity(self.len());
        self.push(&mut value);
        value.into()
    }

    fn len(&self) -> usize {
        HEAD_BYTES + self.owner_name().len() + self.draft.head().len() + self.draft.tail().len()
    }

    fn owner_name(&self) -> &str {
        if self.owner.is_platform() { "" } else { self.owner.as_str() }
    }

    /// The lengths fit: a transaction whose parts are longer was refused before.
    fn push(&self, value: &mut Vec<u8>) {
        let (owner, head) = (self.owner_name(), self.draft.head());
        value.extend_from_slice(&[VERSION, self.place, self.created_place]);
        value.extend_from_slice(&u16::try_from(owner.len()).unwrap_or(u16::MAX).to_le_bytes());
        value.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
        value.extend_from_slice(owner.as_bytes());
        value.extend_from_slice(head);
        value.extend_from_slice(self.draft.tail());
    }
}

/// Reads an object's value back.
pub(crate) fn read_object(mut value: Bytes) -> Result<Object, Foreign> {
    if value.try_get_u8() != Ok(VERSION) {
        return Err(Foreign);
    }
    let place = value.try_get_u8().map_err(|_| Foreign)?;
    let created_place = value.try_get_u8().map_err(|_| Foreign)?;
    let owner_bytes = usize::from(value.try_get_u16_le().map_err(|_| Foreign)?);
    let head_bytes = value.try_get_u32_le().map_err(|_| Foreign)?;
    let head_bytes = usize::try_from(head_bytes).map_err(|_| Foreign)?;
    let owner = take(&mut value, owner_bytes)?;
    let owner = Owner::new(std::str::from_utf8(&owner).map_err(|_| Foreign)?);
    let head = take(&mut value, head_bytes)?;
    Ok(Object { place, created_place, owner, draft: Draft::new(head, value) })
}

fn take(bytes: &mut Bytes, count: usize) -> Result<Bytes, Foreign> {
    if bytes.len() < count { Err(Foreign) } else { Ok(bytes.split_to(count)) }
}

/// Adds a deleted object's last state to a value for [`Names::last`].
pub(crate) fn push_last(value: &mut Vec<u8>, key: &Key, last: &Object) {
    let name = key.as_str().as_bytes();
    let len = last.len();
    value.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
    value.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    value.extend_from_slice(name);
    last.push(value);
}

/// Reads a value of [`Names::last`] back.
pub(crate) fn read_last(mut value: Bytes) -> Result<Vec<(Key, Object)>, Foreign> {
    let mut all = Vec::new();
    while !value.is_empty() {
        let name_bytes = usize::from(value.try_get_u16_le().map_err(|_| Foreign)?);
        let object_bytes = value.try_get_u32_le().map_err(|_| Foreign)?;
        let object_bytes = usize::try_from(object_bytes).map_err(|_| Foreign)?;
        let name = take(&mut value, name_bytes)?;
        let key = std::str::from_utf8(&name).ok().and_then(Key::parse).ok_or(Foreign)?;
        all.push((key, read_object(take(&mut value, object_bytes)?)?));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_back() {
        let names = Names::new("/toono/");
        let key = Key::new("apps", "deployments", "shop", "web");
        assert_eq!(names.object(&key), "/toono/objects/apps/deployments/shop/web");
        assert_eq!(names.place(&names.object(&key)), Place::Object(key));
        assert_eq!(names.place(&names.last()), Place::Last);
        for other in ["/toono/compact", "/toono/objects/a/b", "/registry/pods/a/b", ""] {
            assert_eq!(names.place(other.as_bytes()), Place::Other, "{other}");
        }
        assert_eq!(names.objects(), ("/toono/objects/".into(), "/toono/objects0".into()));
    }

    proptest! {
        #[test]
        fn objects_are_read_back(
            owner in "[a-z]{0,9}",
            head in ".{0,30}",
            tail in ".{0,30}",
            place: u8,
            created_place: u8,
        ) {
            let (owner, draft) = (Owner::new(&owner), Draft::new(head, tail));
            let object = Object { place, created_place, owner, draft };
            prop_assert_eq!(object.value().len(), object.len());
            prop_assert_eq!(read_object(object.value()), Ok(object.clone()));
            let key = Key::new("", "pods", "shop", "web");
            let mut value = Vec::new();
            push_last(&mut value, &key, &object);
            push_last(&mut value, &key, &object);
            let both = vec![(key.clone(), object.clone()), (key, object)];
            prop_assert_eq!(read_last(value.into()), Ok(both));
        }

        #[test]
        fn any_value_is_foreign_or_one(bytes in vec(any::<u8>(), 0..60)) {
            let _ = read_object(bytes.clone().into());
            let _ = read_last(bytes.into());
        }
    }
}
