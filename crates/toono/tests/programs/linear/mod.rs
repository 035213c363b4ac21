//! Clients of servers that are killed again and again: whatever happens, there is one story.
//!
//! Seeded clients write under conditions, read, list and watch PodTemplates over HTTPS: a kind that no
//! controller touches, and whose deletion is answered with the revision that it was done at. What they
//! saw is judged as in the store's own test, key by key and as a whole; here with everything between a
//! program and the store: TLS, admission, the verbs' own retries, the resumption of watches.

mod clients;
mod record;
mod watches;

use std::{sync::Arc, time::Duration};

use toono_linear::{
    Action, Call, History, Outcome, dice::Dice, etcd_server::EtcdServer, journal, linear, story,
};

use self::{clients::Clients, record::Record};
use crate::server::Server;

/// Calls between two crashes.
const CALLS: usize = 250;
const CRASHES: usize = 10;
const SEED: u64 = 7;
/// What may stay of the journal after what somebody was told of: less than two writes.
const SPARE_BYTES: u64 = 200;
/// How long all calls of a phase may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn judge(history: &History) -> Result<(), String> {
    linear::check(&history.calls).map_err(|error| error.to_string())?;
    let (stories, lists) = (&history.stories, &history.lists);
    story::check(stories, &history.calls, lists).map_err(|error| error.to_string())
}

fn accept(history: &History) {
    let (calls, unknown) = (history.calls.len(), history.unknown());
    println!(
        "{calls} calls, {unknown} without an answer, {} lists, {} events",
        history.lists.len(),
        history.stories[0].0.len()
    );
    assert!(unknown > 0, "no crash met a call: the test tests nothing");
    assert!(history.stories[0].0.len() > calls / 20);
    judge(history).unwrap_or_else(|error| panic!("seed {SEED}: {error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_linearizable_under_kills_and_torn_tails() {
    let mut server = Server::start(&[], None);
    let mut dice = Dice(SEED);
    let record = Arc::new(Record::default());
    let clients = Clients::start(&record, vec![server.ready().await], SEED).await;
    for _ in 0..CRASHES {
        record.answered(CALLS, PATIENCE).await;
        server.kill();
        // What nobody was told of may be lost in a power cut, or be half there.
        journal::tear(&server.store(), record.newest(), SPARE_BYTES, &mut dice);
        server.spawn();
    }
    record.answered(CALLS, PATIENCE).await;
    clients.finish(PATIENCE).await;
    let history = record.history();
    accept(&history);
    each_planted_bug_is_found(&history);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_on_one_etcd_are_linearizable_under_kills_of_either() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let one = Server::start(&["--store", &store], None);
    let first = one.ready().await;
    let two = Server::start(&["--store", &store], Some(&one));
    let second = two.ready().await;
    let mut servers = [one, two];
    let mut dice = Dice(SEED);
    let record = Arc::new(Record::default());
    let clients = Clients::start(&record, vec![first, second], SEED).await;
    for _ in 0..CRASHES {
        record.answered(CALLS, PATIENCE).await;
        servers[usize::from(dice.below(2) == 1)].restart();
    }
    record.answered(CALLS, PATIENCE).await;
    clients.finish(PATIENCE).await;
    let history = record.history();
    accept(&history);
    each_planted_bug_is_found(&history);
}

/// A server that loses what it acknowledged: its journal is cut further than any power cut could.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loses_acknowledged_writes_is_found_out() {
    let mut server = Server::start(&[], None);
    let record = Arc::new(Record::default());
    let clients = Clients::start(&record, vec![server.ready().await], SEED).await;
    record.answered(CALLS, PATIENCE).await;
    server.kill();
    let lost = 20;
    journal::tear(&server.store(), record.newest() - lost, SPARE_BYTES, &mut Dice(SEED));
    server.spawn();
    record.answered(CALLS, PATIENCE).await;
    clients.stop(PATIENCE).await;
    let history = record.history();
    linear::check(&history.calls).expect_err("lost writes went unnoticed");
}

/// Spoils a good history in every way that a server could, one at a time.
fn each_planted_bug_is_found(good: &History) {
    let found = |what: &str, spoil: &dyn Fn(&mut History)| {
        let mut bad = good.clone();
        spoil(&mut bad);
        assert_ne!(&bad, good, "{what}: nothing was planted");
        assert!(judge(&bad).is_err(), "{what} was not found");
    };
    let middle = good.stories[0].0.len() / 2;
    found("a lost event", &|it| {
        it.stories[1].0.remove(middle);
    });
    found("a doubled event", &|it| {
        let change = it.stories[0].0[middle];
        it.stories[0].0.insert(middle, change);
    });
    found("an event out of order", &|it| it.stories[0].0.swap(middle, middle + 1));
    found("an event that all watches lost", &|it| {
        let answered = |call: &Call| match call.outcome {
            Outcome::Done { rev } => Some(rev),
            _ => None,
        };
        let rev = it.calls.iter().filter_map(answered).nth(10).unwrap();
        it.stories.iter_mut().for_each(|story| story.0.retain(|change| change.rev != rev));
    });
    found("a list that lacks an object", &|it| {
        let list = it.lists.iter_mut().find(|list| !list.values.is_empty()).unwrap();
        list.values.pop();
    });
    // A read of the value before the last write that was answered before the read began.
    found("a stale read", &|it| {
        let (at, old) = stale(&it.calls);
        it.calls[at].outcome = Outcome::Found { current: old };
    });
}

/// A read that found something, and a value that was overwritten before the read was made.
fn stale(calls: &[Call]) -> (usize, Option<u64>) {
    let reads = calls.iter().enumerate().rev();
    let mut found = reads.filter_map(|(at, read)| {
        let Outcome::Found { current: Some(now) } = read.outcome else { return None };
        let put = |call: &&Call| call.key == read.key && call.end < read.start;
        let overwrites =
            calls.iter().filter(put).find_map(|call| match (call.action, call.outcome) {
                (
                    Action::Put { expect: toono_linear::Expect::Is(old), .. }
                    | Action::Delete { expect: toono_linear::Expect::Is(old), .. },
                    Outcome::Done { .. },
                ) if old != now => Some(old),
                _ => None,
            });
        overwrites.map(|old| (at, Some(old)))
    });
    found.next().unwrap()
}
