//! Reading all objects from etcd as of one revision. It must not know who follows from there.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;
use toono_mvcc::{Entry, Limits, Restore, Table};

use super::messages::{KeyValue, RangeRequest, RangeResponse};
use super::names::{Names, Place, read_object};
use super::rpc::{CallError, Rpc};
use super::{ConnectError, REQUEST_TIMEOUT, rev, whole};

/// Objects that are asked for at a time. etcd holds up its writers for a part of each answer.
const PAGE: i64 = 2000;

/// Revisions of history that a start reads at the most, so that it does not take long.
const RESUMED: i64 = 20_000;

/// The method of a read.
pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";

/// Everything, at the revision that is the table's head.
pub(super) struct Snapshot {
    pub(super) table: Table,
    /// Which etcd it came from.
    pub(super) cluster: u64,
}

impl Snapshot {
    /// As of some minutes ago, so that what follows is history that watches of another server, or of
    /// before a restart, can be resumed in.
    pub(super) async fn read_old(
        rpc: &Rpc,
        names: &Names,
        limits: Limits,
    ) -> Result<Self, ConnectError> {
        let request = RangeRequest { key: names.compact(), ..RangeRequest::default() };
        let compact: RangeResponse =
            rpc.call(RANGE, &request, Instant::now() + REQUEST_TIMEOUT).await?;
        let newest = compact.header.unwrap_or_default().revision;
        // What was the newest when history was last compacted is what it is compacted to next.
        let noted =
            compact.kvs.first().and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok());
        let old = noted.unwrap_or(newest).clamp(newest.saturating_sub(RESUMED).max(1), newest);
        match Self::read(rpc, names, limits, old).await {
            // By somebody, a moment ago.
            Err(ConnectError::Compacted) => Self::read(rpc, names, limits, 0).await,
            read => read,
        }
    }

    /// As of a revision; 0 is the newest one.
    pub(super) async fn read(
        rpc: &Rpc,
        names: &Names,
        limits: Limits,
        mut revision: i64,
    ) -> Result<Self, ConnectError> {
        let (mut key, range_end) = names.objects();
        // Keys come in etcd's order, which is not that of resources: `pods-x/` comes before `pods/`.
        let mut resources: BTreeMap<Box<str>, Vec<Entry>> = BTreeMap::new();
        let cluster = loop {
            let range_end = range_end.clone();
            let request = RangeRequest { key, range_end, limit: PAGE, revision };
            let page: RangeResponse =
                rpc.call(RANGE, &request, Instant::now() + REQUEST_TIMEOUT).await?;
            let header = page.header.unwrap_or_default();
            if revision == 0 {
                // The first page decides: without a revision it is a quorum read of the newest one.
                revision = header.revision;
            }
            let Some(last) = page.kvs.last().filter(|_| page.more) else {
                sort_in(&mut resources, names, page.kvs)?;
                break header.cluster_id;
            };
            key = after(&last.key);
            sort_in(&mut resources, names, page.kvs)?;
        };
        let mut restore = Restore::new(limits);
        for entry in resources.into_values().flatten() {
            restore
                .push(entry)
                .map_err(|error| CallError::Unknown(format!("etcd's order: {error}")))?;
        }
        Ok(Self { table: restore.finish(whole(revision)), cluster })
    }
}

fn sort_in(
    resources: &mut BTreeMap<Box<str>, Vec<Entry>>,
    names: &Names,
    kvs: Vec<KeyValue>,
) -> Result<(), ConnectError> {
    for kv in kvs {
        let foreign =
            || ConnectError::Foreign { key: String::from_utf8_lossy(&kv.key).into_owned() };
        let Place::Object(key) = names.place(&kv.key) else { return Err(foreign()) };
        let object = read_object(kv.value.clone()).map_err(|_| foreign())?;
        let modified = rev(kv.mod_revision, object.place);
        let entry = Entry {
            value: object.draft.seal(modified),
            created: rev(kv.create_revision, object.created_place),
            modified,
            owner: object.owner,
            key,
        };
        match resources.get_mut(entry.key.resource()) {
            Some(entries) => entries.push(entry),
            None => {
                resources.insert(entry.key.resource().into(), vec![entry]);
            }
        }
    }
    Ok(())
}

/// The first key after this one.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len().saturating_add(1));
    next.extend_from_slice(key);
    next.put_u8(0);
    next.freeze()
}
