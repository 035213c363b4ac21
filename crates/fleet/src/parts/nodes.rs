//! What nodes of a pool are told of each other: Nodes that changed wait here for the parts' next step, so that
//! thousands that join are one change a second.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::index::Parts;
use crate::{fleet::Inner, objects::NodeObject, parts};

/// Nodes that the parts have not been told of.
#[derive(Default)]
pub(super) struct Nodes {
    waiting: Mutex<BTreeMap<Box<str>, Option<Home>>>,
    /// Woken when somebody waits.
    changed: Notify,
}

/// A pool, and the record that a node has in its part.
struct Home {
    pool: Box<str>,
    text: String,
}

impl Nodes {
    /// Completes when there is something to take.
    pub(super) async fn wait(&self) {
        self.changed.notified().await;
    }

    /// Tells the parts of all who wait.
    pub(super) fn take(&self, parts: &mut Parts) {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for (node, home) in waiting {
            parts.put_node(&node, home.as_ref().map(|home| (&*home.pool, &*home.text)));
        }
    }

    fn put(&self, node: &str, home: Option<Home>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(node.into(), home);
        drop(waiting);
        self.changed.notify_one();
    }
}

/// A Node as it is now.
pub(crate) fn node_seen(inner: &Inner, node: &NodeObject) {
    let record = node.neighbour_record().filter(|_| !node.pool().is_empty());
    let text = record.and_then(|record| serde_json::to_string(&record).ok());
    let home = text.map(|text| Home { pool: node.pool().into(), text });
    inner.parts.nodes.put(&node.metadata.name, home);
}

/// There is no such Node any more.
pub(crate) fn node_gone(inner: &Inner, name: &str) {
    inner.parts.nodes.put(name, None);
}

/// All Nodes that there are have been told.
pub(crate) fn nodes_listed(inner: &Inner) {
    parts::change(inner, |parts, _| {
        inner.parts.nodes.take(parts);
        parts.nodes_listed();
    });
}
