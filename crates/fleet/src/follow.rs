//! Keeps the tables in step with the API: Nodes become members, Pods become bundles.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use toono_session::NodeUid;

use crate::{
    Change,
    fleet::{Inner, State},
    objects::{NodeObject, PodObject},
};

/// Nodes asked to compare their bundle per second after a start: each costs one small request.
const SWEEP_PER_SECOND: usize = 1_000;

/// Follows Nodes.
pub(crate) async fn nodes(inner: Arc<Inner>, mut changes: BoxStream<'static, Change>) {
    while let Some(change) = changes.next().await {
        let now = inner.now();
        let mut state = inner.state();
        match change {
            Change::Snapshot { objects, .. } => {
                let nodes: Vec<NodeObject> = objects.iter().filter_map(parse_node).collect();
                let there: HashSet<NodeUid> =
                    nodes.iter().map(|node| NodeUid::new(&node.metadata.uid)).collect();
                let gone: Vec<(Arc<str>, NodeUid)> = state
                    .table
                    .members()
                    .filter(|(_, member)| !there.contains(&member.uid))
                    .map(|(_, member)| (member.name.clone(), member.uid))
                    .collect();
                for (name, uid) in gone {
                    state.table.remove(&name, Some(uid));
                }
                for node in &nodes {
                    state.table.admit(node, now);
                }
                state.table.loaded = true;
            }
            Change::Put(json) => {
                if let Some(node) = parse_node(&json) {
                    state.table.admit(&node, now);
                }
            }
            Change::Delete(json) => {
                if let Some(node) = parse_node(&json) {
                    let uid = NodeUid::new(&node.metadata.uid);
                    state.table.remove(&node.metadata.name, Some(uid));
                }
            }
        }
    }
}

/// Follows Pods, and pokes the nodes whose desired state moves.
pub(crate) async fn pods(inner: Arc<Inner>, mut changes: BoxStream<'static, Change>) {
    while let Some(change) = changes.next().await {
        let mut state = inner.state();
        let moved = match change {
            Change::Snapshot { revision, objects } => {
                let pods = objects.iter().filter_map(parse_pod).collect();
                state.bundles.snapshot(revision, pods)
            }
            Change::Put(json) => {
                parse_pod(&json).and_then(|pod| state.bundles.put(pod)).into_iter().collect()
            }
            Change::Delete(json) => parse_pod(&json)
                .and_then(|pod| state.bundles.delete(&pod.uid, pod.revision))
                .into_iter()
                .collect(),
        };
        for node in moved {
            if let Some(index) = state.table.index(&node) {
                state.pokes.bundle_moved(index);
            }
        }
        wake(&inner, &state);
    }
}

/// Asks every node once after a start to compare its bundle, a limited number a second.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut state = inner.state();
        if !state.table.loaded || !state.bundles.is_loaded() {
            continue;
        }
        // Only who is heard can answer; the others arrive later.
        let arrived: Vec<_> = {
            let count = state.arrived.len().min(SWEEP_PER_SECOND);
            state.arrived.drain(..count).collect()
        };
        for index in arrived {
            let Some(name) = state.table.member(index).map(|member| member.name.clone()) else {
                continue;
            };
            if state.bundles.sweep(&name) {
                state.pokes.bundle_moved(index);
            }
        }
        wake(&inner, &state);
    }
}

fn wake(inner: &Inner, state: &State) {
    if !state.pokes.is_empty() {
        inner.poked.notify_one();
    }
}

fn parse_node(json: &Bytes) -> Option<NodeObject> {
    NodeObject::parse(json)
        .inspect_err(|error| tracing::warn!(%error, "a Node that cannot be read"))
        .ok()
}

fn parse_pod(json: &Bytes) -> Option<PodObject> {
    PodObject::parse(json)
        .inspect_err(|error| tracing::warn!(%error, "a Pod that cannot be read"))
        .ok()
}
