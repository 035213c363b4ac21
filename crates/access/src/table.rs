//! A map by two names that is asked without allocating and keeps no empty inner map.

use std::collections::HashMap;

/// Values by an outer and an inner name, such as namespace and name.
#[derive(Debug, Clone)]
pub(crate) struct Table<V>(HashMap<Box<str>, HashMap<Box<str>, V>>);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<V> Table<V> {
    pub(crate) fn get(&self, outer: &str, inner: &str) -> Option<&V> {
        self.0.get(outer)?.get(inner)
    }

    pub(crate) fn insert(&mut self, outer: &str, inner: &str, value: V) -> Option<V> {
        self.inner(outer).insert(inner.into(), value)
    }

    /// The value, made first when there is none.
    pub(crate) fn entry(&mut self, outer: &str, inner: &str) -> &mut V
    where
        V: Default,
    {
        self.inner(outer).entry(inner.into()).or_default()
    }

    pub(crate) fn remove(&mut self, outer: &str, inner: &str) -> Option<V> {
        let values = self.0.get_mut(outer)?;
        let removed = values.remove(inner);
        if values.is_empty() {
            self.0.remove(outer);
        }
        removed
    }

    /// Changes the value that is there, and removes it when `change` says that it is spent.
    pub(crate) fn shrink(&mut self, outer: &str, inner: &str, change: impl FnOnce(&mut V) -> bool) {
        let spent =
            self.0.get_mut(outer).and_then(|values| values.get_mut(inner)).is_some_and(change);
        if spent {
            self.remove(outer, inner);
        }
    }

    /// The inner names below an outer one, in no order.
    pub(crate) fn names(&self, outer: &str) -> impl Iterator<Item = &str> {
        self.0.get(outer).into_iter().flat_map(|inner| inner.keys()).map(|name| &**name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn inner(&mut self, outer: &str) -> &mut HashMap<Box<str>, V> {
        self.0.entry(outer.into()).or_default()
    }
}
