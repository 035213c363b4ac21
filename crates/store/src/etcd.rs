//! The engine whose commits go to etcd, so that several servers share one state. It must not answer a
//! commit before this server's own memory has it, nor send one twice.
//!
//! # How it works
//!
//! Every server holds all objects in memory, as with the journal, and follows etcd by one watch. A
//! commit is checked against memory, and sent as one etcd transaction that compares the revision of
//! every key it depends on; it is answered when the watch has brought its revision back, so that who was
//! answered reads what was written. Commits that wait together for disjoint keys share one transaction,
//! as they share one write of the journal; should a comparison fail, each is decided on its own.
//!
//! # Revisions
//!
//! A watch is resumed after the revision of its last event, so no two commits may share one, and yet those
//! of one etcd transaction have one of etcd's. So each has its place in that transaction, kept in what
//! it writes, and its revision is etcd's times 256 plus that place. Readers are shown whole
//! transactions of etcd only, at a revision that ends in 255, the same on every server.
//!
//! The watch is over all of etcd's keys, also those of others, so that every
//! revision arrives and "memory has reached revision R" can be told exactly: etcd's own notices of
//! progress may run ahead of events in the versions that Debian has. An etcd with much other traffic is
//! therefore a poor choice.
//!
//! # What a reader may count on
//!
//! Memory trails etcd by the time that an event takes. A server whose clients may have been answered by
//! another one asks [`Store::current`](crate::Store::current) before it reads for a request without a
//! `resourceVersion`: a quorum read of etcd's revision, shared by all who wait, and then a wait until
//! memory has that. Writes need no such care: stale conditions make etcd refuse, and the commit is
//! checked again.
//!
//! # When etcd is away
//!
//! Reads of what memory has go on. A commit that could not be sent fails with
//! [`CommitError::Unavailable`]; one whose answer was lost with [`CommitError::Unknown`].
//! The watch is resumed after its last revision; if that was compacted, everything is read anew and
//! watchers are told that they lagged. A server that starts reads everything as of some minutes ago and
//! follows from there, so that its clients can resume their watches.

mod committer;
mod compactor;
mod follower;
mod messages;
mod names;
mod plan;
mod reader;
mod rpc;
mod snapshot;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use toono_http::client::Endpoint;
use toono_mvcc::{Rev, Txn};

use self::committer::Committer;
use self::compactor::Compactor;
use self::follower::Follower;
use self::names::Names;
use self::reader::Reader;
use self::rpc::{CallError, Rpc};
use self::snapshot::Snapshot;
use crate::memory::Memory;
use crate::{CommitError, Committed, HISTORY, HISTORY_BYTES, Unavailable};

/// How long a request may take, waiting for a connection and for memory included. etcd itself gives up
/// after some 7 s, and its own word on that is better than ours.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the newest history may take to be read at the start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Below this key everything is kept, unless told otherwise.
pub const ETCD_PREFIX: &str = "/toono";

/// How a store in etcd is opened.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// The members' client addresses; any of them will do.
    pub endpoints: Vec<Endpoint>,
    /// The CA that the members' certificates are from, and ours to show, for `https` endpoints.
    pub tls: Option<Arc<ClientConfig>>,
    /// Below this key everything is kept: [`ETCD_PREFIX`].
    pub prefix: String,
    /// How long a request may take: [`REQUEST_TIMEOUT`].
    pub request_timeout: Duration,
    /// How long older versions stay readable, here and in etcd: [`HISTORY`].
    pub history: Duration,
    /// Bytes of older versions at which they are forgotten earlier, here only: [`HISTORY_BYTES`].
    pub history_bytes: usize,
    /// How many events watchers may be behind.
    pub events: toono_mvcc::Limits,
}

impl EtcdConfig {
    /// The defaults, for an etcd at `endpoints`.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            endpoints,
            tls,
            prefix: ETCD_PREFIX.to_owned(),
            request_timeout: REQUEST_TIMEOUT,
            history: HISTORY,
            history_bytes: HISTORY_BYTES,
            events: toono_mvcc::Limits::default(),
        }
    }
}

/// The store in etcd could not be opened.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// etcd did not answer, or with an error.
    #[error("cannot read from etcd: {reason}")]
    Unavailable {
        /// Its words, or those of the network.
        reason: String,
    },
    /// etcd was compacted while it was read, again and again.
    #[error("etcd forgot the revision that was being read")]
    Compacted,
    /// A key below the prefix holds something else.
    #[error("{key} in etcd holds something that is no object of this store")]
    Foreign {
        /// The key.
        key: String,
    },
}

