//! The part of bundles that all nodes of a pool have in common: followed, indexed, encoded, cued.
//!
//! One lock holds the index, and never while the fleet's own is held, so that a large part holds up no
//! heartbeat; what heartbeats need to know, the versions, is handed over to the fleet's state.

mod content;
mod cue;
mod encode;
mod follow;
mod hubs;
mod index;
#[cfg(test)]
mod index_tests;
mod leaders;
mod nodes;
mod objects;
mod versions;

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;
use toono_session::NodeIndex;
use toono_wire::{
    join::ClusterDns,
    pool::{HUB_PORT, Hub, Pass, PoolNews, service_key},
};

pub(crate) use self::{
    cue::cue,
    encode::answer,
    follow::follow,
    hubs::Hubs,
    leaders::leaders,
    nodes::{node_gone, node_seen, nodes_listed},
    versions::Versions,
};
use self::{
    encode::Encoded,
    index::{Moved, Parts, PoolOf},
    nodes::Nodes,
};
use crate::fleet::{Inner, State};

/// A node that leaves its pool can ask the pool's others for so long. One whose pass ended gets another with its
/// bundle.
const PASS_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// All parts, and what is made of them.
#[derive(Default)]
pub(crate) struct PoolParts {
    kept: Mutex<Kept>,
    /// Woken when there is someone to cue.
    moved: Notify,
    nodes: Nodes,
}

#[derive(Default)]
struct Kept {
    parts: Parts,
    encoded: Encoded,
    /// Whom the next wave of pokes concerns.
    to_cue: Moved,
}

impl PoolParts {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes the parts, and lets it be known whose have moved.
fn change(inner: &Inner, change: impl FnOnce(&mut Parts, PoolOf<'_>)) {
    let pool_of =
        |node: &str| inner.state().table.named(node).map(|(_, member)| member.pool.clone());
    let mut kept = inner.parts.kept();
    change(&mut kept.parts, &pool_of);
    let moved = kept.parts.take_moved();
    if moved.is_nothing() || !kept.parts.is_loaded() {
        return;
    }
    kept.encoded.forget();
    let all = kept.parts.common();
    tracing::debug!(records = kept.parts.len(), version = ?all, "the pools' parts moved");
    let now = inner.now();
    inner.state().versions.set(all.unwrap_or_default(), kept.parts.own(), now);
    kept.to_cue.add(moved);
    drop(kept);
    inner.parts.moved.notify_one();
}

/// Nodes that may be in other pools than before.
pub(crate) fn nodes_changed<'n>(inner: &Inner, names: impl Iterator<Item = &'n str>) {
    let names: Vec<&str> = {
        let kept = inner.parts.kept();
        names.filter(|name| kept.parts.asks_for_pool_of(name)).collect()
    };
    if !names.is_empty() {
        change(inner, |parts, pool_of| {
            names.iter().for_each(|name| parts.node_moved(name, pool_of));
        });
    }
}

/// What a node is to know of its pool's part; none before all was read.
pub(crate) fn news(inner: &Inner, node: &str) -> Option<PoolNews> {
    let (name, version, hub) = {
        let state = inner.state();
        let pool = state.table.named(node).map_or("", |(_, member)| &*member.pool);
        (pool.to_owned(), state.versions.of(pool)?, hub(inner, &state, pool, node))
    };
    let is_pooled = !name.is_empty();
    let visits = hub.as_ref().is_some_and(|hub| hub.node != node);
    // Also where there is no hub: nodes of a pool ask each other for layers of images.
    let pass = (is_pooled || visits).then(|| pass(inner, &name, node)).flatten();
    let key = is_pooled.then(|| key(inner, &name));
    Some(PoolNews { name, version, hub, pass, key })
}

/// What the nodes of a pool know each other by. It lasts as long as the CA: nodes that are told of another key at
/// different times would think each other dead.
fn key(inner: &Inner, pool: &str) -> String {
    let secret = inner.ca.secret_for(format!("pool/{pool}").as_bytes());
    secret.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the cluster's DNS is, once its Service was read.
pub(crate) fn cluster_dns(inner: &Inner) -> Option<ClusterDns> {
    let (namespace, name) = ClusterDns::SERVICE;
    let kept = inner.parts.kept();
    let record = kept.parts.record(&service_key(namespace, name))?;
    ClusterDns::of_record(ClusterDns::DOMAIN, record)
}

/// Our word that a node is of a pool.
fn pass(inner: &Inner, pool: &str, node: &str) -> Option<String> {
    let until = (SystemTime::now() + PASS_LIFETIME).duration_since(UNIX_EPOCH).ok()?.as_secs();
    let mut pass = Pass { until, signature: Vec::new() };
    pass.signature = inner.ca.sign_statement(&pass.statement(pool, node)).ok()?;
    Some(pass.to_string())
}

/// Who serves a pool's part to a node of it: the node itself, if it is a hub. The others share the hubs.
pub(crate) fn hub(inner: &Inner, state: &State, pool: &str, node: &str) -> Option<Hub> {
    let hubs = hubs_of(inner, state, pool);
    let own = state.table.index(node);
    let place = own.and_then(|index| usize::try_from(index.0).ok()).unwrap_or_default();
    let itself = hubs.iter().find(|(index, _)| Some(*index) == own);
    let (index, address) = *itself.or_else(|| hubs.get(place.checked_rem(hubs.len())?))?;
    let node = state.table.member(index)?.name.to_string();
    Some(Hub { node, address, port: HUB_PORT })
}

fn hubs_of(inner: &Inner, state: &State, pool: &str) -> Vec<(NodeIndex, IpAddr)> {
    let named = |name: &str| {
        let (index, member) = state.table.named(name)?;
        (*member.pool == *pool).then_some(index)
    };
    state.hubs.of(pool, |index| inner.alive(state, index), named)
}
