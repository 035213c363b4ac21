//! Values that many cached objects have alike, kept once while anybody has them.

use std::{
    borrow::Borrow,
    collections::HashSet,
    fmt,
    hash::Hash,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// Values kept before the first look for such as nobody has any more.
const FIRST_SWEEP: usize = 1024;

struct Known<T: ?Sized> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Known<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: FIRST_SWEEP }
    }
}

/// A pool of values. One serves the whole process: equal values are equal whoever asks.
pub struct Pool<T: ?Sized>(LazyLock<Mutex<Known<T>>>);

impl<T: Hash + Eq + ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Hash + Eq + ?Sized> Pool<T> {
    /// An empty pool.
    #[must_use]
    pub const fn new() -> Self {
        Self(LazyLock::new(Mutex::default))
    }

    /// The value that is kept for all who have an equal one.
    pub fn share<V: Borrow<T> + Into<Arc<T>>>(&self, value: V) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.values.get(value.borrow()) {
            return Arc::clone(shared);
        }
        if known.values.len() >= known.sweep_at {
            // Each sweep pays for as many new values as it leaves.
            known.values.retain(|value| Arc::strong_count(value) > 1);
            let room = known.values.len() * 2;
            known.values.shrink_to(room);
            known.sweep_at = FIRST_SWEEP.max(room);
        }
        let shared = value.into();
        known.values.insert(Arc::clone(&shared));
        shared
    }
}

impl<T: ?Sized> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let pool: Pool<str> = Pool::new();
        let (a, b) = (pool.share("a"), pool.share("a"));
        assert!(Arc::ptr_eq(&a, &b));
        for number in 0..10 * FIRST_SWEEP {
            pool.share(number.to_string().as_str());
        }
        assert!(pool.0.lock().unwrap().values.len() <= FIRST_SWEEP);
        assert!(Arc::ptr_eq(&a, &pool.share("a")), "what is in use stays");
    }
}
