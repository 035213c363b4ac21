//! Deciding on commits: checked against memory, sent to etcd with what was found there as conditions,
//! answered when memory has the outcome. It must not send anything again that etcd may have done.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use toono_mvcc::Key;

use super::messages::{TxnRequest, TxnResponse};
use super::plan::Plan;
use super::reader::Reader;
use super::rpc::CallError;
use super::{Request, Shared, revision};
use crate::{CommitError, Unavailable};

/// Operations, and conditions, of one etcd transaction: etcd's own default limit.
const BATCH_OPERATIONS: usize = 128;

/// The places in one etcd transaction: more than commits, each of which has an operation.
const PLACES: std::ops::Range<u8> = 0..u8::MAX;

/// Bytes of one etcd transaction beyond which no other commit joins it: etcd refuses 1.5 MiB by default.
const BATCH_BYTES: usize = 1024 * 1024;

/// Commits that are decided on by themselves at a time.
const ALONE_AT_ONCE: usize = 256;

/// How often a commit without conditions of its own is tried against others before it is refused.
const ATTEMPTS: usize = 64;

/// The method of a transaction.
pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";

/// The committer's state, moved into its task.
pub(super) struct Committer {
    shared: Shared,
    reader: Reader,
    queue: mpsc::Receiver<Request>,
    /// Those that could not join the batch in the making.
    waiting: VecDeque<Request>,
    alone: JoinSet<()>,
}

/// A commit and what is to be sent for it.
struct Planned {
    request: Request,
    plan: Plan,
}

impl Committer {
    pub(super) fn new(shared: Shared, reader: Reader, queue: mpsc::Receiver<Request>) -> Self {
        Self { shared, reader, queue, waiting: VecDeque::new(), alone: JoinSet::new() }
    }

    /// Works until every handle of the store is gone.
    pub(super) async fn run(mut self) {
        loop {
            if self.waiting.is_empty() {
                let Some(request) = self.queue.recv().await else { return };
                self.waiting.push_back(request);
            }
            while self.waiting.len() < crate::writer::QUEUE
                && let Ok(request) = self.queue.try_recv()
            {
                self.waiting.push_back(request);
            }
            let batch = self.collect().await;
            if !batch.is_empty() {
                self.send(batch).await;
            }
        }
    }

