//! Renewals that reach the store, whichever server they were sent to, are told to who knows of nodes' lives.
//! It writes nothing.

use std::{sync::Weak, time::Duration};

use toono_api::kinds::coordination::LEASE;
use toono_mvcc::{Event, EventKind, Prefix};
use toono_store::{WatchItem, Watcher};

use super::{
    NODE_LEASES,
    renewals::{UNSEEN_MAX, time_of},
};
use crate::server::Inner;

/// Follows them until the server ends. What was stored before is old: nobody was heard by it.
pub(super) async fn follow(server: Weak<Inner>) {
    let prefix = Prefix::namespace(LEASE.group, LEASE.plural, NODE_LEASES);
    let mut lagged = false;
    while let Some(inner) = server.upgrade() {
        let since = inner.store.revision();
        let events = inner.store.watch(&prefix, since);
        if lagged {
            // Who renewed in what was missed is not known, so all may have.
            let leases = inner.store.list(&prefix, since, None, usize::MAX);
            for lease in leases.map(|page| page.entries).unwrap_or_default() {
                inner.lives.renewed(lease.key.name(), unseen(&inner));
            }
        }
        drop(inner);
        if let Ok(events) = events {
            tell(&server, events).await;
        }
        lagged = true;
        tokio::task::yield_now().await;
    }
}

async fn tell(server: &Weak<Inner>, mut events: Watcher) {
    while let Ok(item) = events.next().await {
        let Some(inner) = server.upgrade() else { return };
        if let WatchItem::Event(event) = item
            && is_renewal(&event)
        {
            inner.lives.renewed(event.entry.key.name(), unseen(&inner));
        }
    }
}

fn is_renewal(event: &Event) -> bool {
    let before = event.prev.as_ref().and_then(|lease| time_of(&lease.value));
    let now = time_of(&event.entry.value);
    event.kind == EventKind::Put && now.is_some() && now != before
}

/// How long the node's next renewals may stay in another server's memory.
fn unseen(inner: &Inner) -> Duration {
    if inner.config.shared_store { UNSEEN_MAX } else { Duration::ZERO }
}