impl ConnectError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => {
                "check that etcd runs, has a leader, and takes connections at these endpoints"
            }
            Self::Compacted => "start again; let nothing but Toono compact this etcd",
            Self::Foreign { .. } => "give this cluster an etcd, or a prefix, of its own",
        }
    }
}

impl From<CallError> for ConnectError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Compacted(_) => Self::Compacted,
            error => Self::Unavailable { reason: error.to_string() },
        }
    }
}

/// A commit on its way.
#[derive(Debug)]
struct Request {
    txn: Txn,
    /// When its sender stops waiting.
    deadline: Instant,
    answer: oneshot::Sender<Result<Committed, CommitError>>,
}

/// What the engine's tasks share.
#[derive(Clone, Debug)]
struct Shared {
    rpc: Rpc,
    names: Arc<Names>,
    memory: Arc<Memory>,
    /// Why this server cannot follow etcd any more, if it cannot.
    lost: Arc<OnceLock<Unavailable>>,
}

impl Shared {
    /// Waits until memory has all of a revision of etcd's; `false` if it takes too long.
    async fn reached(&self, revision: i64, deadline: Instant) -> bool {
        let all = whole(revision);
        tokio::time::timeout_at(deadline, self.memory.reached(all)).await.is_ok()
    }
}

/// The engine. Its tasks end when it is dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    commits: mpsc::Sender<Request>,
    request_timeout: Duration,
    reader: Reader,
    lost: Arc<OnceLock<Unavailable>>,
    _tasks: JoinSet<()>,
}

impl Etcd {
    /// Reads everything, and begins to follow.
    pub(crate) async fn open(config: EtcdConfig) -> Result<(Self, Arc<Memory>), ConnectError> {
        let rpc = Rpc::new(config.endpoints, config.tls);
        let names = Arc::new(Names::new(&config.prefix));
        let snapshot = Snapshot::read_old(&rpc, &names, config.events).await?;
        let memory = Arc::new(Memory::new(snapshot.table));
        let lost = Arc::new(OnceLock::new());
        let shared = Shared { rpc, names, memory: Arc::clone(&memory), lost: Arc::clone(&lost) };
        let (commits, queue) = mpsc::channel(crate::writer::QUEUE);
        let mut tasks = JoinSet::new();
        let follower = Follower::new(shared.clone(), config.events, snapshot.cluster);
        tasks.spawn(follower.run());
        let (reader, reading) = Reader::new(shared.clone());
        tasks.spawn(reading);
        tasks.spawn(Committer::new(shared.clone(), reader.clone(), queue).run());
        let history = config.history;
        tasks.spawn(compactor::forget(Arc::clone(&memory), history, config.history_bytes));
        tasks.spawn(Compactor::new(shared, history).run());
        let request_timeout = config.request_timeout;
        reader
            .current(Instant::now() + START_TIMEOUT)
            .await
            .map_err(|Unavailable { reason }| ConnectError::Unavailable { reason })?;
        Ok((Self { commits, request_timeout, reader, lost, _tasks: tasks }, memory))
    }

    pub(crate) async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + self.request_timeout;
        let request = Request { txn, deadline, answer };
        self.commits.send(request).await.map_err(|_| CommitError::Closed)?;
        answered.await.map_err(|_| CommitError::Closed)?
    }

    pub(crate) async fn current(&self) -> Result<Rev, Unavailable> {
        self.reader.current(Instant::now() + self.request_timeout).await
    }

    pub(crate) fn lost(&self) -> Option<&Unavailable> {
        self.lost.get()
    }
}

/// Our revisions within one of etcd's.
const PLACES: u64 = 256;

/// The revision of a commit by its place in a transaction of etcd's. Those count from 1, and would take
/// a million years to come near the end of the range.
fn rev(revision: i64, place: u8) -> Rev {
    let revision = u64::try_from(revision).unwrap_or_default();
    Rev(revision.saturating_mul(PLACES).saturating_add(place.into()))
}

/// The revision at which all of a transaction of etcd's can be read.
fn whole(revision: i64) -> Rev {
    rev(revision, u8::MAX)
}

/// The transaction of etcd's that a revision is of.
fn revision(rev: Rev) -> i64 {
    i64::try_from(rev.0 / PLACES).unwrap_or(i64::MAX)
}

/// The place in that transaction.
fn place(rev: Rev) -> u8 {
    u8::try_from(rev.0 % PLACES).unwrap_or(u8::MAX)
}
