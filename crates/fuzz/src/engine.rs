//! Runs a target on inputs: its corpus, its giants, and mutations of both; judges each run.
//!
//! Before an input is read it is written to a file, so that one that ends the process (by
//! overflowing the stack, or by never ending) is not lost.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::{
    Decode, LIMIT_HERE, Target, corpus,
    coverage::Coverage,
    mutate::Mutator,
    pace::{self, thread_time},
};

/// An input that runs longer than this ends the process.
const HANG: Duration = Duration::from_secs(60);
/// How often an input that seems slow is run again: a busy machine makes any input slow once.
const SLOW_RETRIES: usize = 3;
/// So many times the limit is no accident.
const SLOW_FOR_SURE: u32 = 10;
const MIB: u32 = 1024 * 1024;
/// Most inputs that a run remembers to make others of.
const POOL_MAX: usize = 4096;

/// What is wrong with an input.
#[derive(Debug, Clone)]
pub enum Defect {
    /// The decoder panicked.
    Panic,
    /// It took this long.
    Slow(Duration),
}

/// What a run saw.
#[derive(Debug, Default)]
pub struct Report {
    /// How many inputs were read.
    pub inputs: u64,
    /// The most that one of them took.
    pub slowest: Duration,
    /// How long that one is.
    pub slowest_bytes: usize,
    /// How many branches were reached, where they are counted.
    pub reached: usize,
    /// Inputs that found something.
    pub defects: Vec<(Vec<u8>, Defect)>,
}

/// One target at work.
pub struct Engine {
    target: &'static Target,
    decode: Decode,
    current: File,
    turns: Arc<AtomicU64>,
    coverage: Coverage,
    report: Report,
}

impl Engine {
    /// Makes a target ready. Each input is written to `current` before it is read.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(target: &'static Target, current: &Path) -> io::Result<Self> {
        let current = File::create(current)?;
        let turns = Arc::new(AtomicU64::new(0));
        watch(target.name, Arc::clone(&turns));
        Ok(Self {
            target,
            decode: (target.start)(),
            current,
            turns,
            coverage: Coverage::default(),
            report: Report::default(),
        })
    }

    /// Runs the corpus and the giants, then mutations until a time has passed or something is found.
    /// Equal seeds make equal mutations, as far as none is chosen for its coverage or its cost.
    ///
    /// # Errors
    /// When the corpus cannot be read.
    pub fn run(mut self, seed: u64, time: Duration) -> io::Result<Report> {
        let begun = Instant::now();
        let mut pool = Vec::new();
        for (_, input) in corpus::load(self.target.name)? {
            self.input(&input);
            pool.push(input);
        }
        self.giants();
        self.report.inputs = 0;
        let (mut rng, begun_mutations) = (Rng::with_seed(seed), Instant::now());
        while self.report.defects.is_empty() && begun_mutations.elapsed() < time {
            let input = Mutator::new(self.target, &pool, &mut rng).next();
            if self.input(&input) && pool.len() < POOL_MAX {
                pool.push(input);
            }
        }
        self.report.reached = self.coverage.reached();
        print_line(self.target, &self.report, begun.elapsed());
        Ok(self.report)
    }

    /// Runs the giants, and prints what each took.
    fn giants(&mut self) {
        let name = self.target.name;
        for (at, giant) in (self.target.giants)(giant_bytes(self.target)).into_iter().enumerate() {
            let bytes = giant.len();
            assert!(bytes <= self.target.max_bytes, "{name}: a giant of {bytes} bytes");
            let before = (self.report.slowest, self.report.slowest_bytes);
            self.report.slowest = Duration::ZERO;
            let mib = bytes as f64 / f64::from(MIB);
            self.within(&giant, LIMIT_HERE.max(self.target.giant_per_mib.mul_f64(mib)));
            let ms = self.report.slowest.as_secs_f64() * 1e3;
            let each = ms / mib;
            println!("{name:<18} giant {at:>2} {bytes:>8} bytes {ms:>7.1} ms {each:>6.1} ms/MiB");
            if before.0 > self.report.slowest {
                (self.report.slowest, self.report.slowest_bytes) = before;
            }
        }
    }

    /// Runs one input; whether it did what none did before.
    fn input(&mut self, input: &[u8]) -> bool {
        self.within(input, LIMIT_HERE)
    }

    /// Runs an input that may take so long; whether it did what none did before.
    fn within(&mut self, input: &[u8], limit: Duration) -> bool {
        let mut took = match self.timed(input) {
            Ok(took) => took,
            Err(defect) => {
                self.report.defects.push((input.to_vec(), defect));
                return false;
            }
        };
        let new = self.coverage.is_new();
        for _ in 0..SLOW_RETRIES {
            if took <= limit || took > SLOW_FOR_SURE * limit {
                break;
            }
            took = took.min(self.timed(input).unwrap_or(took));
        }
        if took > limit && took > pace::allowance(limit) {
            self.report.defects.push((input.to_vec(), Defect::Slow(took)));
        }
        let slower = took > self.report.slowest + self.report.slowest / 8;
        if took > self.report.slowest {
            self.report.slowest = took;
            self.report.slowest_bytes = input.len();
        }
        self.report.inputs += 1;
        new || slower
    }

    fn timed(&mut self, input: &[u8]) -> Result<Duration, Defect> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let length = (input.len() as u64).to_le_bytes();
        let written = self.current.write_all_at(&length, 0);
        let written = written.and_then(|()| self.current.write_all_at(input, 8));
        assert!(written.is_ok(), "the input cannot be kept: {written:?}");
        Coverage::begin();
        let begun = thread_time();
        let decoded = catch_unwind(AssertUnwindSafe(|| (self.decode)(input)));
        let took = thread_time().saturating_sub(begun);
        // A decoder that is idle is not one that hangs.
        self.turns.fetch_add(1, Ordering::Relaxed);
        decoded.map(|()| took).map_err(|_| Defect::Panic)
    }
}

