//! Whether watches, lists and answers tell one story: the same changes, in the same order, each once.
//! It must not guess: what a client was not told does not count.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::{Action, Call, Change, Outcome, Snapshot, Story};

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// A watch told a revision after a later one, or a key twice at one.
    Disorder {
        /// Which watch.
        watch: usize,
        /// The change that came too late.
        change: Change,
    },
    /// Two watches did not tell the same.
    Disagreement {
        /// Which watch differs from the first.
        watch: usize,
        /// Where, counted in changes.
        at: usize,
    },
    /// A write that was answered was not told, or not as it was answered.
    Untold(Call),
    /// A change that was told is no write that anybody asked for, or one that was refused.
    Invented(Change),
    /// A write was told twice.
    Doubled(Change),
    /// A list did not show what was told up to its revision.
    Mislisted(Snapshot),
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Compares everything with everything. The stories are of watches that have caught up with the end.
///
/// # Errors
/// The first thing that does not fit.
pub fn check(
    stories: &[Story],
    calls: &[Call],
    snapshots: &[Snapshot],
) -> Result<(), Contradiction> {
    for (watch, story) in stories.iter().enumerate() {
        in_order(watch, story)?;
    }
    let Some((story, others)) = stories.split_first() else { return Ok(()) };
    for (watch, other) in others.iter().enumerate() {
        if other != story {
            let same = other.0.iter().zip(&story.0).take_while(|(a, b)| a == b).count();
            return Err(Contradiction::Disagreement { watch: watch + 1, at: same });
        }
    }
    as_answered(story, calls)?;
    as_listed(story, snapshots)
}

/// Revisions rise; at one revision, every key comes once.
fn in_order(watch: usize, story: &Story) -> Result<(), Contradiction> {
    let mut newest: HashMap<usize, u64> = HashMap::new();
    let mut rev = 0;
    for change in &story.0 {
        let before = newest.insert(change.key, change.rev);
        if change.rev < rev || before.is_some_and(|before| before >= change.rev) {
            return Err(Contradiction::Disorder { watch, change: *change });
        }
        rev = change.rev;
    }
    Ok(())
}

/// Every change is one write's, and every write that was answered is one change.
fn as_answered(story: &Story, calls: &[Call]) -> Result<(), Contradiction> {
    let mut writes: HashMap<(usize, u64, bool), &Call> = HashMap::new();
    for call in calls {
        match call.action {
            Action::Put { id, .. } => writes.insert((call.key, id, false), call),
            Action::Delete { id, .. } => writes.insert((call.key, id, true), call),
            Action::Get => None,
        };
    }
    let mut told: HashMap<(usize, u64, bool), u64> = HashMap::new();
    for change in &story.0 {
        let write = (change.key, change.id, change.deleted);
        if told.insert(write, change.rev).is_some() {
            return Err(Contradiction::Doubled(*change));
        }
        match writes.get(&write).map(|call| call.outcome) {
            Some(Outcome::Unknown) => {}
            Some(Outcome::Done { rev }) if rev == change.rev => {}
            _ => return Err(Contradiction::Invented(*change)),
        }
    }
    for (write, call) in writes {
        if matches!(call.outcome, Outcome::Done { .. }) && !told.contains_key(&write) {
            return Err(Contradiction::Untold(*call));
        }
    }
    Ok(())
}

fn as_listed(story: &Story, snapshots: &[Snapshot]) -> Result<(), Contradiction> {
    let mut by_rev: Vec<&Snapshot> = snapshots.iter().collect();
    by_rev.sort_by_key(|snapshot| snapshot.rev);
    let mut changes = story.0.iter().peekable();
    let mut values: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for snapshot in by_rev {
        while let Some(change) = changes.next_if(|change| change.rev <= snapshot.rev) {
            if change.deleted {
                values.remove(&change.key);
            } else {
                values.insert(change.key, (change.rev, change.id));
            }
        }
        let there = values.iter().map(|(key, (rev, id))| (*key, *rev, *id));
        if !there.eq(snapshot.values.iter().copied()) {
            return Err(Contradiction::Mislisted(snapshot.clone()));
        }
    }
    Ok(())
}
