//! Bringing into memory what etcd tells: every revision, in order, once. It must not decide on
//! anything: what it hears has happened.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::Instant;
use toono_mvcc::{Change, Draft, EventKind, Key, Limits, Owner, RestoreError, Rev};

use super::messages::{
    KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchEvent, WatchEventKind,
    WatchRequest, WatchResponse,
};
use super::names::{Place, read_last, read_object};
use super::rpc::CallError;
use super::snapshot::{RANGE, Snapshot};
use super::{ConnectError, REQUEST_TIMEOUT, Shared, rev, revision};
use crate::Unavailable;

/// Pauses between attempts to follow again: etcd may be away for long, and others are waiting for it too.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The follower's state, moved into its task.
pub(super) struct Follower {
    shared: Shared,
    limits: Limits,
    /// Which etcd memory came from.
    cluster: u64,
    pause: Duration,
}

/// Why following ended.
#[derive(Debug, Error)]
enum End {
    /// For now: it goes on after the last revision.
    #[error("the watch broke: {0}")]
    Broken(#[from] CallError),
    /// Revisions were compacted that memory does not have: everything is read anew.
    #[error("revisions up to {0} were compacted before they were followed")]
    Compacted(Rev),
    /// What etcd tells does not follow from what memory has: everything is read anew.
    #[error("etcd tells something else than memory has: {0}")]
    Diverged(#[from] RestoreError),
    /// This is not the etcd that memory came from: nothing can be told of it any more.
    #[error("{0}")]
    Lost(String),
}

impl Follower {
    pub(super) fn new(shared: Shared, limits: Limits, cluster: u64) -> Self {
        Self { shared, limits, cluster, pause: FIRST_PAUSE }
    }

    /// Works until etcd turns out to be another one.
    pub(super) async fn run(mut self) {
        loop {
            let end = match self.follow().await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            match &end {
                End::Lost(reason) => {
                    tracing::error!(%reason, "the store cannot follow etcd any more");
                    // The first reason is the cause.
                    let _ = self.shared.lost.set(Unavailable { reason: reason.clone() });
                    return;
                }
                End::Broken(error) => tracing::warn!(%error, "the watch of etcd broke"),
                End::Compacted(_) | End::Diverged(_) => {
                    tracing::warn!(reason = %end, "reading everything from etcd again");
                    if let Err(error) = self.reload().await {
                        tracing::warn!(%error, "cannot read everything from etcd");
                    }
                }
            }
            tokio::time::sleep(self.pause).await;
            self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, End> {
        self.check_identity().await?;
        let start = self.shared.memory.visible().next();
        // All keys there are: every revision is about one of them.
        let all = Bytes::from_static(&[0]);
        let create = WatchCreateRequest {
            key: all.clone(),
            range_end: all,
            start_revision: revision(start),
        };
        let request = WatchRequest { create: Some(create) };
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut stream = self.shared.rpc.stream(WATCH, &request, deadline).await?;
        loop {
            let response: WatchResponse = stream.next().await?;
            if response.compact_revision != 0 {
                return Err(End::Compacted(rev(response.compact_revision)));
            }
            if response.canceled {
                return Err(End::Broken(CallError::Unknown(response.cancel_reason)));
            }
            self.pause = FIRST_PAUSE;
            self.take(&response.events)?;
        }
    }

    /// An etcd that was restored from a backup, or replaced, may give a revision twice.
    async fn check_identity(&self) -> Result<(), End> {
        let request = RangeRequest { key: self.shared.names.compact(), ..RangeRequest::default() };
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let response: RangeResponse = self.shared.rpc.call(RANGE, &request, deadline).await?;
        let header = response.header.unwrap_or_default();
        let seen = self.shared.memory.visible();
        if header.cluster_id != self.cluster {
            return Err(End::Lost("this is another etcd cluster: restart the server".to_owned()));
        }
        if rev(header.revision) < seen {
            return Err(End::Lost(format!(
                "etcd went back from revision {seen} to {}: restart the server",
                header.revision
            )));
        }
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), ConnectError> {
        let Shared { rpc, names, memory, .. } = &self.shared;
        let snapshot = Snapshot::read(rpc, names, self.limits).await?;
        // Checked again before following goes on; here it only must not be shown.
        if snapshot.cluster == self.cluster && snapshot.table.head() >= memory.visible() {
            memory.replace(snapshot.table);
        }
        Ok(())
    }

    /// Applies events, those of one revision together: etcd does not split them.
    fn take(&self, events: &[WatchEvent]) -> Result<(), End> {
        let revision = |event: &WatchEvent| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        for events in events.chunk_by(|a, b| revision(a) == revision(b)) {
            let rev = rev(events.first().map_or(0, revision));
            let memory = &self.shared.memory;
            // Told already, before the watch broke.
            if rev <= memory.visible() {
                continue;
            }
            let changes = self.changes(rev, events);
            let resources: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
            memory.write().follow(rev, changes)?;
            memory.publish(rev, resources.iter().map(Key::resource));
        }
        Ok(())
    }

    fn changes(&self, rev: Rev, events: &[WatchEvent]) -> Vec<Change> {
        let mut lasts = HashMap::new();
        let mut changes = Vec::new();
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let deleted = event.kind == i32::from(WatchEventKind::Delete);
            match self.shared.names.place(&kv.key) {
                Place::Last if !deleted => {
                    lasts.extend(read_last(kv.value.clone()).unwrap_or_default())
                }
                Place::Object(key) if deleted => changes.push(self.deleted(key)),
                Place::Object(key) => changes.extend(put(rev, key, kv)),
                Place::Last | Place::Other => {}
            }
        }
        for change in changes.iter_mut().filter(|change| change.kind == EventKind::Delete) {
            let last: Option<&Draft> = lasts.get(&change.key);
            if let Some(last) = last {
                change.value = last.seal(rev);
            }
        }
        changes
    }

    /// A deletion whose last state was not told, as somebody deleted the key by hand: watchers see what
    /// there was.
    fn deleted(&self, key: Key) -> Change {
        let memory = &self.shared.memory;
        let there_was = memory.get(&key, None).ok().flatten();
        let value = there_was.map(|entry| entry.value).unwrap_or_default();
        Change { kind: EventKind::Delete, key, value, owner: Owner::PLATFORM }
    }
}

/// An object as it was written. What somebody wrote by hand cannot be shown.
fn put(rev: Rev, key: Key, kv: &KeyValue) -> Option<Change> {
    match read_object(kv.value.clone()) {
        Ok((owner, draft)) => {
            Some(Change { kind: EventKind::Put, key, value: draft.seal(rev), owner })
        }
        Err(_) => {
            tracing::error!(%key, revision = rev.0, "etcd holds something that is no object");
            None
        }
    }
}
