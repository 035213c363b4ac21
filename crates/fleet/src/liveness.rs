//! What the API server asks and tells of nodes' lives, and the nodes without a session that are called
//! silent: those nobody hears in a heartbeat.
//!
//! Kubernetes' node lifecycle controller writes the same, in the same words
//! (<https://kubernetes.io/docs/reference/node/node-status/#heartbeats>).

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::MissedTickBehavior};
use toono_session::NodeUid;

use crate::{
    Fleet,
    calls::{code, modify, timestamp},
    fleet::Inner,
    leased::Silent,
    objects::{at, set},
};

/// How often it is seen who is silent.
const LOOK: Duration = Duration::from_secs(1);
/// Writes under way at once: when a region's link falls, thousands of Nodes change together.
const CONCURRENT_WRITES: usize = 16;
/// The conditions that a kubelet reports, which are not known any more when it is silent.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

impl Fleet {
    /// When each of these nodes was last heard by this server, by heartbeat, Lease or report.
    #[must_use]
    pub fn heard(&self, nodes: &[&str]) -> Vec<Option<Timestamp>> {
        let inner = self.inner();
        let state = inner.state();
        let heard = |name: &&str| match state.table.index(name) {
            Some(index) => state.table.heard(index),
            None => state.leased.heard(name),
        };
        let times: Vec<_> = nodes.iter().map(heard).collect();
        drop(state);
        times.into_iter().map(|heard| inner.moment(heard?)).collect()
    }

    /// A node has renewed its Lease. Its next renewals may not be heard of here for `unseen`, as when another
    /// server gets them: silence counts from then on.
    pub fn renewed(&self, node: &str, unseen: Duration) {
        let inner = self.inner();
        let (now, mut state) = (inner.now(), inner.state());
        let Some(index) = state.table.index(node) else {
            state.leased.renewed(node, now, unseen);
            return;
        };
        state.table.renewed(index, now, unseen);
        if state.table.take_due(index, now, &inner.config.grace) {
            state.returned.push(index);
            inner.readiness.notify_one();
        }
    }
}

/// Calls nodes without a session silent, until its task is dropped.
pub(crate) async fn watch_over(inner: Arc<Inner>) {
    let slots = Arc::new(Semaphore::new(CONCURRENT_WRITES));
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let silent = silent(&inner);
        if !silent.is_empty() {
            tokio::spawn(write_all(Arc::clone(&inner), Arc::clone(&slots), silent));
        }
    }
}

fn silent(inner: &Inner) -> Vec<Silent> {
    let (now, mut state) = (inner.now(), inner.state());
    // Whichever loop looks first after a break has to say that there was one.
    if !state.table.may_judge(now) {
        return Vec::new();
    }
    let since = state.table.listening_since();
    state.leased.silent(now, since, &inner.config.grace)
}

/// Bounded by the number of nodes, each being in it once.
async fn write_all(inner: Arc<Inner>, slots: Arc<Semaphore>, silent: Vec<Silent>) {
    for node in silent {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            write(&inner, &node).await;
            drop(slot);
            // One that could not be written is found again.
            inner.state().leased.written(&node.name);
        });
    }
}

async fn write(inner: &Inner, node: &Silent) {
    let path = format!("/api/v1/nodes/{}", node.name);
    let now = timestamp();
    let written = modify(&inner.calls, &path, "/status", |object| {
        let uid = at(object, &["metadata", "uid"]).as_str();
        let same = uid.is_some_and(|uid| NodeUid::new(uid) == node.uid);
        // Decided again now: one that came back meanwhile is not called silent.
        let state = inner.state();
        let since = state.table.listening_since();
        let silent = state.leased.is_silent(node, inner.now(), since, &inner.config.grace);
        drop(state);
        same && silent && mark_unknown(object, &now)
    })
    .await;
    match written {
        Ok(_) => tracing::info!(node = &*node.name, "a node without a session is silent"),
        Err(error) if code(&error) == Some(404) => {}
        Err(error) => tracing::warn!(node = &*node.name, %error, "cannot write its readiness"),
    }
}

/// Marks what a kubelet reports as unknown; whether that changes anything.
fn mark_unknown(node: &mut Value, now: &str) -> bool {
    let created = at(node, &["metadata", "creationTimestamp"]).clone();
    if !at(node, &["status", "conditions"]).is_array() {
        set(node, &["status", "conditions"], Value::Array(Vec::new()));
    }
    let conditions = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    let Some(conditions) = conditions else { return false };
    let mut changed = false;
    for kind in CONDITIONS {
        match conditions.iter_mut().find(|condition| at(condition, &["type"]) == kind) {
            Some(known) if at(known, &["status"]) == "Unknown" => continue,
            Some(known) => {
                set(known, &["status"], "Unknown");
                set(known, &["reason"], "NodeStatusUnknown");
                set(known, &["message"], "Kubelet stopped posting node status.");
                set(known, &["lastTransitionTime"], now);
            }
            None => conditions.push(json!({"type": kind, "status": "Unknown",
                "reason": "NodeStatusNeverUpdated", "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": created, "lastTransitionTime": now})),
        }
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kubelet_reported_is_unknown_and_what_others_did_is_not() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let mut node = json!({"metadata": {"creationTimestamp": "c"}, "status": {"conditions": [
            condition("Ready", "True"), condition("DiskPressure", "Unknown"),
            condition("NetworkUnavailable", "False")]}});
        assert!(mark_unknown(&mut node, "now"));
        let told = |condition: &Value| {
            let text = |field: &str| condition[field].as_str().unwrap_or("-").to_owned();
            [text("type"), text("status"), text("reason"), text("lastTransitionTime")].join(" ")
        };
        let conditions = node["status"]["conditions"].as_array().unwrap();
        assert_eq!(
            conditions.iter().map(told).collect::<Vec<_>>(),
            [
                "Ready Unknown NodeStatusUnknown now",
                "DiskPressure Unknown - -",
                "NetworkUnavailable False - -",
                "MemoryPressure Unknown NodeStatusNeverUpdated now",
                "PIDPressure Unknown NodeStatusNeverUpdated now",
            ]
        );
        assert!(!mark_unknown(&mut node, "later"), "once is enough");
    }
}
