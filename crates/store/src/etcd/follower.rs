//! Bringing into memory what etcd tells: every revision, in order, once. It must not decide on
//! anything: what it hears has happened.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::Instant;
use toono_mvcc::{Change, EventKind, Key, Limits, Owner, RestoreError};

use super::messages::{
    KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchEvent, WatchEventKind,
    WatchRequest, WatchResponse,
};
use super::names::{Object, Place, read_last, read_object};
use super::rpc::CallError;
use super::snapshot::{RANGE, Snapshot};
use super::{ConnectError, REQUEST_TIMEOUT, Shared, rev, revision, whole};
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
    Compacted(i64),
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
        let start = revision(self.shared.memory.visible()).saturating_add(1);
        // All keys there are: every revision is about one of them.
        let all = Bytes::from_static(&[0]);
        let create = WatchCreateRequest { key: all.clone(), range_end: all, start_revision: start };
        let request = WatchRequest { create: Some(create) };
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut stream = self.shared.rpc.stream(WATCH, &request, deadline).await?;
        loop {
            let response: WatchResponse = stream.next().await?;
            if response.compact_revision != 0 {
                return Err(End::Compacted(response.compact_revision));
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
        let seen = revision(self.shared.memory.visible());
        if header.cluster_id != self.cluster {
            return Err(End::Lost("this is another etcd cluster: restart the server".to_owned()));
        }
        if header.revision < seen {
            return Err(End::Lost(format!(
                "etcd went back from revision {seen} to {}: restart the server",
                header.revision
            )));
        }
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), ConnectError> {
        let Shared { rpc, names, memory, .. } = &self.shared;
        let snapshot = Snapshot::read(rpc, names, self.limits, 0).await?;
        // Checked again before following goes on; here it only must not be shown.
        if snapshot.cluster == self.cluster && snapshot.table.head() >= memory.visible() {
            memory.replace(snapshot.table);
        }
        Ok(())
    }

    /// Applies events, those of one revision together: etcd does not split them.
    fn take(&self, events: &[WatchEvent]) -> Result<(), End> {
        let revision_of = |event: &WatchEvent| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        for events in events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
            let revision = events.first().map_or(0, revision_of);
            let memory = &self.shared.memory;
            // Told already, before the watch broke.
            if whole(revision) <= memory.visible() {
                continue;
            }
            let mut changed = Vec::new();
            for (place, changes) in self.changes(revision, events) {
                changed.extend(changes.iter().map(|change| change.key.clone()));
                memory.write().follow(rev(revision, place), changes)?;
            }
            memory.write().follow(whole(revision), Vec::new())?;
            memory.publish(whole(revision), changed.iter().map(Key::resource));
        }
        Ok(())
    }

    /// What each commit of a transaction did, by its place there.
    fn changes(&self, revision: i64, events: &[WatchEvent]) -> BTreeMap<u8, Vec<Change>> {
        let kvs = || events.iter().filter_map(|event| Some((event, event.kv.as_ref()?)));
        let is_deletion = |event: &WatchEvent| event.kind == i32::from(WatchEventKind::Delete);
        let mut lasts = HashMap::new();
        for (event, kv) in kvs() {
            if self.shared.names.place(&kv.key) == Place::Last && !is_deletion(event) {
                lasts.extend(read_last(kv.value.clone()).unwrap_or_default());
            }
        }
        let mut changes: BTreeMap<u8, Vec<Change>> = BTreeMap::new();
        for (event, kv) in kvs() {
            let Place::Object(key) = self.shared.names.place(&kv.key) else { continue };
            let (kind, object) = if is_deletion(event) {
                match lasts.remove(&key) {
                    Some(last) => (EventKind::Delete, last),
                    None => {
                        changes.entry(0).or_default().push(self.deleted_by_hand(key));
                        continue;
                    }
                }
            } else if let Some(object) = put(&key, kv) {
                (EventKind::Put, object)
            } else {
                continue;
            };
            let Object { place, owner, draft, .. } = object;
            let value = draft.seal(rev(revision, place));
            changes.entry(place).or_default().push(Change { kind, key, value, owner });
        }
        changes
    }

    /// A deletion whose last state was not told: watchers see what there was.
    fn deleted_by_hand(&self, key: Key) -> Change {
        let there_was = self.shared.memory.get(&key, None).ok().flatten();
        let value = there_was.map(|entry| entry.value).unwrap_or_default();
        Change { kind: EventKind::Delete, key, value, owner: Owner::PLATFORM }
    }
}

/// An object as it was written. What somebody wrote by hand cannot be shown.
fn put(key: &Key, kv: &KeyValue) -> Option<Object> {
    let object = read_object(kv.value.clone());
    if object.is_err() {
        let revision = kv.mod_revision;
        tracing::error!(%key, revision, "etcd holds something that is no object");
    }
    object.ok()
}
