//! Removing a namespace: everything in it is deleted, whatever kinds the API serves at that moment;
//! what it waits for is told in the namespace's conditions; then it is let go.
//!
//! The API marks a namespace as terminating and keeps it while `spec.finalizers` has `kubernetes`;
//! taking that away is the last step here.

mod conditions;
mod content;
mod discovery;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api,
    api::{DynamicObject, PostParams},
    core::ApiResource,
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    key::Key,
    kinds::Namespace,
    patch,
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "namespace-controller";
/// What keeps a namespace until its contents are gone.
const FINALIZER: &str = "kubernetes";
const TERMINATING: &str = "Terminating";
/// Shortest pause between two looks at what is left.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: what is stuck on a finalizer may be for days.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The pause is this part of the time that the deletion took so far.
const PAUSE_PART: u32 = 4;

/// Removes namespaces.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.namespaces.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(namespace) = &change.new
                    && namespace.metadata.deletion_timestamp.is_some()
                {
                    queue.add(Key::of(&namespace.metadata));
                }
            }
        });
        Self { queue }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let shared = &context;
        let sync = |key: Key| async move { sync(shared, &key).await };
        worker::run(COMPONENT, context.config.concurrent_syncs, self.queue, sync).await;
    }
}

async fn sync(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    // Not from the cache: what is deleted here does not come back.
    let found = api.get_opt(&key.name).await.map_err(SyncError::api("get", "Namespace", key))?;
    let Some(namespace) = found else { return Ok(None) };
    let Some(deleted) = namespace.metadata.deletion_timestamp.as_ref().map(|time| time.0) else {
        return Ok(None);
    };
    if !namespace.spec.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(None);
    }
    let left = content::delete_all(&context.client, &key.name, deleted).await;
    write_status(&api, &namespace, key, &left).await?;
    if left.is_empty() {
        finalize(context, key).await?;
        return Ok(None);
    }
    if left.has_failures() {
        return Err(SyncError::Several(left.failures()));
    }
    Ok(Some(pause(deleted, Timestamp::now())))
}

/// The longer it takes, the more seldom it is looked at.
fn pause(deleted: Timestamp, now: Timestamp) -> Duration {
    let since = Duration::try_from(now.duration_since(deleted)).unwrap_or_default();
    (since / PAUSE_PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

async fn write_status(
    api: &Api<Namespace>,
    namespace: &Namespace,
    key: &Key,
    left: &content::Left,
) -> Result<(), SyncError> {
    let mut conditions = namespace.status.conditions.clone();
    let changed = conditions::update(&mut conditions, left);
    if !changed && namespace.status.phase.as_deref() == Some(TERMINATING) {
        return Ok(());
    }
    let change = json!({"status": {"phase": TERMINATING, "conditions": conditions}});
    match patch::merge_status(api, &key.name, &change).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(SyncError::api("update the status of", "Namespace", key)(error)),
    }
}

/// Lets the namespace go.
async fn finalize(context: &Context, key: &Key) -> Result<(), SyncError> {
    let api: Api<DynamicObject> =
        Api::all_with(context.client.clone(), &ApiResource::erase::<Namespace>(&()));
    let found = api.get_opt(&key.name).await.map_err(SyncError::api("get", "Namespace", key))?;
    let Some(mut namespace) = found else { return Ok(()) };
    let finalizers = namespace.data.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut);
    let Some(finalizers) = finalizers else { return Ok(()) };
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    let params = PostParams::default();
    match api.replace_subresource("finalize", &key.name, &params, &namespace).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(SyncError::api("finalize", "Namespace", key)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_looked_at_seldom() {
        let deleted: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| pause(deleted, deleted + Duration::from_secs(seconds));
        assert_eq!(after(0), SHORTEST_PAUSE);
        assert_eq!(after(30), Duration::from_millis(7500));
        assert_eq!(after(86_400), LONGEST_PAUSE);
    }
}
