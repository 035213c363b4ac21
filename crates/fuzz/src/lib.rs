//! Fuzz targets: every decoder that reads what the network brings, the engine that feeds them, and
//! the corpora (`corpus/TARGET/`), which hold seeds and the inputs that once found a defect.
//!
//! A target fails by a panic, or by more than [`LIMIT`] of the thread's processor time for one input
//! of a size that the server takes. `cargo test -p toono-fuzz` runs each corpus, each target's inputs
//! near the real limits, and some seconds of mutations; `scripts/fuzz TARGET SECONDS` goes on for as
//! long as it is told, guided by coverage, and keeps what it finds in the corpus. Mutations know the
//! grammar of their target (JSON, text, requests, bytes), since noise is refused by the first check.
//!
//! Targets know decoders only by what their crates publish. No decoder may know of this crate.

pub mod corpus;
mod coverage;
pub mod engine;
mod mutate;
mod pace;
pub mod targets;

use std::time::Duration;

/// As the server, whose decoders most of these are: glibc's takes half as long again.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The most processor time that one input may take in a build with optimizations.
pub const LIMIT: Duration = Duration::from_millis(100);

/// The most that it may take here: builds for development are many times slower, and counters of
/// coverage cost about as much as what they count.
pub const LIMIT_HERE: Duration = if cfg!(feature = "coverage") {
    Duration::from_millis(200)
} else if cfg!(debug_assertions) {
    Duration::from_secs(5)
} else {
    LIMIT
};

/// What a giant may take for each MiB: reading and dropping JSON takes 10 ms of them. One of 3 MiB, the
/// longest body, stays within [`LIMIT`].
pub const GIANT_PER_MIB: Duration = Duration::from_millis(33);

/// What inputs look like, so that mutations keep most of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// Frames and messages.
    Bytes,
    /// Words and signs.
    Text,
    /// A document of JSON.
    Json,
    /// A line `METHOD PATH`, lines of headers, an empty line, and a body of JSON.
    Request,
}

/// Reads one input.
pub type Decode = Box<dyn FnMut(&[u8])>;

/// A decoder under test.
pub struct Target {
    /// The folder of its corpus.
    pub name: &'static str,
    /// How its inputs are changed.
    pub grammar: Grammar,
    /// Words that mean something to it.
    pub tokens: &'static [&'static str],
    /// The longest input that the server would give it.
    pub max_bytes: usize,
    /// Makes the decoder ready.
    pub start: fn() -> Decode,
    /// The most processor time for each MiB of a giant, where that is more than the limit for any input.
    pub giant_per_mib: Duration,
    /// Inputs about this many bytes long that ask as much of it as possible.
    pub giants: fn(usize) -> Vec<Vec<u8>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}
