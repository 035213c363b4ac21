//! The table against a naive model that keeps a whole copy of all objects for every revision.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use toono_mvcc::{
    Change, Draft, Entry, Event, EventKind, Expect, Key, Limits, Op, Owner, Page, Prefix, Rejected,
    Restore, Rev, Table, Txn,
};

/// Enough for several objects in two namespaces of two resources, one of which is named like the
/// beginning of the other; few, so that they meet.
const KEYS: usize = 8;

fn key(index: usize) -> Key {
    let plural = if index.is_multiple_of(2) { "pods" } else { "pods-x" };
    let namespace = if index % 4 < 2 { "shop" } else { "shop-b" };
    Key::new("", plural, namespace, &format!("n{}", index / 4))
}

fn prefixes() -> Vec<Prefix> {
    let mut prefixes = vec![Prefix::resource("", "none"), Prefix::namespace("", "pods", "none")];
    for plural in ["pods", "pods-x"] {
        prefixes.push(Prefix::resource("", plural));
        prefixes.push(Prefix::namespace("", plural, "shop"));
        prefixes.push(Prefix::namespace("", plural, "shop-b"));
    }
    prefixes
}

/// What a condition is to be, relative to what is there when its turn comes.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Any,
    Absent,
    Present,
    Old,
}

#[derive(Clone, Debug)]
struct Write {
    key: usize,
    wish: Wish,
    delete: bool,
    owner: usize,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Commit {
        guards: Vec<(usize, Wish)>,
        writes: Vec<Write>,
    },
    /// To so many percent of the way from the floor to the head, in portions.
    Compact {
        percent: u64,
        portion: usize,
    },
}

fn wish() -> impl Strategy<Value = Wish> {
    // Mostly wishes that come true.
    prop_oneof![
        8 => Just(Wish::Any),
        3 => Just(Wish::Present),
        1 => Just(Wish::Absent),
        1 => Just(Wish::Old),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0..KEYS, wish(), prop::bool::weighted(0.3), 0..3_usize, 0..40_usize)
        .prop_map(|(key, wish, delete, owner, bytes)| Write { key, wish, delete, owner, bytes });
    let guard = (0..KEYS, wish());
    prop_oneof![
        9 => (vec(guard, 0..2), vec(write, 0..4))
            .prop_map(|(guards, writes)| Step::Commit { guards, writes }),
        1 => (0..=120_u64, 1..5_usize)
            .prop_map(|(percent, portion)| Step::Compact { percent, portion }),
    ]
}

/// Some are long enough to be packed.
fn draft(bytes: usize) -> Draft {
    Draft::new("x".repeat(bytes * 40), "/")
}

type Objects = BTreeMap<Key, Entry>;

struct Model {
    /// All objects, at every revision.
    states: Vec<Objects>,
    events: Vec<Event>,
    floor: u64,
}

impl Model {
    fn new() -> Self {
        Self { states: vec![Objects::new()], events: Vec::new(), floor: 0 }
    }

