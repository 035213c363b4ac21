//! The judges on histories whose truth is known: those made by a correct store are accepted, and each
//! planted bug is found.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use toono_linear::dice::Dice;
use toono_linear::linear;
use toono_linear::story::{self, Contradiction};
use toono_linear::{Action, Call, Change, Expect, Outcome, Snapshot, Story};

const KEYS: u64 = 3;

/// What a correct store would do: each call happens at one moment between its two ends.
struct Made {
    calls: Vec<Call>,
    story: Story,
    lists: Vec<Snapshot>,
}

fn make(seed: u64, count: u64, lose: u64) -> Made {
    let mut dice = Dice(seed);
    let mut made = Made { calls: Vec::new(), story: Story::default(), lists: Vec::new() };
    let mut values: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    let mut rev = 0;
    for n in 1..=count {
        let key = usize::try_from(dice.below(KEYS)).unwrap();
        let value = values.get(&key).map(|(_, id)| *id);
        let expect = match (dice.below(4), value) {
            (0, _) => Expect::Any,
            (1, Some(_)) => Expect::Present,
            (1, _) => Expect::Absent,
            (2, Some(id)) => Expect::Is(id),
            _ => Expect::Is(dice.below(n)),
        };
        let (deletes, action) = match dice.below(4) {
            0 => (false, Action::Get),
            1 => (true, Action::Delete { id: n, expect }),
            _ => (false, Action::Put { id: n, expect }),
        };
        let holds = match expect {
            Expect::Any => !deletes || value.is_some(),
            Expect::Absent => !deletes && value.is_none(),
            Expect::Present => value.is_some(),
            Expect::Is(id) => value == Some(id),
        };
        let lost = dice.below(100) < lose;
        let outcome = match action {
            Action::Get => Outcome::Found { current: value },
            _ if !holds && n.is_multiple_of(2) => Outcome::Unmet,
            _ if !holds => Outcome::Refused { current: value },
            // A lost write that did not happen.
            _ if lost && dice.below(2) == 0 => Outcome::Unknown,
            _ => {
                rev += 1;
                if deletes {
                    values.remove(&key)
                } else {
                    values.insert(key, (rev, n))
                };
                made.story.0.push(Change { rev, key, id: n, deleted: deletes });
                Outcome::Done { rev }
            }
        };
        // The moment is 100n; calls overlap with some ten others.
        let (start, end) = (n * 100 - dice.below(1000).min(n * 100), n * 100 + dice.below(1000));
        let outcome = if lost { Outcome::Unknown } else { outcome };
        made.calls.push(Call { key, start, end, action, outcome });
        if dice.below(10) == 0 {
            let values = values.iter().map(|(key, (rev, id))| (*key, *rev, *id)).collect();
            made.lists.push(Snapshot { rev, values });
        }
    }
    made
}

