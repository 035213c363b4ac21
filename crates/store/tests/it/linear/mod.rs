//! Clients of stores that are killed again and again: whatever happens, there is one story.
//!
//! Each store runs in a process of its own, which is this test program again. Seeded clients write
//! under conditions, read, list and watch through a socket. What they saw is then judged: key by key
//! for an order that explains every answer, and as a whole for one sequence of events, told by every
//! watch without a gap or a double, that every list and every answer agrees with.

mod clients;
mod host;

use std::sync::Arc;
use std::time::Duration;

use toono_linear::dice::Dice;
use toono_linear::etcd_server::EtcdServer;
use toono_linear::{linear, story};

use self::clients::{Clients, Record};
use self::host::Host;

/// Calls between two crashes.
const CALLS: usize = 400;
const CRASHES: usize = 5;
const SEED: u64 = 20;

/// How long all calls of a phase may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn judge(record: &Record, seed: u64) {
    let history = record.history();
    let (calls, unknown) = (history.calls.len(), history.unknown());
    println!(
        "seed {seed}: {calls} calls, {unknown} without an answer, {} lists, {} events",
        history.lists.len(),
        history.stories[0].0.len()
    );
    assert!(unknown > 0, "no crash met a call: the test tests nothing");
    assert!(history.stories[0].0.len() > calls / 10);
    if let Err(error) = linear::check(&history.calls) {
        panic!("seed {seed}: {error}");
    }
    if let Err(error) = story::check(&history.stories, &history.calls, &history.lists) {
        panic!("seed {seed}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_linearizable_under_kills_and_torn_tails() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(SEED);
    let mut host = Host::start(&format!("journal:{}", dir.path().display()));
    let record = Arc::new(Record::default());
    let clients = Clients::start(&record, vec![host.socket()], SEED);
    let mut torn = 0;
    for _ in 0..CRASHES {
        record.answered(CALLS, PATIENCE).await;
        host.kill();
        torn += usize::from(record.tear_tail(dir.path(), &mut dice));
        host.restart();
    }
    record.answered(CALLS, PATIENCE).await;
    clients.finish(PATIENCE).await;
    println!("{torn} of {CRASHES} tails had something to lose");
    judge(&record, SEED);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_on_one_etcd_are_linearizable_under_kills_of_either() {
    let mut etcd = EtcdServer::start();
    let engine = format!("etcd:{}", etcd.url());
    let mut hosts = [Host::start(&engine), Host::start(&engine)];
    let record = Arc::new(Record::default());
    let sockets = hosts.iter().map(Host::socket).collect();
    let clients = Clients::start(&record, sockets, SEED);
    let mut dice = Dice(SEED);
    for crash in 0..CRASHES {
        record.answered(CALLS, PATIENCE).await;
        match crash % 3 {
            0 => {
                etcd.kill();
                etcd.restart();
            }
            1 => {
                let host = &mut hosts[usize::try_from(dice.below(2)).unwrap()];
                host.kill();
                host.restart();
            }
            _ => {
                hosts.iter_mut().for_each(Host::kill);
                etcd.kill();
                etcd.restart();
                hosts.iter_mut().for_each(Host::restart);
            }
        }
    }
    record.answered(CALLS, PATIENCE).await;
    clients.finish(PATIENCE).await;
    judge(&record, SEED);
}
