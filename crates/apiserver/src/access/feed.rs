//! Keeps [`Gate`] at what the store holds: roles and bindings before anything is served, then what nodes
//! run, and both by watching. It writes nothing.

use std::sync::{Arc, Weak};

use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use toono_access::{Graph, Kind, Object, Rules};
use toono_api::ApiError;
use toono_mvcc::{Entry, Event, EventKind, Key, Prefix, Rev};
use toono_store::{Lagged, Store, WatchItem};

use super::Gate;
use crate::server::{ApiServer, Inner, expired};

/// How many pods are read at once before others may run: some milliseconds of work.
const PODS_AT_ONCE: usize = 200;
const RBAC: &str = "rbac.authorization.k8s.io";

/// What is watched.
#[derive(Debug, Clone, Copy)]
enum Source {
    Grants(Kind),
    Pods,
    Volumes,
}

const GRANTS: [Source; 4] = [
    Source::Grants(Kind::Role),
    Source::Grants(Kind::ClusterRole),
    Source::Grants(Kind::RoleBinding),
    Source::Grants(Kind::ClusterRoleBinding),
];
const NODES: [Source; 2] = [Source::Pods, Source::Volumes];

impl Source {
    fn prefix(self) -> Prefix {
        match self {
            Self::Grants(kind) => Prefix::resource(RBAC, kind.plural()),
            Self::Pods => Prefix::resource("", "pods"),
            Self::Volumes => Prefix::resource("", "persistentvolumes"),
        }
    }
}

/// Reads roles and bindings, and goes on following the store until the server ends.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn start(server: &ApiServer) -> Result<(), ApiError> {
    let since = load_grants(&server.inner.store, &server.inner.gate)?;
    tokio::spawn(follow_grants(Arc::downgrade(&server.inner), since));
    tokio::spawn(follow_nodes(Arc::downgrade(&server.inner)));
    Ok(())
}

/// The grants as they are now, in the place of those that were known.
fn load_grants(store: &Store, gate: &Gate) -> Result<Rev, ApiError> {
    let rev = store.revision();
    let mut rules = Rules::default();
    for kind in Kind::ALL {
        let page = store.list(&Source::Grants(kind).prefix(), rev, None, usize::MAX);
        for entry in page.map_err(expired)?.entries {
            if let Some(object) = parse(kind, &entry) {
                rules.apply(&object);
            }
        }
    }
    gate.change(|access| access.rules = rules);
    Ok(rev)
}

async fn follow_grants(server: Weak<Inner>, mut since: Rev) {
    while let Some(inner) = server.upgrade() {
        let events = watch(&inner.store, &GRANTS, since);
        drop(inner);
        if let Ok(mut events) = events {
            while let Some(Ok((source, event))) = events.next().await {
                let (Some(inner), Source::Grants(kind)) = (server.upgrade(), source) else {
                    return;
                };
                apply_grant(&inner.gate, kind, &event);
            }
        }
        // Too far behind: begin again from what there is.
        let Some(inner) = server.upgrade() else { return };
        match load_grants(&inner.store, &inner.gate) {
            Ok(rev) => since = rev,
            Err(error) => tracing::warn!(%error, "cannot read roles and bindings again"),
        }
        drop(inner);
        tokio::task::yield_now().await;
    }
}

fn apply_grant(gate: &Gate, kind: Kind, event: &Event) {
    let object = match event.kind {
        EventKind::Put => parse(kind, &event.entry),
        EventKind::Delete => None,
    };
    let key = &event.entry.key;
    gate.change(|access| match &object {
        Some(object) => access.rules.apply(object),
        None => access.rules.remove(kind, key.namespace(), key.name()),
    });
}

/// What cannot be read grants nothing.
fn parse(kind: Kind, entry: &Entry) -> Option<Object> {
    let parsed = Object::parse(kind, &entry.value);
    parsed.inspect_err(|error| tracing::warn!(key = %entry.key, %error, "grants nothing")).ok()
}

async fn follow_nodes(server: Weak<Inner>) {
    while let Some(inner) = server.upgrade() {
        let since = inner.store.revision();
        drop(inner);
        let Some(graph) = load_graph(&server, since).await else { continue };
        let Some(inner) = server.upgrade() else { return };
        inner.gate.change(|access| access.graph = graph);
        inner.gate.set_knows_nodes(true);
        let events = watch(&inner.store, &NODES, since);
        drop(inner);
        let Ok(mut events) = events else { continue };
        while let Some(Ok((source, event))) = events.next().await {
            let Some(inner) = server.upgrade() else { return };
            match source {
                Source::Pods => apply_pod(&inner.gate, &event),
                Source::Volumes | Source::Grants(_) => apply_volume(&inner.gate, &event),
            }
        }
    }
}