impl Made {
    fn judge(&self) -> Result<(), String> {
        linear::check(&self.calls).map_err(|error| error.to_string())?;
        let stories = [self.story.clone(), self.story.clone()];
        story::check(&stories, &self.calls, &self.lists).map_err(|error| error.to_string())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_correct_store_did_is_accepted(seed: u64, count in 0..300_u64, lose in 0..20_u64) {
        prop_assert_eq!(make(seed, count, lose).judge(), Ok(()));
    }

    /// A read that begins after a write was answered finds the value of before.
    #[test]
    fn a_stale_read_is_found(seed: u64) {
        let mut made = make(seed, 100, 0);
        let end = made.calls.iter().map(|call| call.end).max().unwrap();
        let call = |n: u64, action, outcome| {
            Call { key: 0, start: end + 2 * n + 1, end: end + 2 * n + 2, action, outcome }
        };
        for n in [0, 1] {
            let put = Action::Put { id: 1000 + n, expect: Expect::Any };
            made.calls.push(call(n, put, Outcome::Done { rev: 1000 + n }));
        }
        made.calls.push(call(2, Action::Get, Outcome::Found { current: Some(1001) }));
        prop_assert!(linear::check(&made.calls).is_ok());
        made.calls.push(call(3, Action::Get, Outcome::Found { current: Some(1000) }));
        prop_assert!(linear::check(&made.calls).is_err());
        // It is no error if the writes may have been done in the other order.
        made.calls.pop();
        made.calls.pop();
        let last = made.calls.len() - 1;
        made.calls[last].start = end + 1;
        made.calls.push(call(3, Action::Get, Outcome::Found { current: Some(1000) }));
        prop_assert!(linear::check(&made.calls).is_ok());
    }

    /// A write was answered, and then it was not there.
    #[test]
    fn a_lost_write_is_found(seed: u64) {
        let mut made = make(seed, 100, 0);
        let end = made.calls.iter().map(|call| call.end).max().unwrap();
        let call = |n: u64, action, outcome| {
            Call { key: 1, start: end + 2 * n + 1, end: end + 2 * n + 2, action, outcome }
        };
        let before = made.story.0.iter().rfind(|change| change.key == 1 && !change.deleted);
        let current = before.map(|change| change.id);
        let put = Action::Put { id: 1000, expect: Expect::Any };
        made.calls.push(call(0, put, Outcome::Done { rev: 1000 }));
        made.calls.push(call(1, Action::Get, Outcome::Found { current }));
        prop_assert!(linear::check(&made.calls).is_err());
        // Also when nobody reads it.
        made.calls.pop();
        prop_assert!(linear::check(&made.calls).is_ok());
        let told = story::check(&[made.story], &made.calls, &[]);
        prop_assert!(matches!(told, Err(Contradiction::Untold(_))), "{:?}", told);
    }

    /// Two writes were told that they had replaced the same value.
    #[test]
    fn a_condition_that_held_twice_is_found(seed: u64) {
        let mut made = make(seed, 100, 0);
        let done = |call: &&Call| matches!(
            (call.action, call.outcome),
            (Action::Put { expect: Expect::Is(_), .. }, Outcome::Done { .. })
        );
        let Some(mut twice) = made.calls.iter().find(done).copied() else { return Ok(()) };
        let Action::Put { expect, .. } = twice.action else { return Ok(()) };
        twice.action = Action::Put { id: 1000, expect };
        made.calls.push(twice);
        prop_assert!(linear::check(&made.calls).is_err());
    }

    #[test]
    fn a_doubled_event_is_found(seed: u64, at: usize) {
        let mut made = make(seed, 100, 0);
        let at = at % made.story.0.len();
        let change = made.story.0[at];
        made.story.0.insert(at + 1, change);
        prop_assert!(made.judge().is_err());
        // Also as another revision, which is how a write that is done twice looks.
        made.story.0.remove(at + 1);
        made.story.0.push(Change { rev: 1000, ..change });
        prop_assert!(made.judge().is_err());
    }

    #[test]
    fn a_reordered_event_is_found(seed: u64, at: usize) {
        let mut made = make(seed, 100, 0);
        let at = at % (made.story.0.len() - 1);
        made.story.0.swap(at, at + 1);
        prop_assert!(made.judge().is_err());
    }

    #[test]
    fn a_missing_event_is_found(seed: u64, at: usize) {
        let mut made = make(seed, 100, 0);
        let whole = made.story.clone();
        let at = at % made.story.0.len();
        made.story.0.remove(at);
        prop_assert!(made.judge().is_err());
        // Also in one watch of two.
        let told = story::check(&[whole, made.story], &made.calls, &[]);
        prop_assert_eq!(told, Err(Contradiction::Disagreement { watch: 1, at }));
    }

    #[test]
    fn a_list_of_two_moments_is_found(seed: u64, at: usize) {
        let mut made = make(seed, 100, 0);
        prop_assume!(made.lists.iter().any(|list| !list.values.is_empty()));
        made.lists.retain(|list| !list.values.is_empty());
        let at = at % made.lists.len();
        made.lists[at].values.pop();
        prop_assert!(made.judge().is_err());
    }
}
