//! Keeps the tables in step with the API: Nodes become members, Pods and what they reference become bundles.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::oneshot;
use toono_session::NodeUid;
use toono_wire::referent::ReferentKind;

use crate::{
    Change,
    bundles::Spread,
    fleet::{Inner, State},
    objects::{NodeObject, PodObject, ReferentObject},
    parts,
};

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
                    state.follow(node, now);
                }
                drop(state);
                nodes.iter().for_each(|node| parts::node_seen(&inner, node));
                parts::nodes_changed(&inner, nodes.iter().map(|node| &*node.metadata.name));
            }
            Change::Listed { .. } => {
                let gone = listed(&mut inner.state(), &std::mem::take(&mut there));
                inner.loaded.send_replace(true);
                gone.iter().for_each(|name| parts::node_gone(&inner, name));
                parts::nodes_listed(&inner);
                parts::nodes_changed(&inner, gone.iter().map(|name| &**name));
            }
            Change::Put(json) => {
                if let Some(node) = parse_node(&json) {
                    inner.state().follow(&node, now);
                    parts::node_seen(&inner, &node);
                    parts::nodes_changed(&inner, std::iter::once(&*node.metadata.name));
                }
            }
            Change::Delete(json) => {
                if let Some(node) = parse_node(&json) {
                    let uid = NodeUid::new(&node.metadata.uid);
                    inner.state().remove(&node.metadata.name, uid);
                    parts::node_gone(&inner, &node.metadata.name);
                    parts::nodes_changed(&inner, std::iter::once(&*node.metadata.name));
                }
            }
        }
    }
}

/// Every Node that there is has been told. Returns those that are not there any more.
fn listed(state: &mut State, there: &HashSet<NodeUid>) -> Vec<Arc<str>> {
    let gone: Vec<(Arc<str>, NodeUid)> = state
        .table
        .members()
        .filter(|(_, member)| !there.contains(&member.uid))
        .map(|(_, member)| (member.name.clone(), member.uid))
        .collect();
    for (name, uid) in &gone {
        state.remove(name, *uid);
    }
    state.leased.retain(|uid| there.contains(&uid));
    state.table.loaded = true;
    gone.into_iter().map(|(name, _)| name).collect()
}

/// Follows Pods, once all that they may reference has been read, and pokes the nodes whose desired state moves.
pub(crate) async fn pods(inner: Arc<Inner>, read: Vec<oneshot::Receiver<()>>) {
    for referents in read {
        // One that ends without a word ends the fleet.
        let _ = referents.await;
    }
    let mut changes = inner.feed.pods();
    while let Some(change) = changes.next().await {
        let moved = match change {
            Change::List => {
                inner.state().bundles.list();
                continue;
            }
            Change::Page(objects) => {
                let pods: Vec<PodObject> = objects.iter().filter_map(parse_pod).collect();
                let mut state = inner.state();
                pods.iter().for_each(|pod| state.learn_accounts(pod));
                pods.into_iter().filter_map(|pod| state.bundles.listed(pod)).collect()
            }
            Change::Listed { revision } => inner.state().bundles.list_ended(revision),
            Change::Put(json) => {
                let put = |pod: PodObject| {
                    let mut state = inner.state();
                    state.learn_accounts(&pod);
                    state.bundles.put(pod)
                };
                parse_pod(&json).and_then(put).into_iter().collect()
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

/// Follows ConfigMaps or Secrets, pokes the nodes with pods that reference what changes, and says when all are read.
pub(crate) async fn referents(
    inner: Arc<Inner>,
    kind: ReferentKind,
    mut changes: BoxStream<'static, Change>,
    read: oneshot::Sender<()>,
) {
    let mut read = Some(read);
    let parse = |json: &Bytes| {
        ReferentObject::parse(kind, json)
            .inspect_err(|error| tracing::warn!(kind = kind.plural(), %error, "not readable"))
            .ok()
    };
    while let Some(change) = changes.next().await {
        let spreads: Vec<Spread> = match change {
            Change::List => {
                inner.state().bundles.list_referents(kind);
                continue;
            }
            Change::Page(objects) => {
                let objects: Vec<_> = objects.iter().filter_map(parse).collect();
                let mut state = inner.state();
                objects.into_iter().filter_map(|it| state.bundles.put_referent(it)).collect()
            }
            Change::Listed { revision } => {
                let spreads = inner.state().bundles.referents_listed(kind, revision);
                if let Some(read) = read.take() {
                    // Who waited has ended; so will this.
                    let _ = read.send(());
                }
                spreads
            }
            Change::Put(json) => {
                let object = parse(&json);
                let put = object.and_then(|it| inner.state().bundles.put_referent(it));
                put.into_iter().collect()
            }
            Change::Delete(json) => {
                let object = parse(&json);
                let delete = |it: ReferentObject| {
                    inner.state().bundles.delete_referent(&it.name, it.revision)
                };
                object.and_then(delete).into_iter().collect()
            }
        };
        for spread in spreads {
            tell(&inner, spread).await;
        }
    }
}

/// Some nodes at a time, so that heartbeats between them need not wait.
pub(crate) async fn tell(inner: &Inner, mut spread: Spread) {
    while !spread.is_done() {
        {
            let mut state = inner.state();
            let moved = state.bundles.spread(&mut spread);
            moved.into_iter().for_each(|node| state.pokes.bundle_moved(node));
            wake(inner, &state);
        }
        tokio::task::yield_now().await;
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
