//! Forgetting what is too old: in etcd, once for all servers, and in this server's memory. It must not
//! forget anything sooner than was promised.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use toono_mvcc::Rev;

use super::messages::{
    CompactionRequest, CompactionResponse, Compare, Operation, PutRequest, RangeRequest,
    TxnRequest, TxnResponse,
};
use super::rpc::CallError;
use super::{REQUEST_TIMEOUT, Shared, revision};
use crate::aging::Aging;
use crate::memory::Memory;

const COMPACT: &str = "/etcdserverpb.KV/Compact";

/// Forgets versions in memory, for as long as it is polled.
pub(super) async fn forget(memory: Arc<Memory>, history: Duration, history_bytes: usize) {
    let mut aging = Aging::new(history, history_bytes);
    loop {
        let memory = Arc::clone(&memory);
        let turn = tokio::task::spawn_blocking(move || {
            aging.turn(&memory, std::time::Instant::now());
            aging
        });
        // It ends otherwise only with the runtime.
        let Ok(turned) = turn.await else { return };
        aging = turned;
        tokio::time::sleep(aging.step()).await;
    }
}

/// Compacts etcd. All servers try after each period of history, and the one that is first does it: the
/// key that they race for says how often it was won, and each names that number as the condition.
pub(super) struct Compactor {
    shared: Shared,
    period: Duration,
    /// How often the race was won, as far as is known here.
    rounds: i64,
    /// What was the newest revision when this server saw the last race won: a period ago.
    noted: Rev,
}

impl Compactor {
    pub(super) fn new(shared: Shared, period: Duration) -> Self {
        Self { shared, period, rounds: 0, noted: Rev::ZERO }
    }

    /// Works for as long as it is polled.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(error) = self.turn().await {
                tracing::warn!(%error, "cannot compact etcd; its history goes on growing");
            }
            tokio::time::sleep(self.period).await;
        }
    }

    async fn turn(&mut self) -> Result<(), CallError> {
        let won = self.race().await?;
        let until = std::mem::replace(&mut self.noted, self.shared.memory.visible());
        if !won || until == Rev::ZERO {
            return Ok(());
        }
        let request = CompactionRequest { revision: revision(until) };
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let done: Result<CompactionResponse, _> =
            self.shared.rpc.call(COMPACT, &request, deadline).await;
        match done {
            // By somebody else, further than we would.
            Ok(_) | Err(CallError::Compacted(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether this server was the first since it last looked.
    async fn race(&mut self) -> Result<bool, CallError> {
        let key = self.shared.names.compact();
        let value = revision(self.shared.memory.visible()).to_string().into();
        let request = TxnRequest {
            compare: vec![Compare::version_is(key.clone(), self.rounds)],
            success: vec![Operation::Put(PutRequest { key: key.clone(), value }).into()],
            failure: vec![Operation::Range(RangeRequest { key, ..RangeRequest::default() }).into()],
        };
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let response: TxnResponse =
            self.shared.rpc.call(super::committer::TXN, &request, deadline).await?;
        if response.succeeded {
            self.rounds = self.rounds.saturating_add(1);
            return Ok(true);
        }
        let found = response.responses.into_iter().find_map(|one| one.range);
        let found = found.and_then(|range| range.kvs.into_iter().next());
        self.rounds = found.map_or(0, |kv| kv.version);
        Ok(false)
    }
}
