//! Pods that wait for a node: the most important first, then the oldest; those that did not fit
//! wait until the cluster changes, and a little longer each time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{key::Key, kinds::pod::Pod, object::Metadata, pods::uid};

/// First pause after a pod did not fit, as in Kubernetes; doubles each time.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest such pause.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// After this a pod is tried again though nothing changed, against changes we failed to notice.
const MAX_PARKED: Duration = Duration::from_secs(5 * 60);

/// A pod that waits.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) pod: Arc<Pod>,
    /// What the pod was last told about why it waits.
    pub(super) told: Option<Arc<str>>,
    attempts: u32,
    arrived: u64,
}

impl Waiting {
    pub(super) fn key(&self) -> Key {
        self.pod.metadata.key()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    Delayed(Instant),
    Parked(Instant),
}

type Order = (Reverse<i32>, u64, Key);

/// The queue.
#[derive(Default)]
pub(super) struct PodQueue {
    pods: HashMap<Key, (Waiting, Place)>,
    active: BTreeSet<Order>,
    delayed: BTreeSet<(Instant, Key)>,
    parked: BTreeSet<(Instant, Key)>,
    arrivals: u64,
}

impl PodQueue {
    /// Takes in a pod or its newer version. A newer version of a parked pod is only tried again
    /// when what it asks for changed: its status changes with each refusal.
    pub(super) fn offer(&mut self, pod: Arc<Pod>) {
        let key = pod.metadata.key();
        if let Some((known, place)) = self.pods.get_mut(&key)
            && uid(&known.pod.metadata) == uid(&pod.metadata)
        {
            let same = known.pod.is_placed_as(&pod);
            if same {
                known.pod = pod;
                return;
            }
            let place = *place;
            let before = known.clone();
            known.pod = pod;
            let waiting = known.clone();
            self.detach(&before, place);
            self.insert(waiting, Place::Active);
            return;
        }
        self.remove(&key);
        self.arrivals += 1;
        let waiting = Waiting { pod, told: None, attempts: 0, arrived: self.arrivals };
        self.insert(waiting, Place::Active);
    }

    /// Whether this very pod still waits.
    pub(super) fn holds(&self, waiting: &Waiting) -> bool {
        let known = self.pods.get(&waiting.key());
        known.is_some_and(|(known, _)| uid(&known.pod.metadata) == uid(&waiting.pod.metadata))
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some((waiting, place)) = self.pods.remove(key) {
            self.detach(&waiting, place);
        }
    }

    /// The next pod that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Waiting> {
        self.release_due(now);
        let (_, _, key) = self.active.pop_first()?;
        let (mut waiting, _) = self.pods.remove(&key)?;
        waiting.attempts = waiting.attempts.saturating_add(1);
        Some(waiting)
    }

