//! How far back history reaches: as long as was promised, unless that takes too much memory. It must
//! not hold the table's lock for long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use toono_mvcc::Rev;

use crate::memory::Memory;

/// How often the newest revision is noted down, and so how exactly history's age is kept.
const STEP: Duration = Duration::from_secs(10);

/// Old versions that are forgotten before readers and the writer are let in: well below a millisecond.
const FORGET_AT_ONCE: usize = 512;

/// What history may take, and what was the newest revision at a time.
#[derive(Debug)]
pub(crate) struct Aging {
    history: Duration,
    history_bytes: usize,
    /// Oldest first.
    marks: VecDeque<(Instant, Rev)>,
}

impl Aging {
    pub(crate) fn new(history: Duration, history_bytes: usize) -> Self {
        Self { history, history_bytes, marks: VecDeque::new() }
    }

    /// How often to take turns: often enough for a history that is shorter than the usual step.
    pub(crate) fn step(&self) -> Duration {
        STEP.min(self.history / 4)
    }

    /// Forgets what is too old, or too much.
    pub(crate) fn turn(&mut self, memory: &Memory, now: Instant) {
        let visible = memory.visible();
        if self.marks.back().is_none_or(|(at, _)| now.duration_since(*at) >= self.step()) {
            self.marks.push_back((now, visible));
        }
        let mut floor = Rev::ZERO;
        let old = |(at, _): &mut (Instant, Rev)| now.duration_since(*at) >= self.history;
        while let Some((_, rev)) = self.marks.pop_front_if(old) {
            floor = rev;
        }
        forget(memory, floor);
        // Too much of it for its age: halve what is readable until it fits.
        while memory.read().history_bytes() > self.history_bytes {
            let oldest = memory.read().floor();
            if oldest >= visible {
                break;
            }
            forget(memory, Rev(oldest.0 + (visible.0 - oldest.0).div_ceil(2)));
        }
    }
}

fn forget(memory: &Memory, floor: Rev) {
    // The table's head is above what is visible, the floor must not be.
    let floor = floor.min(memory.visible());
    while memory.write().compact(floor, FORGET_AT_ONCE) {}
}
