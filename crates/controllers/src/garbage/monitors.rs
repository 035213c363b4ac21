//! Watches on every kind that the API serves.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Discovery,
    core::discovery::{ApiResource, Scope, verbs},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{task::JoinSet, time::Instant};
use toono_api::Uid;
use tracing::{debug, warn};

use super::{
    Collector,
    graph::{KindId, Vertex},
    member::Member,
};
use crate::error::chain;

/// How often the API is asked for new kinds.
const REDISCOVERY: Duration = Duration::from_secs(30);
/// Pause after a failed discovery.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);
/// A kind that cannot be listed for so long no longer holds up the others.
const MAX_SYNC: Duration = Duration::from_secs(30);
/// How soon a task is tried again that has to know all dependents.
pub(super) const NOT_SYNCED_RETRY: Duration = Duration::from_millis(200);
/// Events are never owners and come in numbers.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// Leases that nodes' sessions keep are made when they are read, and go with their Nodes: there is nothing to
/// collect, and there are as many of them as Nodes.
const MADE_ON_READ: (&str, &str, &str) =
    ("coordination.k8s.io", "leases", "toono.io/lease!=session");

struct Kind {
    resource: ApiResource,
    scope: Scope,
    synced: bool,
    since: Instant,
}

/// The kinds that are watched.
#[derive(Default)]
pub(super) struct Kinds {
    kinds: Vec<Kind>,
    by_name: HashMap<(String, String), usize>,
}

impl Kinds {
    pub(super) fn resource(&self, id: KindId) -> Option<(ApiResource, Scope)> {
        self.kinds.get(id.0 as usize).map(|kind| (kind.resource.clone(), kind.scope.clone()))
    }

    /// The kind of this name in a group, whatever the version.
    pub(super) fn named(&self, api_version: &str, kind: &str) -> Option<(ApiResource, Scope)> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let index = *self.by_name.get(&(group.to_owned(), kind.to_owned()))?;
        self.kinds.get(index).map(|kind| (kind.resource.clone(), kind.scope.clone()))
    }

    /// Whether all dependents are known.
    pub(super) fn synced(&self) -> bool {
        !self.kinds.is_empty()
            && self.kinds.iter().all(|kind| kind.synced || kind.since.elapsed() > MAX_SYNC)
    }

    fn add(&mut self, resource: ApiResource, scope: Scope) -> Option<KindId> {
        let name = (resource.group.clone(), resource.kind.clone());
        if self.by_name.contains_key(&name) {
            return None;
        }
        self.by_name.insert(name, self.kinds.len());
        self.kinds.push(Kind { resource, scope, synced: false, since: Instant::now() });
        u32::try_from(self.kinds.len() - 1).ok().map(KindId)
    }

    fn set_synced(&mut self, id: KindId) {
        if let Some(kind) = self.kinds.get_mut(id.0 as usize) {
            kind.synced = true;
        }
    }
}

/// Discovers and watches for ever.
pub(super) async fn run(collector: &Arc<Collector>) {
    let mut watches = JoinSet::new();
    loop {
        let pause = match discover(collector).await {
            Ok(new) => {
                for id in new {
                    let collector = Arc::clone(collector);
                    watches.spawn(async move { watch(&collector, id).await });
                }
                REDISCOVERY
            }
            Err(error) => {
                warn!(error = chain(&error), "discovery failed");
                DISCOVERY_RETRY.mul_f64(1.0 + fastrand::f64())
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn discover(collector: &Collector) -> Result<Vec<KindId>, kube::Error> {
    let discovery = Discovery::new(collector.context.client.clone()).run().await?;
    let mut new = Vec::new();
    let mut kinds = collector.kinds();
    for group in discovery.groups() {
        // Kinds of a group may be served in other versions than the one it prefers.
        for (resource, capabilities) in group.resources_by_stability() {
            let ignored = IGNORED.contains(&(resource.group.as_str(), resource.plural.as_str()));
            let collectable = [verbs::LIST, verbs::WATCH, verbs::DELETE]
                .iter()
                .all(|verb| capabilities.supports_operation(verb));
            if collectable && !ignored {
                collector.context.served.add(resource.clone());
                new.extend(kinds.add(resource, capabilities.scope));
            }
        }
    }
    Ok(new)
}

async fn watch(collector: &Collector, id: KindId) {
    let Some((resource, _)) = collector.kinds().resource(id) else { return };
    let api: Api<Member> = Api::all_with(collector.context.client.clone(), &resource);
    let mut config = watcher::Config::default().any_semantic();
    let (group, plural, selector) = MADE_ON_READ;
    if (resource.group.as_str(), resource.plural.as_str()) == (group, plural) {
        config = config.labels(selector);
    }
    let mut stream = pin!(watcher::watcher(api, config).default_backoff());
    let mut listed: HashSet<Uid> = HashSet::new();
    while let Some(event) = stream.next().await {
        let tasks = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                let Some(uid) = object.metadata.uid.as_deref() else { continue };
                listed.insert(uid.into());
                collector.graph().put(uid.into(), Vertex::new(id, &object.metadata))
            }
            Ok(watcher::Event::InitDone) => {
                let tasks = collector.graph().retain(id, &std::mem::take(&mut listed));
                collector.kinds().set_synced(id);
                tasks
            }
            Ok(watcher::Event::Apply(object)) => {
                let Some(uid) = object.metadata.uid.as_deref() else { continue };
                collector.graph().put(uid.into(), Vertex::new(id, &object.metadata))
            }
            Ok(watcher::Event::Delete(object)) => {
                let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
                collector.context.served.removed(&resource, namespace);
                collector.graph().remove(&object.metadata.uid.as_deref().unwrap_or_default().into())
            }
            Err(error) => {
                debug!(kind = resource.kind, error = chain(&error), "watch restarts");
                continue;
            }
        };
        collector.enqueue(tasks);
    }
}
