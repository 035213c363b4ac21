//! The record of what all clients did and saw. It judges nothing.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::PodTemplate;
use kube::ResourceExt as _;
use tokio::sync::watch;
use toono_linear::{Action, Call, Change, Expect, History, Outcome, Snapshot, Story};

/// The annotation with the number of the write.
pub(super) const WRITE: &str = "write";

#[derive(Default)]
pub(super) struct Record {
    clock: AtomicU64,
    ids: AtomicU64,
    pub(super) stop: AtomicBool,
    pub(super) answers: watch::Sender<usize>,
    pub(super) seen: Mutex<Seen>,
    newest: AtomicU64,
}

#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) calls: Vec<Call>,
    pub(super) lists: Vec<Snapshot>,
    /// Of each watch. A deletion has the number of the write that it removed.
    pub(super) told: Vec<Vec<Change>>,
}

impl Record {
    /// Waits until so many more calls were answered.
    pub(super) async fn answered(&self, more: usize, patience: Duration) {
        let mut answers = self.answers.subscribe();
        let enough = *answers.borrow() + more;
        let waited = tokio::time::timeout(patience, answers.wait_for(|count| *count >= enough));
        waited.await.expect("clients get no answers").unwrap();
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn ended(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The newest revision that anybody was told.
    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// Somebody was told this revision.
    pub(super) fn told(&self, rev: u64) -> u64 {
        self.newest.fetch_max(rev, Ordering::SeqCst);
        rev
    }

    pub(super) fn add(&self, call: Call) {
        self.seen.lock().unwrap().calls.push(call);
        if call.outcome != Outcome::Unknown {
            self.answers.send_modify(|count| *count += 1);
        }
    }

    /// Events of deletions do not say whose they are, so they are given to the call that was answered
    /// with their revision, else to one without an answer that named the removed version.
    pub(super) fn history(&self) -> History {
        let Seen { calls, lists, told } = self.seen.lock().unwrap().clone();
        let mut deletions: HashMap<(usize, u64), u64> = HashMap::new();
        for call in &calls {
            let Action::Delete { id, expect: Expect::Is(removed) } = call.action else { continue };
            match call.outcome {
                Outcome::Done { .. } => drop(deletions.insert((call.key, removed), id)),
                Outcome::Unknown => {
                    deletions.entry((call.key, removed)).or_insert(id);
                }
                _ => {}
            }
        }
        let mut stories: Vec<Story> = told.into_iter().map(Story).collect();
        for change in stories.iter_mut().flat_map(|story| &mut story.0).filter(|it| it.deleted) {
            change.id = deletions.get(&(change.key, change.id)).copied().unwrap_or(u64::MAX);
        }
        History { calls, lists, stories }
    }
}

/// The number in the object's name.
pub(super) fn key(object: &PodTemplate) -> usize {
    object.name_any().strip_prefix('k').unwrap().parse().unwrap()
}

pub(super) fn rev(object: &PodTemplate) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

/// The number of the write that made this version.
pub(super) fn id(object: &PodTemplate) -> u64 {
    object.annotations()[WRITE].parse().unwrap()
}
