//! Which objects of a resource belong to whom, so that a list restricted to one owner reads that owner's
//! objects and no others. It must not cost anything while all objects belong to the platform.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Compacted, Page, Stored, Table, page, start};
use crate::versions::Versions;
use crate::{Key, Owner, Prefix, Rev};

/// The keys of each owner but the platform. A key is here for as long as one of its remembered versions
/// belongs to the owner: a name that was deleted may come back as somebody else's.
///
/// The platform's own objects are found by leaving out the others: nearly all lists restricted to an
/// owner are a tenant's, and an index of everything would double the tree for all.
#[derive(Debug, Default)]
pub(super) struct OwnerIndex(BTreeMap<Owner, BTreeSet<Key>>);

impl OwnerIndex {
    pub(super) fn add(&mut self, owner: &Owner, key: &Key) {
        if owner.is_platform() {
            return;
        }
        match self.0.get_mut(owner) {
            Some(keys) => keys.insert(key.clone()),
            None => self.0.entry(owner.clone()).or_default().insert(key.clone()),
        };
    }

    /// Lets `change` take versions away from an object, and forgets the owners that went with them.
    /// Answers what `change` does: whether nothing is left.
    pub(super) fn keep_up(
        &mut self,
        key: &Key,
        versions: &mut Versions,
        change: impl FnOnce(&mut Versions) -> bool,
    ) -> bool {
        if self.0.is_empty() {
            return change(versions);
        }
        let before: BTreeSet<Owner> = versions.owners().cloned().collect();
        let nothing_left = change(versions);
        let gone = |owner: &&Owner| nothing_left || versions.owners().all(|left| left != *owner);
        for owner in before.iter().filter(gone) {
            if let Some(keys) = self.0.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.0.remove(owner);
                }
            }
        }
        nothing_left
    }

    fn keys(&self, owner: &Owner, from: Bound<&str>) -> impl Iterator<Item = &Key> {
        let keys = self.0.get(owner);
        keys.into_iter().flat_map(move |keys| keys.range::<str, _>((from, Bound::Unbounded)))
    }
}

impl Table {
    /// As [`Table::list`], only the objects that belong to `owner`.
    pub fn list_owned(
        &self,
        prefix: &Prefix,
        owner: &Owner,
        at: Rev,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page<Stored>, Compacted> {
        self.readable(at)?;
        let Some(resource) = self.resources.get(prefix.resource_name()) else {
            return Ok(Page::default());
        };
        let from = start(prefix, after);
        if owner.is_platform() {
            let objects = resource.objects.range::<str, _>((from, Bound::Unbounded));
            let objects = objects.take_while(|(key, _)| prefix.contains(key));
            let seen = objects.filter_map(|(key, versions)| Some((key, versions.at(at)?)));
            return Ok(page(seen.filter(|(_, object)| object.owner.is_platform()), limit));
        }
        let keys = resource.owned.keys(owner, from).take_while(|key| prefix.contains(key));
        let seen = keys.filter_map(|key| Some((key, resource.objects.get(key)?.at(at)?)));
        Ok(page(seen.filter(|(_, object)| object.owner == *owner), limit))
    }
}
