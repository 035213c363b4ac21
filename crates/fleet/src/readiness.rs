//! Turns silence and return into the Ready condition of Nodes: a change is a write, a heartbeat is not.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::MissedTickBehavior};
use toono_session::NodeIndex;

use crate::{
    calls::{code, modify, timestamp},
    fleet::Inner,
    objects::{NodeObject, at, set, set_condition},
};

/// Writes under way at once: when a region's link falls, thousands of Nodes change together.
const CONCURRENT_WRITES: usize = 16;
/// How often all members are looked over for silence; it delays NotReady by this at most.
const LOOK: Duration = Duration::from_secs(1);
/// Members looked over before heartbeats are served again: well below a millisecond.
const LOOK_CHUNK: usize = 4_096;

/// Until its task is dropped. It never waits for a write, so a late look means that the whole
/// server was held up.
pub(crate) async fn watch_over(inner: Arc<Inner>) {
    let slots = Arc::new(Semaphore::new(CONCURRENT_WRITES));
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            _ = look.tick() => silent(&inner),
            () = inner.readiness.notified() => std::mem::take(&mut inner.state().returned),
        };
        if !due.is_empty() {
            tokio::spawn(write_all(inner.clone(), slots.clone(), due));
        }
    }
}

/// Members whose readiness is to be written, found by looking at all of them; marks them.
fn silent(inner: &Inner) -> Vec<NodeIndex> {
    let mut due = Vec::new();
    let indexes = {
        let mut state = inner.state();
        state.table.listening(inner.now());
        if state.table.loaded { state.table.indexes() } else { 0..0 }
    };
    for chunk in indexes.step_by(LOOK_CHUNK) {
        let now = inner.now();
        let mut state = inner.state();
        let chunk = (chunk..).take(LOOK_CHUNK).map(NodeIndex);
        due.extend(chunk.filter(|index| state.table.take_due(*index, now, inner.config.grace)));
    }
    due
}

/// Writes what is due. Bounded by the number of members, each being in it once.
async fn write_all(inner: Arc<Inner>, slots: Arc<Semaphore>, due: Vec<NodeIndex>) {
    for index in due {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let inner = inner.clone();
        tokio::spawn(async move {
            write(&inner, index).await;
            if let Some(member) = inner.state().table.member_mut(index) {
                member.writing = false;
            }
            drop(slot);
        });
    }
}

/// Decides again at the time of writing: a node that came back meanwhile is not declared silent.
async fn write(inner: &Inner, index: NodeIndex) {
    let (name, uid, alive) = {
        let state = inner.state();
        let Some(member) = state.table.member(index) else { return };
        let Some(alive) = state.table.due(index, inner.now(), inner.config.grace) else { return };
        (member.name.clone(), member.uid.clone(), alive)
    };
    let now = timestamp();
    let path = format!("/api/v1/nodes/{name}");
    let written = modify(&inner.calls, &path, "/status", |node| {
        let status = |node: &mut Value| {
            let mut status = at(node, &["status"]).clone();
            let changed = set_condition(&mut status, condition(alive, &now), &now);
            set(node, &["status"], status);
            changed
        };
        at(node, &["metadata", "uid"]) == uid.as_str() && status(node)
    })
    .await;
    match written {
        Ok(node) => {
            tracing::info!(node = &*name, ready = alive, "readiness written");
            admit(inner, &node);
            if alive && let Some(member) = inner.state().table.member_mut(index) {
                // What changed on the node during the silence is known to the node alone.
                member.resend = true;
            }
        }
        Err(error) if code(&error) == Some(404) => {}
        // The next look finds it due again.
        Err(error) => tracing::warn!(node = &*name, %error, "cannot write the node's readiness"),
    }
}

/// The Ready condition of a node that is heard, or of one that is not.
pub(crate) fn condition(alive: bool, now: &str) -> Value {
    let (status, reason, message) = if alive {
        ("True", "KubeletReady", "The node sends heartbeats.")
    } else {
        ("Unknown", "NodeStatusUnknown", "Node stopped sending heartbeats.")
    };
    json!({"type": "Ready", "status": status, "reason": reason, "message": message,
           "lastHeartbeatTime": now, "lastTransitionTime": now})
}

/// Takes a Node that was just written, so that the table need not wait for the feed.
pub(crate) fn admit(inner: &Inner, node: &Value) {
    let parsed = serde_json::to_vec(node).and_then(|bytes| NodeObject::parse(&bytes));
    if let Ok(node) = parsed {
        let now = inner.now();
        inner.state().table.admit(&node, now);
    }
}