    /// When the next pod is due, if none is now.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, Key)>| set.first().map(|(due, _)| *due);
        first(&self.delayed).into_iter().chain(first(&self.parked)).min()
    }

    /// Its binding failed: it is tried again after its back-off.
    pub(super) fn put_back(&mut self, waiting: Waiting, now: Instant) {
        if !self.pods.contains_key(&waiting.key()) {
            let due = now + backoff(&waiting);
            self.insert(waiting, Place::Delayed(due));
        }
    }

    /// No node fits it: it waits for changes.
    pub(super) fn park(&mut self, waiting: Waiting, now: Instant) {
        if !self.pods.contains_key(&waiting.key()) {
            self.insert(waiting, Place::Parked(now + MAX_PARKED));
        }
    }

    /// Something changed: all parked pods get another chance after their back-off.
    pub(super) fn reconsider(&mut self, now: Instant) {
        self.unpark(now, |_| true);
    }

    /// A pod was bound or is leaving: those whose rules count other pods get another chance.
    pub(super) fn reconsider_company(&mut self, now: Instant) {
        self.unpark(now, |waiting| {
            let placement = &waiting.pod.template().placement;
            !placement.spread.is_empty() || placement.company.is_some()
        });
    }

    fn unpark(&mut self, now: Instant, test: impl Fn(&Waiting) -> bool) {
        let parked: Vec<_> = self.parked.iter().map(|(_, key)| key.clone()).collect();
        for key in parked {
            let Some((waiting, place)) = self.pods.get(&key) else { continue };
            let (waiting, place) = (waiting.clone(), *place);
            if let Place::Parked(until) = place
                && test(&waiting)
            {
                // The back-off counts from when it was parked.
                let due = (until - MAX_PARKED) + backoff(&waiting);
                self.detach(&waiting, place);
                let place = if due <= now { Place::Active } else { Place::Delayed(due) };
                self.insert(waiting, place);
            }
        }
    }

    fn release_due(&mut self, now: Instant) {
        for parked in [false, true] {
            while let Some((due, key)) =
                if parked { self.parked.first() } else { self.delayed.first() }.cloned()
            {
                if due > now {
                    break;
                }
                let set = if parked { &mut self.parked } else { &mut self.delayed };
                set.remove(&(due, key.clone()));
                if let Some((waiting, place)) = self.pods.get_mut(&key) {
                    *place = Place::Active;
                    self.active.insert(order(waiting));
                }
            }
        }
    }

    fn insert(&mut self, waiting: Waiting, place: Place) {
        let key = waiting.key();
        match place {
            Place::Active => drop(self.active.insert(order(&waiting))),
            Place::Delayed(due) => drop(self.delayed.insert((due, key.clone()))),
            Place::Parked(due) => drop(self.parked.insert((due, key.clone()))),
        }
        self.pods.insert(key, (waiting, place));
    }

    fn detach(&mut self, waiting: &Waiting, place: Place) {
        let key = waiting.key();
        match place {
            Place::Active => drop(self.active.remove(&order(waiting))),
            Place::Delayed(due) => drop(self.delayed.remove(&(due, key))),
            Place::Parked(due) => drop(self.parked.remove(&(due, key))),
        }
    }
}

fn order(waiting: &Waiting) -> Order {
    (Reverse(waiting.pod.template().placement.priority), waiting.arrived, waiting.key())
}

fn backoff(waiting: &Waiting) -> Duration {
    let doublings = waiting.attempts.saturating_sub(1).min(8);
    (FIRST_BACKOFF * 2_u32.pow(doublings)).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn offer(queue: &mut PodQueue, name: &str, priority: i32) {
        let pod = json!({"metadata": {"namespace": "ns", "name": name, "uid": name},
            "spec": {"containers": [], "priority": priority}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        queue.offer(Arc::new(pod));
    }

    fn pop(queue: &mut PodQueue, now: Instant) -> Option<(String, Waiting)> {
        queue.pop(now).map(|waiting| (waiting.key().name.to_string(), waiting))
    }

    #[test]
    fn important_pods_first_then_the_oldest() {
        let (mut queue, now) = (PodQueue::default(), Instant::now());
        for (name, priority) in [("b", 0), ("a", 0), ("vip", 9)] {
            offer(&mut queue, name, priority);
        }
        let order: Vec<_> =
            std::iter::from_fn(|| pop(&mut queue, now)).map(|(name, _)| name).collect();
        assert_eq!(order, ["vip", "b", "a"]);
    }

    #[test]
    fn parked_pods_wait_for_a_change_and_their_backoff() {
        let (mut queue, start) = (PodQueue::default(), Instant::now());
        offer(&mut queue, "a", 0);
        let (_, waiting) = pop(&mut queue, start).unwrap();
        queue.park(waiting, start);
        // Its own status update is no reason to try again.
        offer(&mut queue, "a", 0);
        assert!(pop(&mut queue, start + Duration::from_secs(60)).is_none());
        queue.reconsider(start + Duration::from_millis(10));
        assert!(pop(&mut queue, start + Duration::from_millis(20)).is_none());
        let (_, waiting) = pop(&mut queue, start + FIRST_BACKOFF).unwrap();
        queue.park(waiting, start);
        assert!(pop(&mut queue, start + MAX_PARKED - FIRST_BACKOFF).is_none());
        assert!(pop(&mut queue, start + MAX_PARKED).is_some());
        assert!(queue.pods.is_empty() && queue.next_due().is_none());
    }
}