    /// Takes those that can go together: none writes what another one reads or writes.
    async fn collect(&mut self) -> Vec<Planned> {
        let mut batch: Vec<Planned> = Vec::new();
        let mut taken = Taken::default();
        let mut size = Size::default();
        let mut left = VecDeque::new();
        while let Some(request) = self.waiting.pop_front() {
            if request.deadline <= Instant::now() {
                let reason = "etcd did not take the write in time".to_owned();
                answer(request, Err(Unavailable { reason }.into()));
                continue;
            }
            // Also what one that is left over is about: later ones must not overtake it.
            if !taken.take(&request) {
                left.push_back(request);
                continue;
            }
            match Plan::of(&request.txn, &self.shared) {
                Ok(plan) if !plan.changes_nothing() => {
                    if !batch.is_empty() && !size.fits(&plan) {
                        left.push_back(request);
                        break;
                    }
                    size.add(&plan);
                    batch.push(Planned { request, plan });
                }
                // Memory may be behind, so that a refusal has to be made sure of.
                _ => self.decide_alone(request, None).await,
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        batch
    }

    async fn send(&mut self, batch: Vec<Planned>) {
        let deadline = batch.first().map_or_else(Instant::now, |first| first.request.deadline);
        match submit(&self.shared, batch.iter().map(|planned| &planned.plan), deadline).await {
            Ok(Outcome::Done(rev)) => {
                let seen = self.shared.reached(rev, deadline).await;
                for (Planned { request, plan }, at) in batch.into_iter().zip(PLACES) {
                    let committed =
                        if seen { Ok(plan.committed(rev, at)) } else { Err(unseen(rev)) };
                    answer(request, committed);
                }
            }
            // One of them is to blame; each finds out whether it is itself.
            Ok(Outcome::Refused(rev)) => {
                for Planned { request, .. } in batch {
                    self.decide_alone(request, Some(rev)).await;
                }
            }
            Err(CallError::TooLarge(_)) if batch.len() > 1 => {
                for Planned { request, .. } in batch {
                    self.decide_alone(request, None).await;
                }
            }
            Err(error) => {
                for Planned { request, plan } in batch {
                    answer(request, Err(failed(&error, plan.bytes())));
                }
            }
        }
    }

    async fn decide_alone(&mut self, request: Request, seen: Option<i64>) {
        while self.alone.len() >= ALONE_AT_ONCE {
            self.alone.join_next().await;
        }
        while self.alone.try_join_next().is_some() {}
        let (shared, reader) = (self.shared.clone(), self.reader.clone());
        self.alone.spawn(async move {
            let decided = decide(&shared, &reader, &request, seen).await;
            answer(request, decided);
        });
    }
}

/// Decides on one commit by itself. `seen` is a revision that etcd had after the commit was asked for,
/// if one is known: what memory says at or after it is no longer too old to refuse by.
async fn decide(
    shared: &Shared,
    reader: &Reader,
    request: &Request,
    mut seen: Option<i64>,
) -> Result<crate::Committed, CommitError> {
    let deadline = request.deadline;
    for _ in 0..ATTEMPTS {
        if let Some(rev) = seen
            && !shared.reached(rev, deadline).await
        {
            let reason = format!("this server has not heard of etcd's revision {rev} in time");
            return Err(Unavailable { reason }.into());
        }
        let now = revision(shared.memory.visible());
        let plan = match (Plan::of(&request.txn, shared), seen) {
            (Ok(plan), Some(_)) if plan.changes_nothing() => {
                return Ok(plan.committed(now, u8::MAX));
            }
            (Ok(plan), _) if !plan.changes_nothing() => plan,
            (Err(rejected), Some(_)) => return Err(rejected.into()),
            _ => {
                seen = Some(revision(reader.current(deadline).await?));
                continue;
            }
        };
        match submit(shared, std::iter::once(&plan), deadline).await {
            Ok(Outcome::Done(rev)) if shared.reached(rev, deadline).await => {
                return Ok(plan.committed(rev, 0));
            }
            Ok(Outcome::Done(rev)) => return Err(unseen(rev)),
            Ok(Outcome::Refused(rev)) => seen = Some(rev),
            Err(error) => return Err(failed(&error, plan.bytes())),
        }
    }
    let reason = format!("others kept changing what the write is about, {ATTEMPTS} times");
    Err(Unavailable { reason }.into())
}

/// What etcd made of a transaction.
enum Outcome {
    /// It happened, at this revision of etcd's.
    Done(i64),
    /// A condition did not hold at this revision.
    Refused(i64),
}

async fn submit<'a>(
    shared: &Shared,
    plans: impl Iterator<Item = &'a Plan>,
    deadline: Instant,
) -> Result<Outcome, CallError> {
    if let Some(lost) = shared.lost.get() {
        return Err(CallError::NotDone(lost.reason.clone()));
    }
    let mut request = TxnRequest::default();
    let mut lasts = Vec::new();
    for (plan, at) in plans.zip(PLACES) {
        plan.add_to(&mut request, at, &mut lasts);
    }
    if !lasts.is_empty() {
        request.success.push(super::plan::put(shared.names.last(), Bytes::from(lasts)));
    }
    let response: TxnResponse = shared.rpc.call(TXN, &request, deadline).await?;
    let rev = response.header.unwrap_or_default().revision;
    Ok(if response.succeeded { Outcome::Done(rev) } else { Outcome::Refused(rev) })
}

fn answer(request: Request, answer: Result<crate::Committed, CommitError>) {
    // Who no longer waits has given up on the answer, not on the commit.
    let _ = request.answer.send(answer);
}

fn unseen(rev: i64) -> CommitError {
    let reason = format!("committed at revision {rev}, which this server has not heard of in time");
    CommitError::Unknown { reason }
}

fn failed(error: &CallError, bytes: usize) -> CommitError {
    let reason = error.to_string();
    match error {
        CallError::NotDone(_) | CallError::Compacted(_) => Unavailable { reason }.into(),
        CallError::TooLarge(_) => CommitError::TooLargeForEtcd { bytes, reason },
        CallError::Unknown(_) => CommitError::Unknown { reason },
    }
}

/// The keys that a batch is about.
#[derive(Default)]
struct Taken {
    read: HashSet<Key>,
    written: HashSet<Key>,
}

impl Taken {
    /// Notes down a commit's keys; whether none of them stands in its way.
    fn take(&mut self, request: &Request) -> bool {
        let guards = request.txn.guards.iter().map(|(key, _)| key);
        let writes = request.txn.ops.iter().map(|(_, op)| op.key());
        let free = guards.clone().all(|key| !self.written.contains(key))
            && writes.clone().all(|key| !self.written.contains(key) && !self.read.contains(key));
        self.read.extend(guards.cloned());
        self.written.extend(writes.cloned());
        free
    }
}

/// How large a batch has become.
#[derive(Default)]
struct Size {
    operations: usize,
    conditions: usize,
    bytes: usize,
}

impl Size {
    fn fits(&self, plan: &Plan) -> bool {
        // One operation is kept for what deletions leave behind.
        self.operations + plan.operations() < BATCH_OPERATIONS
            && self.conditions + plan.conditions() <= BATCH_OPERATIONS
            && self.bytes + plan.bytes() <= BATCH_BYTES
    }

    fn add(&mut self, plan: &Plan) {
        self.operations += plan.operations();
        self.conditions += plan.conditions();
        self.bytes += plan.bytes();
    }
}
