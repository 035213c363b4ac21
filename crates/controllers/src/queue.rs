//! A queue of keys to work on: each at most once, never two workers on one key, with delays and
//! back-off for failures. Its size is bounded by the number of objects.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// First pause after a failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(10);
/// Longest pause after failures: an outage of the API must not turn into minutes of delay.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Doublings after which the pause is the longest anyway.
const MAX_DOUBLINGS: u32 = 16;

/// The queue. All methods are callable from any task.
pub(crate) struct WorkQueue<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Waiting in `ready`, or to go there once its worker is done.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, T>,
    earliest: HashMap<T, Instant>,
    sequence: u64,
    failures: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                processing: HashSet::new(),
                delayed: BinaryHeap::new(),
                delayed_keys: HashMap::new(),
                earliest: HashMap::new(),
                sequence: 0,
                failures: HashMap::new(),
            }),
            wake: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a key now.
    pub(crate) fn add(&self, key: T) {
        self.state().push(key);
        self.wake.notify_one();
    }

    /// Adds a key after a while; of several waits for one key the shortest counts.
    pub(crate) fn add_after(&self, key: T, delay: Duration) {
        self.state().delay(key, Instant::now() + delay);
        self.wake.notify_one();
    }

    /// Adds a key again after a failure, later each time.
    pub(crate) fn retry(&self, key: T) {
        let mut state = self.state();
        let failures = state.failures.entry(key.clone()).or_default();
        *failures = (*failures + 1).min(MAX_DOUBLINGS);
        let pause = (FIRST_RETRY * 2_u32.pow(*failures - 1)).min(LONGEST_RETRY);
        let jitter = pause.mul_f64(fastrand::f64() * 0.5);
        state.delay(key, Instant::now() + pause + jitter);
        drop(state);
        self.wake.notify_one();
    }

    /// Forgets the failures of a key.
    pub(crate) fn forget(&self, key: &T) {
        self.state().failures.remove(key);
    }

    /// The next key; call [`WorkQueue::done`] when it was worked on.
    pub(crate) async fn next(&self) -> T {
        loop {
            let due = {
                let mut state = self.state();
                state.release_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.peek().map(|Reverse((due, _))| *due)
            };
            match due {
                // The wait ends by itself or by an earlier key.
                Some(due) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// The worker is done with the key; if it was added meanwhile it is next again.
    pub(crate) fn done(&self, key: &T) {
        let mut state = self.state();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn push(&mut self, key: T) {
        if self.dirty.insert(key.clone()) && !self.processing.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: T, due: Instant) {
        if self.earliest.get(&key).is_some_and(|known| *known <= due) {
            return;
        }
        self.earliest.insert(key.clone(), due);
        self.sequence += 1;
        self.delayed.push(Reverse((due, self.sequence)));
        self.delayed_keys.insert(self.sequence, key);
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(Reverse((due, sequence))) = self.delayed.peek().copied() {
            if due > now {
                return;
            }
            self.delayed.pop();
            let Some(key) = self.delayed_keys.remove(&sequence) else { continue };
            if self.earliest.get(&key) == Some(&due) {
                self.earliest.remove(&key);
                self.push(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_worked_on_twice_at_once_nor_lost() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        queue.done(&"b");
        let soon = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(soon.is_err(), "a is still being worked on");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_keep_their_order_and_failures_wait_longer() {
        let queue = WorkQueue::new();
        queue.add_after("late", Duration::from_secs(5));
        queue.add_after("soon", Duration::from_secs(1));
        queue.add_after("late", Duration::from_secs(9));
        let start = Instant::now();
        assert_eq!(queue.next().await, "soon");
        assert_eq!(queue.next().await, "late");
        assert_eq!(start.elapsed().as_secs(), 5);
        let mut pauses = Vec::new();
        for _ in 0..30 {
            queue.done(&"late");
            queue.retry("late");
            let start = Instant::now();
            queue.next().await;
            pauses.push(start.elapsed());
        }
        assert!(pauses.first().is_some_and(|pause| *pause < Duration::from_millis(20)));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_RETRY * 2));
        assert!(pauses.last().is_some_and(|pause| *pause >= LONGEST_RETRY));
    }
}
