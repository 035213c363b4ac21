//! Renewals of stored Leases that are in memory: the Lease in the store says when it was written last, and
//! this says what it would say of its renewal now.
//!
//! A renewal changes no `resourceVersion`, so that what a client was answered is what its next write has to
//! name, also after a restart or at another server. Two clients that renew one Lease at once both succeed;
//! for a write that says nothing but "still here" the order does not matter. Whatever else is written goes
//! to the store, with the newest time in it.
//!
//! Now and then a renewal is written all the same: often enough for the servers that share a store to judge
//! by it, and otherwise as rarely as a kubelet reports a status that does not change.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use memchr::memmem;
use toono_mvcc::{Entry, Key, Rev};

/// How late another server sees a renewal: half of what a kubelet's Lease lasts. With it a node that renews
/// every ten seconds is seen each thirty at worst, which is below the grace of forty.
pub(super) const UNSEEN_MAX: Duration = Duration::from_secs(20);
/// How late the store has a renewal that no other server waits for; kubelets report an unchanged status
/// as often. After a crash the Lease tells a time that is at most this old.
const UNWRITTEN_MAX: Duration = Duration::from_secs(5 * 60);
/// What is not renewed for so long is forgotten; the store has what it said.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// Leases remembered before those that rest are looked for.
const FEW: usize = 1024;

/// The field that a renewal changes. It is in the last part of a Lease, and text inside a value cannot look
/// like it, since its quotes are escaped.
const SPEC: &[u8] = br#""spec":{"#;
const RENEW_TIME: &[u8] = br#""renewTime":""#;

#[derive(Debug)]
struct Renewal {
    /// The version that was renewed; another one says more than this.
    of: Rev,
    time: Box<str>,
    at: Instant,
    /// When the next one is to be written.
    written_by: Instant,
}

/// The renewals since the Leases were written.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    shared: bool,
    by_lease: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    renewals: HashMap<Key, Renewal>,
    /// How many there may be before those that rest are forgotten.
    room: usize,
}

impl Renewals {
    pub(super) fn new(shared: bool) -> Self {
        Self { shared, by_lease: Mutex::default() }
    }

    /// Whether the next renewal may stay in memory.
    pub(super) fn may_renew(&self, lease: &Entry) -> bool {
        let known = self.known();
        let renewal = known.renewals.get(&lease.key).filter(|it| it.of == lease.modified);
        renewal.is_none_or(|renewal| Instant::now() < renewal.written_by)
    }

    /// Remembers a renewal.
    pub(super) fn renew(&self, lease: &Entry, time: &str) {
        let (at, mut known) = (Instant::now(), self.known());
        if let Some(renewal) =
            known.renewals.get_mut(&lease.key).filter(|it| it.of == lease.modified)
        {
            (renewal.time, renewal.at) = (time.into(), at);
            return;
        }
        if known.renewals.len() >= known.room {
            known.renewals.retain(|_, renewal| at.duration_since(renewal.at) < FORGOTTEN_AFTER);
            known.room = FEW.max(2 * known.renewals.len());
        }
        let written_by = at + self.until_written();
        let renewal = Renewal { of: lease.modified, time: time.into(), at, written_by };
        known.renewals.insert(lease.key.clone(), renewal);
    }

    /// Shows a Lease as it was last renewed.
    pub(super) fn show(&self, lease: &mut Entry) {
        let known = self.known();
        let renewal = known.renewals.get(&lease.key).filter(|it| it.of == lease.modified);
        if let Some(renewed) = renewal.and_then(|renewal| spliced(&lease.value, &renewal.time)) {
            lease.value = renewed;
        }
    }

