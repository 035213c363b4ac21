//! `Endpoints` of services with a selector.

use std::{collections::BTreeMap, sync::Arc};

use kube::{Api, api::DeleteParams};
use serde_json::json;

use super::{
    kinds::{Endpoints, HEADLESS_LABEL, labels},
    members, subsets,
};
use crate::{
    context::Context,
    error::{SyncError, is_namespace_terminating, is_not_found},
    informer::{Index, Informer},
    key::Key,
    kinds::{self, Service},
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "endpoint-controller";
/// Says that addresses were left out.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";
/// The label that says who keeps the object.
const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
/// On objects that are no endpoints at all but a lock of old programs.
pub(super) const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// Keeps the objects. The queue holds services.
pub(super) struct Controller {
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(super) fn new(context: &mut Context, endpoints: &mut Informer<Endpoints>) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.services.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(service) = change.latest() {
                    queue.add(Key::of(&service.metadata));
                }
            }
        });
        context.pods.on_change({
            let (queue, services) = (Arc::clone(&queue), context.services.reader());
            move |change| members::enqueue_services(change, &services, &queue)
        });
        endpoints.on_change({
            let (queue, services) = (Arc::clone(&queue), context.services.reader());
            move |change| {
                let Some(changed) = change.latest() else { return };
                let key = Key::of(&changed.metadata);
                if services.get(&key).is_some() {
                    queue.add(key);
                }
            }
        });
        Self { queue }
    }

    pub(super) async fn run(&self, context: &Context, endpoints: &Informer<Endpoints>) {
        context.services.wait_synced().await;
        context.pods.wait_synced().await;
        endpoints.wait_synced().await;
        // Those whose service went while nobody watched.
        for left in endpoints.all() {
            let annotations = left.metadata.annotations.as_ref();
            if !annotations.is_some_and(|all| all.contains_key(LEADER_ANNOTATION)) {
                self.queue.add(Key::of(&left.metadata));
            }
        }
        let sync = |key: Key| async move { sync(context, endpoints, &key).await };
        let workers = context.config.concurrent_syncs;
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }
}

async fn sync(
    context: &Context,
    cache: &Informer<Endpoints>,
    key: &Key,
) -> Result<Again, SyncError> {
    let Some(service) = context.services.get(key) else {
        return delete(context, cache, key).await;
    };
    if service.spec.selector.is_empty() || members::is_external_name(&service) {
        return Ok(None);
    }
    let mut pods = context.pods.by(Index::Namespace, &key.namespace);
    pods.retain(|pod| members::selects(&service, pod) && members::is_candidate(pod));
    let (subsets, truncated) = subsets::subsets(&service, pods.iter().map(|pod| &**pod));
    let found = cache.get(key);
    let mut wanted = found.as_deref().cloned().unwrap_or_default();
    wanted.metadata.name = Some(key.name.to_string());
    wanted.metadata.namespace = Some(key.namespace.to_string());
    wanted.metadata.labels = Some(labels_of(&service));
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), TRUNCATED.to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        wanted.metadata.annotations = None;
    }
    wanted.subsets = subsets;
    if found.as_deref() == Some(&wanted) {
        return Ok(None);
    }
    let written = match found {
        Some(_) => kinds::replace(&context.client, &wanted).await.map(drop),
        None => {
            let wanted = serde_json::to_value(&wanted).unwrap_or_else(|_| json!({}));
            kinds::create::<Endpoints>(&context.client, Some(&key.namespace), wanted)
                .await
                .map(drop)
        }
    };
    match written {
        Ok(()) => Ok(None),
        Err(error) if is_namespace_terminating(&error) => Ok(None),
        Err(error) => Err(SyncError::api("write", "Endpoints", key)(error)),
    }
}

async fn delete(
    context: &Context,
    cache: &Informer<Endpoints>,
    key: &Key,
) -> Result<Again, SyncError> {
    if cache.get(key).is_none() {
        return Ok(None);
    }
    let api: Api<Endpoints> = context.api(&key.namespace);
    match api.delete(&key.name, &DeleteParams::background()).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("delete", "Endpoints", key)(error)),
    }
}

fn labels_of(service: &Service) -> BTreeMap<String, String> {
    let mut labels = labels(&service.metadata);
    labels.remove(HEADLESS_LABEL);
    if members::is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY_LABEL.to_owned(), COMPONENT.to_owned());
    labels
}
