//! A map that remembers what it was when its changes were taken last.

use std::collections::BTreeMap;

/// One key whose value is another one now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<K, V> {
    /// The key.
    pub key: K,
    /// What it had.
    pub before: Option<V>,
    /// What it has.
    pub after: Option<V>,
}

/// A map and what its touched keys had before.
#[derive(Debug, Clone)]
pub(crate) struct Tracked<K, V> {
    now: BTreeMap<K, V>,
    before: BTreeMap<K, Option<V>>,
}

impl<K, V> Default for Tracked<K, V> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), before: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> Tracked<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.now.get(key)
    }

    pub(crate) fn set(&mut self, key: K, value: Option<V>) {
        let old = match value {
            Some(value) => self.now.insert(key.clone(), value),
            None => self.now.remove(&key),
        };
        self.before.entry(key).or_insert(old);
    }

    pub(crate) fn all(&self) -> &BTreeMap<K, V> {
        &self.now
    }

    pub(crate) fn take_changes(&mut self) -> Vec<Change<K, V>> {
        let touched = std::mem::take(&mut self.before).into_iter();
        let changes = touched.map(|(key, before)| {
            let after = self.now.get(&key).cloned();
            Change { key, before, after }
        });
        changes.filter(|change| change.before != change.after).collect()
    }
}

/// A count of who wants a key; the key is there while somebody does.
#[derive(Debug, Clone)]
pub(crate) struct Counted<K>(Tracked<K, u32>);

impl<K> Default for Counted<K> {
    fn default() -> Self {
        Self(Tracked::default())
    }
}

impl<K: Ord + Clone> Counted<K> {
    pub(crate) fn add(&mut self, key: K) {
        let count = self.0.get(&key).copied().unwrap_or(0);
        self.0.set(key, Some(count.saturating_add(1)));
    }

    pub(crate) fn remove(&mut self, key: K) {
        let count = self.0.get(&key).copied().unwrap_or(0);
        self.0.set(key, count.checked_sub(1).filter(|left| *left > 0));
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.all().keys()
    }

    /// Keys that came or went.
    pub(crate) fn take_changes(&mut self) -> Vec<Change<K, ()>> {
        let changes = self.0.take_changes().into_iter().map(|change| Change {
            key: change.key,
            before: change.before.map(drop),
            after: change.after.map(drop),
        });
        changes.filter(|change| change.before != change.after).collect()
    }
}
