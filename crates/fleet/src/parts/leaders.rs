//! Follows the pools' objects: whom they say to lead is the pool's hub.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use toono_openyurt::NodePool;

use crate::{Change, fleet::Inner};

/// For as long as pools are told.
pub(crate) async fn leaders(inner: Arc<Inner>, mut changes: BoxStream<'static, Change>) {
    let mut there: HashSet<String> = HashSet::new();
    while let Some(change) = changes.next().await {
        match change {
            Change::List => there.clear(),
            Change::Page(objects) => {
                for pool in objects.iter().filter_map(parse) {
                    inner.state().hubs.elect(&pool);
                    there.insert(pool.name().to_owned());
                }
            }
            Change::Listed { .. } => {
                let there = std::mem::take(&mut there);
                inner.state().hubs.keep_elected(|pool| there.contains(pool));
            }
            Change::Put(json) => {
                parse(&json).into_iter().for_each(|pool| inner.state().hubs.elect(&pool));
            }
            Change::Delete(json) => {
                parse(&json).into_iter().for_each(|pool| inner.state().hubs.unelect(pool.name()));
            }
        }
    }
}

fn parse(json: &Bytes) -> Option<NodePool> {
    serde_json::from_slice(json)
        .inspect_err(|error| tracing::warn!(%error, "a NodePool that cannot be read"))
        .ok()
}
