//! Every way to lose power or a write, one after another: after each of them, what was acknowledged is
//! there, and what was not is there whole or not at all.
//!
//! The writer and the upkeep take their turns by hand here and not in threads, so that a seed gives the
//! same run again.

mod killed;
mod power;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use toono_mvcc::{Draft, Expect, Key, Op, Owner, Prefix, Rev, Txn};

use self::power::{Dice, Fault, PowerDisk};
use crate::aging::Aging;
use crate::disk::Disk;
use crate::memory::Memory;
use crate::upkeep::{Load, Upkeep};
use crate::writer::{Request, Writer};
use crate::{CommitError, Committed, StoreConfig, journal};

/// Batches of one run: enough for several journal files and snapshots.
const BATCHES: usize = 30;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=4;

type Answer = oneshot::Receiver<Result<Committed, CommitError>>;
type Objects = BTreeMap<Key, (u64, usize)>;

fn config() -> StoreConfig {
    let mut config = StoreConfig::new("/test");
    config.segment_bytes = 1500;
    // Most batches fit into it, some in two of it, and some are longer.
    config.reserve_bytes = 1800;
    config.snapshot_after_bytes = 4000;
    config.history_bytes = 2000;
    config
}

/// An open store without its threads.
struct Rig {
    memory: Arc<Memory>,
    writer: Writer,
    upkeep: Upkeep,
    queue: mpsc::Sender<Request>,
    // Keeps the channel open; nobody waits for it here.
    _woken: std::sync::mpsc::Receiver<crate::upkeep::Wake>,
}

impl Rig {
    fn open(disk: &PowerDisk) -> Result<Self, crate::OpenError> {
        Self::on(Arc::new(disk.clone()))
    }

    fn on(disk: Arc<dyn Disk>) -> Result<Self, crate::OpenError> {
        let config = config();
        let recovered = journal::recover(Arc::clone(&disk), &config)?;
        let memory = Arc::new(Memory::new(recovered.table));
        let load = Arc::new(Load::new(&config, recovered.snapshot.bytes, recovered.journal_bytes));
        let (queue, requests) = mpsc::channel(100);
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let (_, never) = std::sync::mpsc::sync_channel(1);
        let writer = Writer::new(
            Arc::clone(&memory),
            recovered.journal,
            requests,
            Arc::clone(&load),
            wake,
            Arc::default(),
        );
        let aging = Aging::new(config.history, config.history_bytes);
        let upkeep = Upkeep::new(disk, Arc::clone(&memory), load, never, aging);
        Ok(Self { memory, writer, upkeep, queue, _woken: woken })
    }

    /// Commits these together.
    fn batch(&mut self, txns: Vec<Txn>) -> Vec<Result<Committed, CommitError>> {
        let mut answers: Vec<Answer> = Vec::new();
        let mut first = None;
        for txn in txns {
            let (answer, answered) = oneshot::channel();
            let request = Request { txn, answer };
            answers.push(answered);
            match first {
                None => first = Some(request),
                Some(_) => self.queue.try_send(request).unwrap(),
            }
        }
        self.writer.turn(first.unwrap());
        answers.iter_mut().map(|answer| answer.try_recv().unwrap()).collect()
    }

    fn objects(&self) -> Objects {
        let rev = self.memory.visible();
        let page =
            self.memory.list(&Prefix::resource("", "pods"), None, rev, None, usize::MAX).unwrap();
        page.entries
            .into_iter()
            .map(|entry| (entry.key, (entry.modified.0, entry.value.len())))
            .collect()
    }
}

/// What the store should hold, by revision.
struct Model {
    states: Vec<Objects>,
    acknowledged: usize,
}

impl Model {
    fn new() -> Self {
        Self { states: vec![Objects::new()], acknowledged: 0 }
    }

    /// Makes up some transactions and what they lead to.
    fn batch(&mut self, dice: &mut Dice) -> Vec<Txn> {
        let count = 1 + dice.below(4);
        (0..count).map(|_| self.txn(dice)).collect()
    }

    fn txn(&mut self, dice: &mut Dice) -> Txn {
        let rev = self.states.len() as u64;
        let mut state = self.states.last().unwrap().clone();
        let mut txn = Txn::default();
        for n in 0..1 + dice.below(2) {
            let key = Key::new("", "pods", "shop", &format!("{n}-{}", dice.below(6)));
            let current = state.get(&key).copied();
            let expect = current.map_or(Expect::Absent, |(rev, _)| Expect::At(Rev(rev)));
            let draft = Draft::new("x".repeat(dice.below(700)), "");
            let op = if current.is_some() && dice.below(3) == 0 {
                state.remove(&key);
                Op::Delete { key, last: draft }
            } else {
                state.insert(key.clone(), (rev, draft.seal(Rev(rev)).len()));
                Op::Put { key, value: draft, owner: Owner::PLATFORM }
            };
            txn.ops.push((expect, op));
        }
        self.states.push(state);
        txn
    }

    /// Checks what a restart brought back, and goes on from there.
    fn check(&mut self, rig: &Rig) {
        let rev = usize::try_from(rig.memory.visible().0).unwrap();
        // All of the last batch or nothing of it.
        let newest = self.states.len() - 1;
        assert!(
            rev == self.acknowledged || rev == newest,
            "{rev}: {}..{newest}",
            self.acknowledged
        );
        assert_eq!(rig.objects(), self.states[rev]);
        self.states.truncate(rev + 1);
        self.acknowledged = rev;
    }
}

