//! Writing a plan of slices, and not planning again before the cache shows what was created.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::{Api, api::DeleteParams};
use serde_json::json;
use tokio::time::Instant;

use super::{
    kinds::{EndpointSlice, MANAGED_BY_LABEL, SERVICE_NAME_LABEL},
    plan::Plan,
};
use crate::{
    context::Context,
    error::{SyncError, is_namespace_terminating, is_not_found},
    informer::{Change, Index, Informer},
    key::Key,
    kinds,
    queue::WorkQueue,
};

/// After this a created slice that the cache does not show was deleted by somebody.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// The service that a slice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

/// Whether this controller keeps a slice.
pub(super) fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|by| by == manager)
}

/// Adds the service of a slice of `manager` that changed.
pub(super) fn enqueue_owner(change: &Change<EndpointSlice>, manager: &str, queue: &WorkQueue<Key>) {
    for slice in [&change.old, &change.new].into_iter().flatten() {
        if is_managed_by(slice, manager)
            && let Some(service) = service_of(slice)
        {
            queue.add(service);
        }
    }
}

/// The slices of a service that a controller keeps.
pub(super) fn slices_of(
    cache: &Informer<EndpointSlice>,
    service: &Key,
    manager: &str,
) -> Vec<Arc<EndpointSlice>> {
    let mut slices = cache.by(Index::Service, &service.to_string());
    slices.retain(|slice| is_managed_by(slice, manager));
    slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    slices
}

/// Slices that were created and that the cache does not show yet.
#[derive(Default)]
struct Unseen {
    slices: HashSet<Key>,
    since: Option<Instant>,
}

/// Writes plans, and knows what the cache does not show yet, by service.
#[derive(Default)]
pub(super) struct Writer {
    unseen: Mutex<HashMap<Key, Unseen>>,
}

impl Writer {
    fn unseen(&self) -> MutexGuard<'_, HashMap<Key, Unseen>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the cache shows all that was created for a service. Changes and deletions need no
    /// such care: they name the version that they are about.
    pub(super) fn is_fresh(&self, cache: &Informer<EndpointSlice>, service: &Key) -> bool {
        let mut all = self.unseen();
        let Some(unseen) = all.get_mut(service) else { return true };
        unseen.slices.retain(|slice| cache.get(slice).is_none());
        let given_up = unseen.since.is_none_or(|since| since.elapsed() > FORGOTTEN_AFTER);
        let fresh = unseen.slices.is_empty() || given_up;
        if fresh {
            all.remove(service);
        }
        fresh
    }

    /// Writes a plan. `may_create` is false when the owner is going.
    pub(super) async fn write(
        &self,
        context: &Context,
        service: &Key,
        plan: Plan,
        may_create: bool,
    ) -> Result<(), SyncError> {
        for slice in plan.create.into_iter().filter(|_| may_create) {
            let wanted = serde_json::to_value(&slice).unwrap_or_else(|_| json!({}));
            let namespace = Some(&*service.namespace);
            match kinds::create::<EndpointSlice>(&context.client, namespace, wanted).await {
                Ok(created) => {
                    let mut all = self.unseen();
                    let unseen = all.entry(service.clone()).or_default();
                    unseen.slices.insert(Key::of(&created.metadata));
                    unseen.since = Some(Instant::now());
                }
                Err(error) if is_namespace_terminating(&error) => return Ok(()),
                Err(error) => {
                    return Err(SyncError::api("create", "EndpointSlice", service)(error));
                }
            }
        }
        for slice in plan.update {
            let key = Key::of(&slice.metadata);
            kinds::replace(&context.client, &slice).await.map_err(SyncError::api(
                "update",
                "EndpointSlice",
                &key,
            ))?;
        }
        let api: Api<EndpointSlice> = context.api(&service.namespace);
        for slice in plan.delete {
            let key = Key::of(&slice.metadata);
            match api.delete(&key.name, &DeleteParams::background()).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(SyncError::api("delete", "EndpointSlice", &key)(error)),
            }
        }
        Ok(())
    }
}