    fn head(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn newest(&self) -> &Objects {
        self.states.last().unwrap()
    }

    fn expect(&self, index: usize, wish: Wish) -> Expect {
        let current = self.newest().get(&key(index));
        match wish {
            Wish::Any => Expect::Any,
            Wish::Absent => Expect::Absent,
            Wish::Present => current.map_or(Expect::Absent, |entry| Expect::At(entry.modified)),
            Wish::Old => {
                Expect::At(current.map_or(Rev(1), |entry| Rev(entry.modified.0.saturating_sub(1))))
            }
        }
    }

    fn txn(&self, guards: &[(usize, Wish)], writes: &[Write]) -> Txn {
        let guards = guards.iter().map(|(index, wish)| (key(*index), self.expect(*index, *wish)));
        let ops = writes.iter().map(|write| {
            let expect = self.expect(write.key, write.wish);
            let draft = draft(write.bytes);
            let op = if write.delete {
                Op::Delete { key: key(write.key), last: draft }
            } else {
                let owner = Owner::new(["", "red", "blue"][write.owner]);
                Op::Put { key: key(write.key), value: draft, owner }
            };
            (expect, op)
        });
        Txn { guards: guards.collect(), ops: ops.collect() }
    }

    fn holds(&self, key: &Key, expect: Expect, delete: bool) -> bool {
        let current = self.newest().get(key);
        match expect {
            Expect::Any => !delete || current.is_some(),
            Expect::Absent => !delete && current.is_none(),
            Expect::At(rev) => current.is_some_and(|entry| entry.modified == rev),
        }
    }

    /// The same, or nothing.
    fn apply(&mut self, txn: &Txn) -> bool {
        let holds = txn.guards.iter().all(|(key, expect)| self.holds(key, *expect, false))
            && txn
                .ops
                .iter()
                .all(|(expect, op)| self.holds(op.key(), *expect, matches!(op, Op::Delete { .. })));
        let keys: BTreeSet<_> = txn.ops.iter().map(|(_, op)| op.key()).collect();
        if !holds || keys.len() < txn.ops.len() {
            return false;
        }
        if txn.ops.is_empty() {
            return true;
        }
        let rev = Rev(self.head() + 1);
        let mut objects = self.newest().clone();
        for (_, op) in &txn.ops {
            let prev = objects.get(op.key()).cloned();
            let (kind, owner) = match op {
                Op::Put { owner, .. } => (EventKind::Put, owner.clone()),
                Op::Delete { .. } => (EventKind::Delete, Owner::PLATFORM),
            };
            let entry = Entry {
                key: op.key().clone(),
                value: op.draft().seal(rev),
                created: prev.as_ref().map_or(rev, |prev| prev.created),
                modified: rev,
                owner: prev.as_ref().map_or(owner, |prev| prev.owner.clone()),
            };
            match kind {
                EventKind::Put => objects.insert(entry.key.clone(), entry.clone()),
                EventKind::Delete => objects.remove(&entry.key),
            };
            self.events.push(Event { rev, kind, entry, prev });
        }
        self.states.push(objects);
        true
    }

    fn list(&self, prefix: &Prefix, owner: Option<&Owner>, at: u64) -> Vec<Entry> {
        let objects = self.states[usize::try_from(at).unwrap()].values();
        let wanted = |entry: &&Entry| {
            prefix.contains(&entry.key) && owner.is_none_or(|owner| entry.owner == *owner)
        };
        objects.filter(wanted).cloned().collect()
    }

    fn events(
        &self,
        prefix: &Prefix,
        owner: Option<&Owner>,
        since: u64,
        through: u64,
    ) -> Vec<Event> {
        let wanted = |event: &&Event| {
            event.rev.0 > since
                && event.rev.0 <= through
                && prefix.contains(&event.entry.key)
                && owner.is_none_or(|owner| event.entry.owner == *owner)
        };
        self.events.iter().filter(wanted).cloned().collect()
    }

    /// Compares all that can be read.
    fn check(&self, table: &Table, limit: usize) {
        assert_eq!((table.head().0, table.floor().0), (self.head(), self.floor));
        for at in 0..=self.head() {
            for index in 0..KEYS {
                let key = key(index);
                let got = table.get(&key, Rev(at));
                if at < self.floor {
                    assert_eq!(got.unwrap_err().oldest, Rev(self.floor));
                } else {
                    let entry = self.states[usize::try_from(at).unwrap()].get(&key);
                    assert_eq!(got.unwrap().as_ref(), entry, "{key} at {at}");
                }
            }
            for prefix in prefixes() {
                assert_eq!(
                    count(table, &prefix, at, limit),
                    (at >= self.floor).then(|| self.list(&prefix, None, at).len()),
                    "{prefix:?} at {at}"
                );
                for owner in owners() {
                    let pages = pages(table, &prefix, owner.as_ref(), at, limit);
                    assert_eq!(pages.is_some(), at >= self.floor);
                    if let Some(pages) = pages {
                        let expected = self.list(&prefix, owner.as_ref(), at);
                        assert_eq!(pages, expected, "{prefix:?} of {owner:?} at {at}");
                    }
                }
            }
        }
    }

    /// Compares what a watcher is told, who begins at each revision and reads in pieces.
    fn check_events(&self, table: &Table, through: u64, most: usize) {
        for prefix in prefixes() {
            for (since, owner) in
                (0..=through).flat_map(|since| owners().map(move |it| (since, it)))
            {
                let owner = owner.as_ref();
                let told = watch(table, &prefix, owner, since, through, most).unwrap();
                let expected = self.events(&prefix, owner, since, through);
                assert_eq!(told, expected, "{prefix:?} of {owner:?} from {since}");
            }
        }
    }
}

/// No restriction, and each owner that there is, and one that there is not.
fn owners() -> impl Iterator<Item = Option<Owner>> {
    let names = ["", "red", "blue", "green"].map(|name| Some(Owner::new(name)));
    std::iter::once(None).chain(names)
}

/// Counted in steps, from within the list on, too.
fn count(table: &Table, prefix: &Prefix, at: u64, most: usize) -> Option<usize> {
    let (mut count, mut after) = (0, None);
    loop {
        let counted = table.count(prefix, Rev(at), after.as_ref(), most).ok()?;
        count += counted.objects;
        after = counted.last;
        if after.is_none() {
            return Some(count);
        }
    }
}

fn pages(
    table: &Table,
    prefix: &Prefix,
    owner: Option<&Owner>,
    at: u64,
    limit: usize,
) -> Option<Vec<Entry>> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let after = all.last().map(|entry| entry.key.clone());
        let page = match owner {
            None => table.list(prefix, Rev(at), after.as_ref(), limit),
            Some(owner) => table.list_owned(prefix, owner, Rev(at), after.as_ref(), limit),
        };
        let page = Page::from(page.ok()?);
        assert!(page.entries.len() <= limit && (!page.more || page.entries.len() == limit));
        all.extend(page.entries);
        if !page.more {
            return Some(all);
        }
    }
}

