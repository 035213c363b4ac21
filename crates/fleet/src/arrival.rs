//! Nodes that join at several servers at once: who keeps an index that two of them were given.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use toono_api::ApiError;
use toono_session::NodeUid;

use crate::{
    calls::Refusal,
    fleet::Inner,
    join::{NODES, written},
};

/// How long a Node that was created may take to arrive from the API.
const ARRIVAL: Duration = Duration::from_secs(10);
/// Sights of Nodes of one name that wait to be looked at.
const SIGHTS: usize = 8;

/// A Node that was created here and is awaited from the API. All servers see the Nodes in one order, and of two
/// that claim one index the first keeps it; so each of them knows which.
pub(crate) struct Arrival<'a> {
    inner: &'a Inner,
    name: &'a str,
    seen: Option<mpsc::Receiver<NodeUid>>,
}

impl<'a> Arrival<'a> {
    /// Nothing is awaited where no other server could have created one at the same moment.
    pub(crate) fn new(inner: &'a Inner, name: &'a str) -> Self {
        let mut state = inner.state();
        let seen = state.table.servers.share_a_store().then(|| {
            let (tell, seen) = mpsc::channel(SIGHTS);
            state.awaited.insert(name.to_owned(), tell);
            seen
        });
        Self { inner, name, seen }
    }

    /// Whether the Node has its index for itself; one that has not is deleted.
    pub(crate) async fn keeps_its_index(&mut self, node: &Value) -> Result<bool, Refusal> {
        let Some(seen) = &mut self.seen else { return Ok(true) };
        let object = written(node)?;
        let uid = NodeUid::new(&object.metadata.uid);
        let arrived = async { while seen.recv().await.is_some_and(|other| other != uid) {} };
        tokio::time::timeout(ARRIVAL, arrived).await.map_err(|_| {
            ApiError::Unavailable("the server is behind the store; try again".into())
        })?;
        let kept = {
            let state = self.inner.state();
            let member = state.table.named(self.name);
            member.is_some_and(|(_, member)| member.uid == uid)
        };
        if !kept {
            tracing::debug!(node = self.name, "its index is another one's: it gets another");
            let only = json!({"preconditions": {"uid": object.metadata.uid}});
            let path = format!("{NODES}/{}", self.name);
            self.inner.calls.delete(&path, &only).await?;
        }
        Ok(kept)
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if self.seen.is_some() {
            self.inner.state().awaited.remove(self.name);
        }
    }
}
