//! Values that many have alike, kept once while anybody has them.

use std::{collections::HashSet, hash::Hash, sync::Arc};

/// A set of shared values.
#[derive(Debug)]
pub(crate) struct Shared<T>(HashSet<Arc<T>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// The copy of a value that is kept for all.
    pub(crate) fn share(&mut self, value: T) -> Arc<T> {
        if let Some(shared) = self.0.get(&value) {
            return Arc::clone(shared);
        }
        let shared = Arc::new(value);
        self.0.insert(Arc::clone(&shared));
        shared
    }

    /// Gives a copy back; the last one takes the value with it.
    pub(crate) fn release(&mut self, value: &Arc<T>) {
        // One is `value` itself, the other is ours.
        if Arc::strong_count(value) == 2 {
            self.0.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_there_once_and_goes_with_its_last_copy() {
        let mut shared = Shared::default();
        let (one, other) = (shared.share(7), shared.share(7));
        assert!(Arc::ptr_eq(&one, &other));
        shared.release(&one);
        drop(one);
        assert_eq!(shared.0.len(), 1);
        shared.release(&other);
        assert!(shared.0.is_empty());
    }
}