/// What nodes ran at that revision; none when that is no longer kept, or the server has ended.
async fn load_graph(server: &Weak<Inner>, at: Rev) -> Option<Graph> {
    let mut graph = Graph::default();
    for source in NODES {
        let mut after: Option<Key> = None;
        loop {
            let inner = server.upgrade()?;
            let page = inner.store.list(&source.prefix(), at, after.as_ref(), PODS_AT_ONCE).ok()?;
            drop(inner);
            for entry in &page.entries {
                match source {
                    Source::Pods if is_bound(&entry.value) => {
                        read(entry).inspect(|pod| graph.apply_pod(pod));
                    }
                    Source::Pods => {}
                    Source::Volumes | Source::Grants(_) => {
                        read(entry).inspect(|volume| graph.apply_volume(volume));
                    }
                }
            }
            if page.entries.len() < PODS_AT_ONCE {
                break;
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            tokio::task::yield_now().await;
        }
    }
    Some(graph)
}

fn read(entry: &Entry) -> Option<Value> {
    let parsed = serde_json::from_slice(&entry.value);
    parsed.inspect_err(|error| tracing::warn!(key = %entry.key, %error, "is no JSON")).ok()
}

fn apply_pod(gate: &Gate, event: &Event) {
    let key = &event.entry.key;
    let pod = match event.kind {
        EventKind::Put if is_bound(&event.entry.value) => {
            if event.prev.as_ref().is_some_and(|prev| refers_the_same(prev, &event.entry)) {
                return;
            }
            read(&event.entry)
        }
        // Most pods are written several times before they are bound.
        EventKind::Put if event.prev.as_ref().is_none_or(|prev| !is_bound(&prev.value)) => return,
        EventKind::Put | EventKind::Delete => None,
    };
    gate.change(|access| match &pod {
        Some(pod) => access.graph.apply_pod(pod),
        None => access.graph.remove_pod(key.namespace(), key.name()),
    });
}

fn apply_volume(gate: &Gate, event: &Event) {
    let volume = match event.kind {
        EventKind::Put => read(&event.entry),
        EventKind::Delete => None,
    };
    gate.change(|access| match &volume {
        Some(volume) => access.graph.apply_volume(volume),
        None => access.graph.remove_volume(event.entry.key.name()),
    });
}

#[derive(Deserialize)]
struct Bound {
    spec: Option<BoundSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BoundSpec {
    node_name: Option<String>,
}

fn is_bound(pod: &[u8]) -> bool {
    let node = serde_json::from_slice::<Bound>(pod).ok().and_then(|pod| pod.spec?.node_name);
    node.is_some_and(|node| !node.is_empty())
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
    #[serde(borrow)]
    spec: &'a RawValue,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    uid: Option<&'a RawValue>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

/// Whether a change of a pod can be no change of what it refers to: most are of its conditions. Resource
/// claims are the only references that are in the status.
fn refers_the_same(old: &Entry, new: &Entry) -> bool {
    const CLAIMS: &str = "esourceClaimStatus";
    let parts = |entry| serde_json::from_slice::<Parts<'_>>(entry).ok();
    let (Some(old), Some(new)) = (parts(&old.value), parts(&new.value)) else { return false };
    let text = |raw: Option<&RawValue>| raw.map(|raw| raw.get().to_owned());
    let identity = |parts: &Parts<'_>| {
        let identity = serde_json::from_str::<Identity<'_>>(parts.metadata.get()).ok()?;
        Some((text(identity.uid), text(identity.annotations)))
    };
    let claims =
        |parts: &Parts<'_>| parts.status.is_some_and(|status| status.get().contains(CLAIMS));
    old.spec.get() == new.spec.get()
        && identity(&old) == identity(&new)
        && !claims(&old)
        && !claims(&new)
}

/// Changes of several resources as they come. It ends in an error when the watcher falls behind.
fn watch(
    store: &Store,
    sources: &[Source],
    since: Rev,
) -> Result<impl Stream<Item = Result<(Source, Arc<Event>), Lagged>> + use<>, ApiError> {
    let mut streams = Vec::with_capacity(sources.len());
    for source in sources.iter().copied() {
        let watcher = store.watch(&source.prefix(), since).map_err(expired)?;
        let events = stream::try_unfold(watcher, move |mut watcher| async move {
            loop {
                if let WatchItem::Event(event) = watcher.next().await? {
                    return Ok(Some(((source, event), watcher)));
                }
            }
        });
        streams.push(events.boxed());
    }
    Ok(stream::select_all(streams))
}
