//! Which revision is the newest, agreed on by a majority of etcd's members, and a wait until memory has
//! it. It must not read an object.

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use toono_mvcc::Rev;

use super::Shared;
use super::messages::{RangeRequest, RangeResponse};
use super::snapshot::RANGE;
use crate::Unavailable;

/// Those who wait for the next question to etcd; more wait in their callers.
const QUEUE: usize = 4096;

/// Questions that may be on their way at once: one per network round trip would make everybody wait for
/// up to two.
const AT_ONCE: usize = 4;

type Answer = Result<Rev, Unavailable>;

/// Who asks.
#[derive(Debug)]
struct Question {
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
}

/// A handle to ask with.
#[derive(Clone, Debug)]
pub(super) struct Reader(mpsc::Sender<Question>);

impl Reader {
    /// The handle, and the task that works until all handles are gone.
    pub(super) fn new(shared: Shared) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (questions, queue) = mpsc::channel(QUEUE);
        (Self(questions), answer_all(shared, queue))
    }

    /// A revision at least as new as any commit that was answered, by whichever server, before this was
    /// called; memory has it.
    pub(super) async fn current(&self, deadline: Instant) -> Answer {
        let closed = || Unavailable { reason: "the store is closed".to_owned() };
        let (answer, answered) = oneshot::channel();
        self.0.send(Question { deadline, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn answer_all(shared: Shared, mut queue: mpsc::Receiver<Question>) {
    let mut rounds = tokio::task::JoinSet::new();
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let (shared, asking) = (shared.clone(), std::mem::take(&mut waiting));
        rounds.spawn(async move {
            // The oldest of them decides: nobody who came later gives up sooner.
            let deadline = asking.first().map_or_else(Instant::now, |first| first.deadline);
            let answer = ask(&shared, deadline).await;
            for question in asking {
                // Who no longer waits does not need it.
                let _ = question.answer.send(answer.clone());
            }
        });
        while rounds.len() >= AT_ONCE {
            rounds.join_next().await;
        }
    }
}

async fn ask(shared: &Shared, deadline: Instant) -> Answer {
    if let Some(lost) = shared.lost.get() {
        return Err(lost.clone());
    }
    // Any key will do: it is the revision in the answer's header that counts.
    let request = RangeRequest { key: shared.names.compact(), ..RangeRequest::default() };
    let asked = shared.rpc.call::<_, RangeResponse>(RANGE, &request, deadline).await;
    let response = asked.map_err(|error| Unavailable { reason: error.to_string() })?;
    let rev = response.header.unwrap_or_default().revision;
    if shared.reached(rev, deadline).await {
        Ok(shared.memory.visible())
    } else {
        let reason = format!("this server has not heard of etcd's revision {rev} in time");
        Err(Unavailable { reason })
    }
}