fn watch(
    table: &Table,
    prefix: &Prefix,
    owner: Option<&Owner>,
    since: u64,
    through: u64,
    most: usize,
) -> Option<Vec<Event>> {
    let mut told = Vec::new();
    let mut since = Rev(since);
    loop {
        let part = table.events(prefix, owner, since, Rev(through), most).ok()?;
        told.extend(part.events.into_iter().map(|logged| Event::clone(&Arc::from(logged))));
        assert!(part.through > since || part.through == Rev(through), "no progress at {since}");
        since = part.through;
        if since == Rev(through) {
            return Some(told);
        }
    }
}

/// Does the steps in both.
fn run(steps: &[Step], limits: Limits) -> (Table, Model) {
    let mut table = Table::new(limits);
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Commit { guards, writes } => {
                let txn = model.txn(guards, writes);
                let before = model.newest().clone();
                let agreed = model.apply(&txn);
                match table.apply(txn) {
                    Ok(applied) => {
                        assert!(agreed);
                        assert_eq!(applied.rev.0, model.head());
                        let events: Vec<_> =
                            applied.events.iter().map(|event| Event::clone(event)).collect();
                        let from = model.events.len() - events.len();
                        assert_eq!(events, model.events[from..]);
                    }
                    Err(Rejected::Conflict { key, current }) => {
                        assert!(!agreed);
                        assert_eq!(current.as_ref(), before.get(&key));
                    }
                    Err(Rejected::Duplicate { .. }) => assert!(!agreed),
                }
            }
            Step::Compact { percent, portion } => {
                let floor = model.floor + (model.head() - model.floor) * percent / 100;
                model.floor = floor.min(model.head());
                while table.compact(Rev(floor), *portion) {}
            }
        }
    }
    (table, model)
}

/// Takes the table apart as a store does, as of `at`, and puts it together again.
fn restored(table: &Table, model: &Model, at: u64) -> Table {
    let mut restore = Restore::new(Limits::default());
    for prefix in table.resources() {
        for entry in pages(table, &prefix, None, at, 3).unwrap() {
            restore.push(entry).unwrap();
        }
    }
    let mut restored = restore.finish(Rev(at));
    for rev in at + 1..=model.head() {
        let changes = model.events.iter().filter(|event| event.rev.0 == rev).map(|event| Change {
            kind: event.kind,
            key: event.entry.key.clone(),
            value: event.entry.value.clone(),
            owner: event.entry.owner.clone(),
        });
        restored.replay(Rev(rev), changes.collect()).unwrap();
    }
    restored
}

