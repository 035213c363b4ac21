//! Waiting for a fact, never for a time.

use std::time::{Duration, Instant};

/// Asks again every 100 ms until `fact` is some; after `limit` the test fails and says what for.
pub(crate) fn until<T>(what: &str, limit: Duration, mut fact: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
