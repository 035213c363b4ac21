//! What is remembered of a set between two looks at it, so that a look at a thousand pools of which one changed
//! costs one pool's work. All of it can be lost: then everything is compared once more.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use crate::key::Key;

/// First pause after the API refused a pool's workload; it doubles with each further refusal. Most refusals last
/// until somebody changes something, which is then tried at once.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest such pause: a quota that was raised is noticed after it.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Doublings after which the pause is the longest anyway.
const MAX_DOUBLINGS: u32 = 6;

/// Memories of all sets.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<Key, Memory>>);

/// What is remembered of one set.
#[derive(Default)]
pub(super) struct Memory {
    uid: String,
    pub(super) pools: HashMap<String, PoolMemory>,
    /// When its status was written last.
    pub(super) status_at: Option<Instant>,
    /// What was told of it last, which is not told again.
    pub(super) told: HashMap<&'static str, String>,
}

/// What a pool's workload is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    pub(super) revision: Arc<str>,
    /// Places of its tweaks.
    pub(super) tweaks: Vec<usize>,
}

/// What is remembered of one pool, for one basis.
#[derive(Clone, Debug)]
pub(super) struct PoolMemory {
    pub(super) basis: Basis,
    /// The version of the workload that was found to be as it should.
    pub(super) checked: Option<String>,
    /// The version that was written over. While the cache shows it, it is behind.
    pub(super) written_over: Option<String>,
    /// What the API, or who has a say in it, made different of what was written.
    pub(super) accepted: Option<u64>,
    pub(super) notes: Arc<[String]>,
    pub(super) failure: Option<Refusal>,
}

/// Why a pool's workload could not be made or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: String,
    tries: u32,
    pub(super) again: Instant,
}

impl Refusal {
    /// One more after those before.
    pub(super) fn after(before: Option<&Self>, why: String, now: Instant) -> Self {
        let tries = before.map_or(0, |before| before.tries);
        let pause = (FIRST_RETRY * 2_u32.pow(tries.min(MAX_DOUBLINGS))).min(LONGEST_RETRY);
        Self { why, tries: tries + 1, again: now + pause }
    }

    pub(super) fn is_first(&self) -> bool {
        self.tries == 1
    }
}

impl PoolMemory {
    pub(super) fn new(basis: Basis) -> Self {
        Self {
            basis,
            checked: None,
            written_over: None,
            accepted: None,
            notes: Arc::default(),
            failure: None,
        }
    }
}

impl Memories {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of this very set, which nobody else has until it is put back.
    pub(super) fn take(&self, key: &Key, uid: &str) -> Memory {
        let known = self.all().remove(key).filter(|memory| memory.uid == uid);
        known.unwrap_or_else(|| Memory { uid: uid.to_owned(), ..Memory::default() })
    }

    pub(super) fn put(&self, key: &Key, memory: Memory) {
        self.all().insert(key.clone(), memory);
    }

    pub(super) fn forget(&self, key: &Key) {
        self.all().remove(key);
    }
}

/// Tells a patch from another one.
pub(super) fn fingerprint(patch: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    patch.to_string().hash(&mut hasher);
    hasher.finish()
}
