//! Namespaces that are being deleted: their content goes first, then the `kubernetes` finalizer.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Discovery,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
    core::discovery::{Scope, verbs},
};

use crate::{
    context::Context,
    error::{SyncError, is_conflict, is_not_found},
    key::Key,
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "namespace-controller";
/// How soon a namespace is looked at again whose content is not gone yet.
const RECHECK: Duration = Duration::from_secs(1);
/// The finalizer in `spec.finalizers`.
const FINALIZER: &str = "kubernetes";

/// The namespace controller.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.namespaces.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(namespace) = change.new.as_ref().filter(|new| new.metadata.deletion_timestamp.is_some()) {
                    queue.add(Key::of(&namespace.metadata));
                }
            }
        });
        Self { queue }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let context = &context;
        let sync = |key: Key| async move { sync(context, &key).await };
        worker::run(COMPONENT, context.config.concurrent_syncs, Arc::clone(&self.queue), sync).await;
    }
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(namespace) = context.namespaces.get(key) else { return Ok(None) };
    if namespace.metadata.deletion_timestamp.is_none() || !has_finalizer(&namespace) {
        return Ok(None);
    }
    if delete_content(&context.client, key).await? {
        return Ok(Some(RECHECK));
    }
    finalize(context, key).await
}

fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|all| all.iter().any(|name| name == FINALIZER))
}

/// Deletes what is in the namespace; says whether anything is left.
async fn delete_content(client: &Client, key: &Key) -> Result<bool, SyncError> {
    let discovery = Discovery::new(client.clone())
        .run()
        .await
        .map_err(|source| SyncError::Discovery(Box::new(source)))?;
    let mut left = false;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let deletable = [verbs::LIST, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb));
            if capabilities.scope != Scope::Namespaced || !deletable {
                continue;
            }
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.name, &resource);
            left |= delete_all(&api, key).await?;
        }
    }
    Ok(left)
}

async fn delete_all(api: &Api<DynamicObject>, key: &Key) -> Result<bool, SyncError> {
    let listed = match api.list_metadata(&ListParams::default()).await {
        Ok(listed) => listed,
        Err(error) if is_not_found(&error) => return Ok(false),
        Err(error) => return Err(SyncError::api("list the content of", "Namespace", key)(error)),
    };
    for object in &listed.items {
        if object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = object.metadata.name.as_deref().unwrap_or_default();
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) || is_conflict(&error) => {}
            Err(error) => return Err(SyncError::api("delete the content of", "Namespace", key)(error)),
        }
    }
    Ok(!listed.items.is_empty())
}

async fn finalize(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let current = api.get_opt(&key.name).await.map_err(SyncError::api("get", "Namespace", key))?;
    let Some(mut namespace) = current else { return Ok(None) };
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|name| name != FINALIZER);
    }
    match api.replace_subresource("finalize", &key.name, &PostParams::default(), &namespace).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("finalize", "Namespace", key)(error)),
    }
}