    /// Up to a fifth earlier than has to be, so that Leases that came together are not written together.
    fn until_written(&self) -> Duration {
        let most = if self.shared { UNSEEN_MAX } else { UNWRITTEN_MAX };
        let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
        let fifth = u64::try_from(most.as_millis() / 5).unwrap_or(1).max(1);
        most - Duration::from_millis(random % fifth)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.by_lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A Lease that was renewed at this time; none if it was never renewed before.
pub(super) fn with_time(lease: &Entry, time: &str) -> Option<Entry> {
    Some(Entry { value: spliced(&lease.value, time)?, ..lease.clone() })
}

/// When an encoded Lease was renewed.
pub(super) fn time_of(lease: &Bytes) -> Option<&[u8]> {
    let (from, to) = place_of_time(lease)?;
    lease.get(from..to)
}

fn spliced(lease: &Bytes, time: &str) -> Option<Bytes> {
    let (from, to) = place_of_time(lease)?;
    Some([lease.get(..from)?, time.as_bytes(), lease.get(to..)?].concat().into())
}

fn place_of_time(lease: &Bytes) -> Option<(usize, usize)> {
    let spec = memmem::rfind(lease, SPEC)?;
    let from = spec + memmem::find(lease.get(spec..)?, RENEW_TIME)? + RENEW_TIME.len();
    let to = from + memchr::memchr(b'"', lease.get(from..)?)?;
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toono_mvcc::Owner;

    use super::*;
    use crate::encode;

    fn lease(name: &str, rev: u64, renewed: &str) -> Entry {
        let lease = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": name, "annotations": {"renewTime": "x", "spec": "{\"renewTime\":\"\"}"},
                "managedFields": [{"fieldsV1": {"f:spec": {"f:renewTime": {}}}}]},
            "spec": {"holderIdentity": "\"renewTime\":\"", "renewTime": renewed}});
        Entry {
            key: Key::new("coordination.k8s.io", "leases", "kube-node-lease", name),
            value: encode::draft_of(&lease).seal(Rev(rev)),
            created: Rev(1),
            modified: Rev(rev),
            owner: Owner::PLATFORM,
        }
    }

    #[test]
    fn a_renewal_shows_until_something_newer_is_written() {
        let renewals = Renewals::new(false);
        let shown = |mut lease: Entry| {
            renewals.show(&mut lease);
            lease
        };
        assert_eq!(shown(lease("a", 5, "t0")), lease("a", 5, "t0"));
        assert!(renewals.may_renew(&lease("a", 5, "t0")));
        renewals.renew(&lease("a", 5, "t0"), "t1");
        renewals.renew(&shown(lease("a", 5, "t0")), "t2");
        assert_eq!(shown(lease("a", 5, "t0")), lease("a", 5, "t2"));
        assert_eq!(shown(lease("b", 5, "t0")), lease("b", 5, "t0"));
        assert_eq!(shown(lease("a", 6, "t3")), lease("a", 6, "t3"));
        assert_eq!(time_of(&lease("a", 6, "t3").value), Some(&b"t3"[..]));
    }

    #[test]
    fn renewals_are_written_in_time_and_those_that_rest_are_forgotten() {
        let renewals = Renewals::new(true);
        renewals.renew(&lease("a", 5, "t0"), "t1");
        let due = renewals.known().renewals.values().next().unwrap().written_by;
        let until = due.duration_since(Instant::now());
        assert!(until > UNSEEN_MAX * 3 / 4 && until <= UNSEEN_MAX, "{until:?}");
        renewals.known().renewals.values_mut().for_each(|it| it.written_by = Instant::now());
        assert!(!renewals.may_renew(&lease("a", 5, "t0")));
        assert!(renewals.may_renew(&lease("a", 6, "t1")), "it was written");

        let long_ago = Instant::now().checked_sub(FORGOTTEN_AFTER);
        let Some(long_ago) = long_ago else { return };
        for number in 0..FEW {
            renewals.renew(&lease(&format!("b{number}"), 1, "t"), "t");
        }
        renewals.known().renewals.values_mut().for_each(|it| it.at = long_ago);
        renewals.known().room = 0;
        renewals.renew(&lease("c", 1, "t"), "t");
        assert_eq!(renewals.known().renewals.len(), 1);
    }
}
