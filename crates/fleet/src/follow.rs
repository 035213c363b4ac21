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
    let mut there: HashSet<NodeUid> = HashSet::new();
    while let Some(change) = changes.next().await {
        let now = inner.now();
        match change {
            Change::List => there.clear(),
            Change::Page(objects) => {
                let nodes: Vec<NodeObject> = objects.iter().filter_map(parse_node).collect();
                there.extend(nodes.iter().map(|node| NodeUid::new(&node.metadata.uid)));
                let mut state = inner.state();
                for node in &nodes {
                    state.admit(node, now);
                }
            }
            Change::Listed { .. } => listed(&mut inner.state(), &std::mem::take(&mut there)),
            Change::Put(json) => {
                if let Some(node) = parse_node(&json) {
                    inner.state().admit(&node, now);
                }
            }
            Change::Delete(json) => {
                if let Some(node) = parse_node(&json) {
                    let uid = NodeUid::new(&node.metadata.uid);
                    inner.state().remove(&node.metadata.name, uid);
                }
            }
        }
    }
}

/// Every Node that there is has been told.
fn listed(state: &mut State, there: &HashSet<NodeUid>) {
    let gone: Vec<(Arc<str>, NodeUid)> = state
        .table
        .members()
        .filter(|(_, member)| !there.contains(&member.uid))
        .map(|(_, member)| (member.name.clone(), member.uid))
        .collect();
    for (name, uid) in gone {
        state.remove(&name, uid);
    }
    state.leased.retain(|uid| there.contains(&uid));
    state.table.loaded = true;
}

/// Follows Pods, and pokes the nodes whose desired state moves.
pub(crate) async fn pods(inner: Arc<Inner>, mut changes: BoxStream<'static, Change>) {
    while let Some(change) = changes.next().await {
        let moved = match change {
            Change::List => {
                inner.state().bundles.list();
                continue;
            }
            Change::Page(objects) => {
                let pods: Vec<PodObject> = objects.iter().filter_map(parse_pod).collect();
                let mut state = inner.state();
                pods.into_iter().filter_map(|pod| state.bundles.listed(pod)).collect()
            }
            Change::Listed { revision } => inner.state().bundles.list_ended(revision),
            Change::Put(json) => {
                let pod = parse_pod(&json);
                pod.and_then(|pod| inner.state().bundles.put(pod)).into_iter().collect()
            }
            Change::Delete(json) => {
                let pod = parse_pod(&json);
                pod.and_then(|pod| inner.state().bundles.delete(&pod)).into_iter().collect()
            }
        };
        let mut state = inner.state();
        moved.into_iter().for_each(|node| state.pokes.bundle_moved(node));
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
            let Some(bundle) = state.table.member(index).map(|member| member.bundle) else {
                continue;
            };
            if state.bundles.sweep(bundle) {
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