/// Development builds take a sixteenth: their time is no measure anyway.
fn giant_bytes(target: &Target) -> usize {
    let development = cfg!(debug_assertions) && !cfg!(feature = "coverage");
    // What is around the repeated part has room beside it.
    let whole = target.max_bytes - target.max_bytes / 64;
    if development { whole / 16 } else { whole }
}

/// What was in the file that each input is written to, when the process ended.
///
/// # Errors
/// When it cannot be read.
pub fn last_input(current: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::read(current)?;
    let Some((length, input)) = bytes.split_first_chunk::<8>() else { return Ok(Vec::new()) };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(0);
    Ok(input.get(..length).unwrap_or(input).to_vec())
}

/// The file for [`Engine::new`] of a target, in a directory.
#[must_use]
pub fn current_file(dir: &Path, target: &Target) -> PathBuf {
    dir.join(format!("fuzz-{}.input", target.name))
}

/// Ends the process when one input is never done. Waiting for the next one is no hang.
fn watch(name: &'static str, turns: Arc<AtomicU64>) {
    thread::spawn(move || {
        let mut before = 0;
        // Odd while an input is read.
        while Arc::strong_count(&turns) > 1 {
            thread::sleep(HANG);
            let now = turns.load(Ordering::Relaxed);
            if now == before && now % 2 == 1 {
                eprintln!("{name}: one input takes longer than {HANG:?}");
                std::process::abort();
            }
            before = now;
        }
    });
}

fn print_line(target: &Target, report: &Report, took: Duration) {
    let rate = report.inputs as f64 / took.as_secs_f64();
    println!(
        "{:<18} {:>9} inputs {:>7.0}/s, {:>6} branches, slowest {:>6.1} ms of {} bytes, {} defects",
        target.name,
        report.inputs,
        rate,
        report.reached,
        report.slowest.as_secs_f64() * 1e3,
        report.slowest_bytes,
        report.defects.len(),
    );
}