/// Writes that were taken back were never there: what is done afterwards is done as if they had not been.
fn taken_back(steps: &[Step], again: &[Step]) -> (Table, Model) {
    let limits = Limits { whole_events: 5, ..Limits::default() };
    let (mut table, mut model) = run(steps, limits);
    let (head, before) = (table.head(), model.newest().clone());
    let (states, events) = (model.states.len(), model.events.len());
    let mut undone = Vec::new();
    for step in again {
        if let Step::Commit { guards, writes } = step
            && let Ok(applied) = table.apply(model.txn(guards, writes))
        {
            assert!(model.apply(&model.txn(guards, writes)));
            undone.extend(applied.events);
        }
    }
    table.take_back(head, &undone);
    model.states.truncate(states);
    model.events.truncate(events);
    assert_eq!(*model.newest(), before);
    (table, model)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("failures"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_readable_revision_reads_as_it_was(steps in vec(step(), 0..40), limit in 1..5_usize) {
        let (table, model) = run(&steps, Limits::default());
        model.check(&table, limit);
    }

    #[test]
    fn what_is_taken_back_was_never_there(
        steps in vec(step(), 0..20),
        undone in vec(step(), 0..10),
        later in vec(step(), 0..10),
    ) {
        let (mut table, mut model) = taken_back(&steps, &undone);
        model.check(&table, 3);
        model.check_events(&table, model.head(), 3);
        for step in &later {
            if let Step::Commit { guards, writes } = step {
                let txn = model.txn(guards, writes);
                prop_assert_eq!(table.apply(txn.clone()).is_ok(), model.apply(&txn));
            }
        }
        model.check(&table, 3);
        model.check_events(&table, model.head(), 3);
        while table.compact(table.head(), 1) {}
        prop_assert_eq!(table.history_bytes(), 0);
    }

    #[test]
    fn a_watch_has_no_gap_and_no_double(
        steps in vec(step(), 0..40),
        most in 0..5_usize,
        hidden in 0..5_u64,
        whole_events in 0..20_usize,
    ) {
        let (table, model) = run(&steps, Limits { whole_events, ..Limits::default() });
        // The newest revisions may not be durable yet.
        model.check_events(&table, model.head().saturating_sub(hidden), most);
    }

    #[test]
    fn a_short_event_log_says_so(steps in vec(step(), 0..40), keep in 1..10_usize) {
        let whole = keep / 2;
        let limits =
            Limits { whole_events: whole, rested_events: keep - whole, ..Limits::default() };
        let (table, model) = run(&steps, limits);
        // Packed as they rest, objects are what they were.
        model.check(&table, 3);
        for prefix in prefixes() {
            for since in 0..=model.head() {
                // All of it, or an error that says from where on it would be all of it.
                match watch(&table, &prefix, None, since, model.head(), 3) {
                    Some(told) => prop_assert_eq!(told, model.events(&prefix, None, since, model.head())),
                    None => {
                        let resource = Prefix::of_resource(prefix.resource_name());
                        prop_assert!(model.events(&resource, None, since, model.head()).len() > keep);
                    }
                }
            }
        }
    }

    #[test]
    fn old_events_are_given_up_with_the_history_and_no_others(steps in vec(step(), 0..40)) {
        let limits = Limits {
            whole_events: 3,
            old_whole_event_bytes: 0,
            old_rested_event_bytes: 0,
            ..Limits::default()
        };
        let (mut table, model) = run(&steps, limits);
        while table.compact(table.floor(), 1) {}
        model.check(&table, 3);
        for prefix in prefixes() {
            for since in 0..=model.head() {
                let told = watch(&table, &prefix, None, since, model.head(), 3);
                let all = model.events(&prefix, None, since, model.head());
                prop_assert!(told.is_none_or(|told| told == all));
                let told = watch(&table, &prefix, None, since, model.head(), 3);
                prop_assert!(told.is_some() || since < table.floor().0);
            }
        }
    }

    #[test]
    fn history_costs_nothing_when_all_of_it_is_forgotten(steps in vec(step(), 0..40)) {
        let (mut table, mut model) = run(&steps, Limits::default());
        while table.compact(table.head(), 1) {}
        model.floor = model.head();
        prop_assert_eq!(table.history_bytes(), 0);
        model.check(&table, 3);
    }

    #[test]
    fn a_table_is_the_same_after_a_restart(steps in vec(step(), 0..40), percent in 0..=100_u64) {
        let (table, mut model) = run(&steps, Limits::default());
        let at = model.floor + (model.head() - model.floor) * percent / 100;
        let restored = restored(&table, &model, at);
        model.floor = at;
        model.check(&restored, 3);
        for prefix in prefixes() {
            let told = watch(&restored, &prefix, None, at, model.head(), 3).unwrap();
            prop_assert_eq!(told, model.events(&prefix, None, at, model.head()));
            if at > 0 {
                prop_assert!(watch(&restored, &prefix, None, at - 1, model.head(), 3).is_none());
            }
        }
    }
}

#[test]
fn a_replay_with_a_gap_is_refused() {
    let mut table = Restore::new(Limits::default()).finish(Rev(5));
    assert!(table.replay(Rev(7), Vec::new()).is_err());
    let delete = Change {
        kind: EventKind::Delete,
        key: key(0),
        value: draft(1).seal(Rev(6)),
        owner: Owner::PLATFORM,
    };
    assert!(table.replay(Rev(6), vec![delete]).is_err());
}

#[test]
fn a_restore_out_of_order_is_refused() {
    let entry = |index| Entry {
        key: key(index),
        value: draft(1).seal(Rev(1)),
        created: Rev(1),
        modified: Rev(1),
        owner: Owner::PLATFORM,
    };
    // pods-x before pods; a key twice; a key before the last.
    for (first, second) in [(1, 0), (0, 0), (4, 0)] {
        let mut restore = Restore::new(Limits::default());
        restore.push(entry(first)).unwrap();
        assert!(restore.push(entry(second)).is_err(), "{second} after {first}");
    }
}
