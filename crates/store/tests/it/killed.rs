//! A process with an open store is killed under load; what it said was committed must be there.
//!
//! The child is this test program again, started with the one test that is the load. Called by the
//! test runner, without a directory in the environment, that test has nothing to do.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use toono_store::{Expect, OpenError, Rev, Store, StoreConfig};

use crate::setup::{open, pod, put, sealed, text};

const DIR: &str = "TOONO_STORE_TEST_DIR";
const WRITERS: usize = 16;
/// Acknowledged commits after which the child is killed.
const ENOUGH: usize = 2000;
const ROUNDS: usize = 3;

/// What the child does: commits as fast as it can, and prints each that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn load_until_killed() {
    let Some(dir) = env::var_os(DIR) else { return };
    let mut config = StoreConfig::new(dir);
    // Files are changed and snapshots written under the load, too.
    config.segment_bytes = 50_000;
    config.snapshot_after_bytes = 200_000;
    let (store, _) = Store::open(config).unwrap();
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            for n in 0_u64.. {
                let name = format!("w{writer}-{}", n % 10);
                let rev = put(&store, Expect::Any, pod(&name), &name).await.unwrap().rev;
                // One write for the line, so that it is never torn between two writers.
                let line = format!("committed {name} {rev}\n");
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    let mut newest = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "killed::load_until_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: &str| {
            // The test harness prints lines of its own.
            let mut words = line.split_once("committed ").unwrap_or_default().1.split(' ');
            let (Some(name), Some(rev)) = (words.next(), words.next()) else { return false };
            let Ok(rev) = rev.parse::<u64>() else { return false };
            let latest = acknowledged.entry(name.to_owned()).or_default();
            *latest = rev.max(*latest);
            newest = rev.max(newest);
            true
        };
        let mut count = 0;
        while count < ENOUGH {
            let line = lines.next().expect("the child ended by itself").unwrap();
            count += usize::from(note(&line));
        }
        let taken = Store::open(StoreConfig::new(dir.path()));
        assert!(matches!(taken, Err(OpenError::Taken { .. })));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            note(&line.unwrap());
        }

        let (store, recovery) = open(dir.path());
        assert!(recovery.revision >= Rev(newest), "round {round}: {recovery:?} after {newest}");
        for (name, rev) in &acknowledged {
            let entry = store.get(&pod(name), None).unwrap().unwrap();
            assert!(entry.modified >= Rev(*rev), "{name} at {} after {rev}", entry.modified);
            assert_eq!(text(&entry), sealed(name, entry.modified.0));
        }
    }
}
