//! The search for an order of calls that explains them: Wing and Gong's, key by key, as keys do not
//! depend on each other, and with Lowe's memory of what was tried. It must not use anything but what
//! clients saw.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::{Action, Call, Expect, Outcome};

/// No order of a key's calls explains them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inexplicable {
    /// The key.
    pub key: usize,
    /// The calls that could not be placed after the longest part that could.
    pub stuck: Vec<Call>,
}

impl fmt::Display for Inexplicable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no order explains the calls about key {}; none of these can be next:",
            self.key
        )?;
        self.stuck.iter().try_for_each(|call| write!(f, "\n  {call:?}"))
    }
}

/// Checks every key's calls. Each key begins without a value.
///
/// # Errors
/// The first key whose calls have no explanation.
pub fn check(calls: &[Call]) -> Result<(), Inexplicable> {
    let mut keys: BTreeMap<usize, Vec<Call>> = BTreeMap::new();
    for call in calls {
        // A read without an answer says nothing.
        if call.action != Action::Get || call.outcome != Outcome::Unknown {
            keys.entry(call.key).or_default().push(*call);
        }
    }
    for (key, mut calls) in keys {
        calls.sort_by_key(|call| call.start);
        Search::new(&calls).run().map_err(|stuck| Inexplicable { key, stuck })?;
    }
    Ok(())
}

/// Which calls were placed.
type Placed = Box<[u64]>;

/// A point of the search: these calls were placed, and this was the value then.
struct Point {
    placed: Placed,
    value: Option<u64>,
    /// All calls before this were placed.
    first: usize,
    count: usize,
}

struct Search<'a> {
    calls: &'a [Call],
    tried: HashSet<(Placed, Option<u64>)>,
    /// The most that were placed, and what could have come next.
    furthest: (usize, Vec<Call>),
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call]) -> Self {
        Self { calls, tried: HashSet::new(), furthest: (0, Vec::new()) }
    }

    fn run(mut self) -> Result<(), Vec<Call>> {
        let words = self.calls.len().div_ceil(64);
        let placed = vec![0; words].into_boxed_slice();
        let mut points = vec![Point { placed, value: None, first: 0, count: 0 }];
        while let Some(point) = points.pop() {
            let next = self.next(&point);
            let answered = next.iter().any(|at| self.answered(*at));
            if !answered {
                // What is left has no answer, and need not have happened.
                return Ok(());
            }
            if point.count >= self.furthest.0 {
                let stuck = next.iter().filter_map(|at| self.calls.get(*at)).copied().collect();
                self.furthest = (point.count, stuck);
            }
            for at in next {
                let Some(call) = self.calls.get(at) else { continue };
                let Some(value) = applied(call, point.value) else { continue };
                let mut placed = point.placed.clone();
                if let Some(word) = placed.get_mut(at / 64) {
                    *word |= 1 << (at % 64);
                }
                if self.tried.insert((placed.clone(), value)) {
                    let mut first = point.first;
                    while is_placed(&placed, first) {
                        first += 1;
                    }
                    points.push(Point { placed, value, first, count: point.count + 1 });
                }
            }
        }
        Err(self.furthest.1)
    }

    /// The calls that may come next: made before the first answer among those that are left.
    fn next(&self, point: &Point) -> Vec<usize> {
        let mut next = Vec::new();
        let mut first_end = u64::MAX;
        for (at, call) in self.calls.iter().enumerate().skip(point.first) {
            if call.start > first_end {
                break;
            }
            if !is_placed(&point.placed, at) {
                next.push(at);
                if self.answered(at) {
                    first_end = first_end.min(call.end);
                }
            }
        }
        next.retain(|at| self.calls.get(*at).is_some_and(|call| call.start <= first_end));
        next
    }

    fn answered(&self, at: usize) -> bool {
        self.calls.get(at).is_some_and(|call| call.outcome != Outcome::Unknown)
    }
}

fn is_placed(placed: &Placed, at: usize) -> bool {
    placed.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
}

/// The value after a call; `None` if the call cannot have had its answer here.
fn applied(call: &Call, value: Option<u64>) -> Option<Option<u64>> {
    let (expect, deletes, after) = match call.action {
        Action::Get => {
            let found = Outcome::Found { current: value };
            return (call.outcome == found).then_some(value);
        }
        Action::Put { id, expect } => (expect, false, Some(id)),
        Action::Delete { expect, .. } => (expect, true, None),
    };
    let holds = match expect {
        Expect::Any => !deletes || value.is_some(),
        Expect::Absent => !deletes && value.is_none(),
        Expect::Present => value.is_some(),
        Expect::Is(id) => value == Some(id),
    };
    match call.outcome {
        Outcome::Done { .. } | Outcome::Unknown => holds.then_some(after),
        Outcome::Refused { current } => (!holds && current == value).then_some(value),
        Outcome::Unmet => (!holds).then_some(value),
        Outcome::Found { .. } => None,
    }
}
