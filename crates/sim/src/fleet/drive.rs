//! The nodes' heartbeats: one thread in which a million sessions take turns, each every interval.

mod driver;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::mpsc::UnboundedSender;
use toono_wire::join::JoinResponse;

use self::driver::Driver;
use super::digests::Digests;
use crate::Failure;

/// What happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Heartbeats that left late.
    pub(crate) late: u64,
    /// Datagrams that a node refused.
    pub(crate) refused: u64,
    /// Replies that asked a node for something that takes a request over HTTPS.
    pub(crate) asked: u64,
}

impl Counts {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            answered: self.answered - before.answered,
            late: self.late - before.late,
            refused: self.refused - before.refused,
            asked: self.asked - before.asked,
        }
    }
}

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    answered: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
    asked: AtomicU64,
    /// Counts the returns of the server, and the nodes that it has heard since the last one.
    returns: AtomicU32,
    heard: AtomicUsize,
    /// Answers that each node has got.
    answers: Box<[AtomicU32]>,
    /// Who hears of a node whose heartbeats stay unanswered, and nodes that send one more.
    unanswered: OnceLock<UnboundedSender<usize>>,
    urged: Mutex<Vec<usize>>,
    round_trips: Mutex<Vec<Duration>>,
    /// Whether what is sent is told, and what was since it was taken last.
    tapped: AtomicBool,
    told: Mutex<Vec<Vec<u8>>>,
    /// One node in so many is silent; 0 for none.
    silent_stride: AtomicUsize,
    silent: AtomicUsize,
    ends: AtomicBool,
}

/// A node is told that its bundle moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cue {
    /// The node.
    pub(crate) number: usize,
    /// What it holds.
    pub(crate) observed: u64,
    /// What the cloud has for it.
    pub(crate) desired: u64,
}

/// Nodes that fetch their bundles themselves, and what becomes of it.
pub(crate) struct Fetching {
    pub(crate) nodes: HashSet<usize>,
    pub(crate) cues: tokio::sync::mpsc::UnboundedSender<Cue>,
    /// What a node holds from now on.
    pub(crate) fetched: mpsc::Receiver<(usize, u64, u32)>,
}

/// The running load; it ends when this is dropped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    digests: Digests,
    nodes: usize,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts the heartbeats of all nodes, spread evenly over the interval. Those that fetch are told when to;
    /// all others take what the cloud names for fetched.
    pub(crate) fn start(
        joined: &[JoinResponse],
        sockets: usize,
        fetching: Option<Fetching>,
    ) -> Result<Self, Failure> {
        let answers = joined.iter().map(|_| AtomicU32::new(0)).collect();
        let shared = Arc::new(Shared { answers, ..Shared::default() });
        let digests = Digests::new(joined, fetching.as_ref());
        let held = digests.clone();
        let mut driver = Driver::new(joined, sockets, held, fetching, Arc::clone(&shared))?;
        let thread =
            std::thread::Builder::new().name("heartbeats".to_owned()).spawn(move || {
                while !driver.shared.ends.load(Ordering::Relaxed) {
                    driver.turn();
                }
            })?;
        Ok(Self { shared, digests, nodes: joined.len(), thread: Some(thread) })
    }

    /// What the nodes are taken to hold.
    pub(crate) fn digests(&self) -> Digests {
        self.digests.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { sent, answered, late, refused, asked, .. } = &*self.shared;
        // Answers first: what is counted as answered was counted as sent.
        let answered = read(answered);
        let (late, refused, asked) = (read(late), read(refused), read(asked));
        Counts { sent: read(sent), answered, late, refused, asked }
    }

    /// The round trips remembered since the last call.
    pub(crate) fn round_trips(&self) -> Vec<Duration> {
        let mut told = self.shared.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut told)
    }

    /// The heartbeats that left since the last call, as somebody on their way sees them; none for the first.
    pub(crate) fn tap(&self) -> Vec<Vec<u8>> {
        self.shared.tapped.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.shared.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets so many nodes, evenly chosen, send nothing from now on; their numbers.
    pub(crate) fn silence(&self, count: usize) -> HashSet<usize> {
        let count = count.clamp(1, self.nodes);
        let stride = self.nodes / count;
        self.shared.silent.store(count, Ordering::Relaxed);
        self.shared.silent_stride.store(stride, Ordering::Relaxed);
        (0..count).map(|at| at * stride).collect()
    }

    /// From now on nodes whose heartbeats stay unanswered are told here, when they would look for the server.
    pub(crate) fn tell_unanswered(&self, whom: UnboundedSender<usize>) -> Result<Urge, Failure> {
        self.shared.unanswered.set(whom).map_err(|_| "somebody is told already")?;
        Ok(Urge(Arc::clone(&self.shared)))
    }

    /// The server is back: who is heard is counted anew.
    pub(crate) fn server_returns(&self) {
        self.shared.heard.store(0, Ordering::Relaxed);
        self.shared.returns.fetch_add(1, Ordering::Relaxed);
    }

    /// How many nodes have a heartbeat behind them that counted at the server, since its return.
    pub(crate) fn heard(&self) -> usize {
        self.shared.heard.load(Ordering::Relaxed)
    }

    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.shared.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        thread.map_or(Ok(()), JoinHandle::join).map_err(|_| "the load failed".into())
    }
}

/// Has nodes send one more, and sees whether they are answered.
#[derive(Clone)]
pub(crate) struct Urge(Arc<Shared>);

impl Urge {
    /// A heartbeat ahead of its time.
    pub(crate) fn send(&self, number: usize) {
        self.0.urged.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    }

    /// How many answers a node has got.
    pub(crate) fn answers(&self, number: usize) -> u32 {
        self.0.answers.get(number).map_or(0, |answers| answers.load(Ordering::Relaxed))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}
