//! Turns silence and return into the Ready condition of Nodes: a change is a write, a heartbeat is not.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::MissedTickBehavior};
use toono_session::{NodeIndex, NodeUid};

use crate::{
    calls::{code, modify, seconds, timestamp},
    fleet::Inner,
    objects::{NodeObject, at, set, set_condition},
};

/// Writes under way at once: when a region's link falls, thousands of Nodes change together, and writes that
/// are under way together share a sync of the disk.
const CONCURRENT_WRITES: usize = 128;
/// How often it is seen whose time has come; it delays NotReady by two of these at most.
const LOOK: Duration = Duration::from_secs(1);
/// Before a write that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);
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

/// Members whose readiness is to be written; marks them.
fn silent(inner: &Inner) -> Vec<NodeIndex> {
    let looks = {
        let (now, mut state) = (inner.now(), inner.state());
        if state.table.may_judge(now) { state.table.looks(now) } else { Vec::new() }
    };
    let mut due = Vec::new();
    for chunk in looks.chunks(LOOK_CHUNK) {
        let now = inner.now();
        let mut state = inner.state();
        let chunk = chunk.iter().copied();
        due.extend(chunk.filter(|index| state.table.look(*index, now, &inner.config.grace)));
    }
    due
}

/// Writes what is due. Bounded by the number of members, each being in it once.
async fn write_all(inner: Arc<Inner>, slots: Arc<Semaphore>, due: Vec<NodeIndex>) {
    for index in due {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let inner = inner.clone();
        tokio::spawn(async move {
            let written = write(&inner, index).await;
            drop(slot);
            if !written {
                tokio::time::sleep(PAUSE).await;
            }
            let (now, mut state) = (inner.now(), inner.state());
            if let Some(member) = state.table.member_mut(index) {
                member.writing = false;
            }
            if !written && state.table.take_due(index, now, &inner.config.grace) {
                state.returned.push(index);
                inner.readiness.notify_one();
            }
        });
    }
}

/// Decides again at the time of writing: a node that came back meanwhile is not declared silent. Says whether
/// there is nothing left to write.
async fn write(inner: &Inner, index: NodeIndex) -> bool {
    let (name, known, alive, heard) = {
        let state = inner.state();
        let Some(member) = state.table.member(index) else { return true };
        let due = state.table.due(index, inner.now(), &inner.config.grace);
        let Some(alive) = due else { return true };
        let heard = state.table.heard(index).and_then(|at| Some(seconds(inner.moment(at)?)));
        (member.name.clone(), (member.uid, member.revision), alive, heard)
    };
    match set_ready(inner, &name, known, (alive, heard.as_deref())).await {
        Ok(node) => {
            tracing::info!(node = &*name, ready = alive, "readiness written");
            admit(inner, &node);
            if alive && let Some(member) = inner.state().table.member_mut(index) {
                // What changed on the node during the silence is known to the node alone.
                member.resend = true;
            }
            true
        }
        Err(error) if code(&error) == Some(404) => true,
        Err(error) => {
            tracing::warn!(node = &*name, %error, "cannot write the node's readiness");
            false
        }
    }
}

/// Writes the condition of a Node, if it is this one still; the Node as it now is.
///
/// Nearly always it is as it was known, and then one request does.
async fn set_ready(
    inner: &Inner,
    name: &str,
    (uid, revision): (NodeUid, u64),
    (alive, heard): (bool, Option<&str>),
) -> Result<String, kube::Error> {
    let now = timestamp();
    let path = format!("/api/v1/nodes/{name}");
    let patch = json!({
        "metadata": {"resourceVersion": revision.to_string()},
        "status": {"conditions": [condition(alive, &now, heard)]},
    });
    match inner.calls.merge_lists(&format!("{path}/status"), &patch).await {
        Err(error) if code(&error) == Some(409) => {}
        other => return other,
    }
    let written = modify(&inner.calls, &path, "/status", |node| {
        let status = |node: &mut Value| {
            let mut status = at(node, &["status"]).clone();
            let changed = set_condition(&mut status, condition(alive, &now, heard), &now);
            set(node, &["status"], status);
            changed
        };
        let same =
            at(node, &["metadata", "uid"]).as_str().is_some_and(|it| NodeUid::new(it) == uid);
        same && status(node)
    });
    Ok(written.await?.to_string())
}

/// The Ready condition of a node that is heard, or of one that is not, and when it last was: not since the
/// server's start, and it stays as it is written.
pub(crate) fn condition(alive: bool, now: &str, heard: Option<&str>) -> Value {
    let (status, reason, message) = if alive {
        ("True", "KubeletReady", "The node sends heartbeats.")
    } else {
        ("Unknown", "NodeStatusUnknown", "Node stopped sending heartbeats.")
    };
    let mut ready = json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now});
    heard.into_iter().for_each(|heard| set(&mut ready, &["lastHeartbeatTime"], heard));
    ready
}

/// Takes a Node that was just written, so that the table need not wait for the feed.
pub(crate) fn admit(inner: &Inner, node: &str) {
    if let Ok(node) = NodeObject::parse(node.as_bytes()) {
        let now = inner.now();
        inner.state().admit(&node, now);
    }
}
