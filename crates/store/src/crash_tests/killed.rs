//! The same in a process that is killed for real, on a real directory: before every write, sync, rename
//! and removal of the journal, of snapshots and of what they replace, and in the middle of every write.
//!
//! What a killed process wrote stays in the kernel, so that "after a call" is "before the next one".
//!
//! The child is this test program again, started with the one test that is the load. Called by the test
//! runner, without a directory in the environment, that test has nothing to do.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};

use super::power::Dice;
use super::{BATCHES, Model, Rig};
use crate::disk::{Append, Directory, Disk};

const DIR: &str = "TOONO_STORE_CRASH_DIR";
/// The number of the call at which to die, and where in it.
const AT: &str = "TOONO_STORE_CRASH_AT";
const WHERE: &str = "TOONO_STORE_CRASH_WHERE";

const SEED: u64 = 7;

/// A recovery has at most about so many calls.
const RECOVERY_CALLS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// Before the call; all that change something count.
    Before,
    /// In the middle of a write; only writes count.
    Middle,
}

#[derive(Debug)]
struct Fuse {
    at: usize,
    position: Where,
    calls: AtomicUsize,
}

impl Fuse {
    /// Counts a call, and dies if it is its turn to.
    fn before(&self) {
        if self.position == Where::Before && self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            die();
        }
    }

    /// Whether to die in the middle of this write.
    fn is_due(&self) -> bool {
        self.before();
        self.position == Where::Middle && self.calls.fetch_add(1, Ordering::SeqCst) == self.at
    }
}

fn die() {
    raise(Signal::SIGKILL).unwrap();
}

/// A directory in which a call can be deadly.
struct DeadlyDisk {
    directory: Directory,
    fuse: Arc<Fuse>,
}

impl Disk for DeadlyDisk {
    fn dir(&self) -> &Path {
        self.directory.dir()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.directory.names()
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        self.directory.read(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Append>> {
        self.fuse.before();
        let file = self.directory.create(name)?;
        Ok(Box::new(DeadlyFile { file, fuse: Arc::clone(&self.fuse) }))
    }

    fn resume(&self, name: &str, len: u64) -> io::Result<Box<dyn Append>> {
        self.fuse.before();
        let file = self.directory.resume(name, len)?;
        Ok(Box::new(DeadlyFile { file, fuse: Arc::clone(&self.fuse) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fuse.before();
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.fuse.before();
        self.directory.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.fuse.before();
        self.directory.sync_dir()
    }
}

struct DeadlyFile {
    file: Box<dyn Append>,
    fuse: Arc<Fuse>,
}

impl Append for DeadlyFile {
    fn reserve(&mut self, bytes: usize) -> io::Result<()> {
        if self.fuse.is_due() {
            self.file.reserve(bytes / 2)?;
            die();
        }
        self.file.reserve(bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.fuse.is_due() {
            self.file.append(&bytes[..bytes.len() / 2])?;
            die();
        }
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.fuse.before();
        self.file.sync()
    }
}

/// What the child does: opens the store, commits batch after batch, and says which were acknowledged.
#[test]
fn work_until_killed() {
    let Some(dir) = env::var_os(DIR) else { return };
    let text = |name| env::var_os(name).unwrap().into_string().unwrap();
    let position = if text(WHERE) == "middle" { Where::Middle } else { Where::Before };
    let fuse = Fuse { at: text(AT).parse().unwrap(), position, calls: AtomicUsize::new(0) };
    let directory = Directory::open(Path::new(&dir)).unwrap();
    let disk = DeadlyDisk { directory, fuse: Arc::new(fuse) };
    let mut rig = Rig::on(Arc::new(disk)).unwrap();
    let say = |line: String| io::stdout().lock().write_all(line.as_bytes()).unwrap();
    if rig.memory.visible().0 > 0 {
        // Recovered without dying: that was all.
        say("finished\n".to_owned());
        return;
    }
    let (mut model, mut dice) = (Model::new(), Dice(SEED));
    let mut now = Instant::now();
    for _ in 0..BATCHES {
        assert!(rig.batch(model.batch(&mut dice)).iter().all(Result::is_ok));
        say(format!("acknowledged {}\n", rig.memory.visible()));
        now += Duration::from_secs(100);
        rig.upkeep.turn(now);
    }
    say("finished\n".to_owned());
}

/// Runs the child; whether it ended by itself, and the newest revision that it acknowledged.
fn child(dir: &Path, at: usize, position: Where) -> (bool, usize) {
    let position = if position == Where::Middle { "middle" } else { "before" };
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash_tests::killed::work_until_killed", "--nocapture"])
        .env(DIR, dir)
        .env(AT, at.to_string())
        .env(WHERE, position)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut finished, mut acknowledged) = (false, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // The test harness prints on the same lines.
        let line = line.unwrap();
        finished |= line.ends_with("finished");
        if let Some((_, rev)) = line.split_once("acknowledged ") {
            acknowledged = rev.parse().unwrap();
        }
    }
    assert_eq!(child.wait().unwrap().success(), finished, "the child failed by itself");
    (finished, acknowledged)
}

/// All states that the load goes through, and at which revisions its batches end.
fn expected() -> (Model, Vec<usize>) {
    let (mut model, mut dice) = (Model::new(), Dice(SEED));
    let mut ends = vec![0];
    for _ in 0..BATCHES {
        model.batch(&mut dice);
        ends.push(model.states.len() - 1);
    }
    (model, ends)
}

fn killed_everywhere(position: Where) -> usize {
    let (model, ends) = expected();
    let mut dice = Dice(SEED);
    for at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let (finished, acknowledged) = child(dir.path(), at, position);
        if finished {
            return at;
        }
        // Once more while it recovers.
        let again = usize::try_from(dice.roll() % RECOVERY_CALLS).unwrap();
        if acknowledged > 0 {
            child(dir.path(), again, Where::Before);
        }
        let rig = Rig::on(Arc::new(Directory::open(dir.path()).unwrap())).unwrap();
        let rev = usize::try_from(rig.memory.visible().0).unwrap();
        let next = ends.iter().find(|end| **end > acknowledged);
        assert!(
            rev == acknowledged || Some(&rev) == next,
            "killed at {at}: {rev} after {acknowledged} was acknowledged, next is {next:?}"
        );
        assert_eq!(rig.objects(), model.states[rev], "killed at {at}");
    }
    unreachable!("the loop has no end of its own")
}

#[test]
fn killed_before_any_call_it_loses_nothing_acknowledged() {
    let calls = killed_everywhere(Where::Before);
    assert!(calls > 80, "only {calls} calls");
}

#[test]
fn killed_in_the_middle_of_any_write_it_shows_no_half() {
    let writes = killed_everywhere(Where::Middle);
    assert!(writes > 30, "only {writes} writes");
}