/// Runs batches until the disk fails or all are done; the number of changing calls that it took.
fn work(rig: &mut Rig, disk: &PowerDisk, model: &mut Model, dice: &mut Dice) -> usize {
    let begun = disk.calls();
    let mut now = Instant::now();
    for _ in 0..BATCHES {
        let answers = rig.batch(model.batch(dice));
        if answers.iter().any(|answer| matches!(answer, Err(CommitError::Full { .. }))) {
            // Nothing of the batch was done, and the next one may be.
            assert!(answers.iter().all(Result::is_err), "{answers:?}");
            assert_eq!(rig.memory.visible().0, model.acknowledged as u64);
            model.states.truncate(model.acknowledged + 1);
            assert_eq!(rig.objects(), model.states[model.acknowledged]);
            continue;
        }
        if answers.iter().any(Result::is_err) {
            for answer in &answers {
                assert!(matches!(answer, Err(CommitError::Poisoned(_))), "{answer:?}");
            }
            assert_eq!(rig.memory.visible().0, model.acknowledged as u64);
            // The store stays closed to writes, also if the disk works again.
            let late = rig.batch(vec![Txn::default()]);
            assert!(matches!(late[..], [Err(CommitError::Poisoned(_))]));
            break;
        }
        model.acknowledged = model.states.len() - 1;
        assert_eq!(rig.memory.visible().0, model.acknowledged as u64);
        // Past the pause after a failed snapshot.
        now += Duration::from_secs(100);
        rig.upkeep.turn(now);
        if disk.is_off() {
            break;
        }
    }
    disk.calls() - begun
}

/// Opens, also if the power goes again while it recovers.
fn reopen(disk: &PowerDisk) -> Rig {
    loop {
        match Rig::open(disk) {
            Ok(rig) => return rig,
            Err(crate::OpenError::Io { .. }) if disk.is_off() => disk.restart(),
            Err(error) => panic!("a power cut made the store refuse to open: {error}"),
        }
    }
}

/// One run with a fault at the given call, a second one somewhere after it, and a check after each.
fn run(seed: u64, fault: Fault, at: usize) {
    let mut dice = Dice(seed);
    let disk = PowerDisk::new(seed ^ at as u64);
    let mut model = Model::new();
    let mut rig = Rig::open(&disk).unwrap();
    disk.arm(at, fault);
    for _ in 0..3 {
        work(&mut rig, &disk, &mut model, &mut dice);
        drop(rig);
        // An error may be followed by either: a restart of the process, or of the machine.
        if disk.is_off() || dice.below(2) == 0 {
            disk.restart()
        } else {
            disk.carry_on()
        }
        // The next one may come at once, in the middle of recovery.
        let ahead = dice.below(40);
        disk.arm(ahead, Fault::PowerCut);
        rig = reopen(&disk);
        model.check(&rig);
    }
}

fn every_call(fault: Fault) {
    for seed in SEEDS {
        let disk = PowerDisk::new(seed);
        let mut rig = Rig::open(&disk).unwrap();
        let calls = work(&mut rig, &disk, &mut Model::new(), &mut Dice(seed));
        assert!(calls > 80, "seed {seed}: only {calls} calls");
        let names = crate::disk::Disk::names(&disk).unwrap();
        assert!(names.iter().any(|name| name.starts_with("snapshot")), "seed {seed}: {names:?}");
        for at in 0..calls {
            // Shown by the test harness if the run fails.
            println!("seed {seed}, {fault:?} at call {at} of {calls}");
            run(seed, fault, at);
        }
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    every_call(Fault::PowerCut);
}

#[test]
fn an_error_at_any_call_loses_nothing_acknowledged() {
    every_call(Fault::Error);
}

#[test]
fn a_full_disk_at_any_call_refuses_one_batch_and_no_more() {
    every_call(Fault::Full);
}

/// The journal's last frame is damaged, and a snapshot has what was in it: nothing is lost, and what is
/// written then does not come to stand behind a gap.
#[test]
fn a_snapshot_makes_up_for_a_damaged_journal_tail() {
    for seed in SEEDS {
        let mut dice = Dice(seed);
        let disk = PowerDisk::new(seed);
        let mut model = Model::new();
        let mut rig = Rig::open(&disk).unwrap();
        let newest_file = |kind| {
            let names = crate::disk::Disk::names(&disk).unwrap();
            names.into_iter().rfind(|name| name.starts_with(kind)).unwrap_or_default()
        };
        let covered = |rig: &Rig| format!("snapshot-{:020}.snap", rig.memory.visible().0);
        while newest_file("snapshot") != covered(&rig) {
            assert!(rig.batch(model.batch(&mut dice)).iter().all(Result::is_ok));
            rig.upkeep.turn(Instant::now());
            model.acknowledged = model.states.len() - 1;
        }
        disk.spoil(&newest_file("journal"));
        for _ in 0..3 {
            drop(rig);
            rig = Rig::open(&disk).unwrap();
            model.check(&rig);
            assert!(rig.batch(model.batch(&mut dice)).iter().all(Result::is_ok));
            model.acknowledged = model.states.len() - 1;
        }
    }
}
