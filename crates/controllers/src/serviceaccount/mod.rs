//! The service account `default` of every namespace: pods that name none run as it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    context::Context,
    error::{SyncError, is_already_exists, is_namespace_terminating, is_not_found},
    informer::Informer,
    key::Key,
    kinds::{self, kind},
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "service-account-controller";
/// The account that every namespace has.
const NAME: &str = "default";

/// A service account, of which only the existence matters here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct ServiceAccount {
    metadata: ObjectMeta,
}
kind!(ServiceAccount, NamespaceResourceScope, "", "v1", "ServiceAccount", "serviceaccounts");

/// Keeps the accounts. The queue holds names of namespaces.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    accounts: Informer<ServiceAccount>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.namespaces.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(namespace) = &change.new {
                    queue.add(Key::of(&namespace.metadata));
                }
            }
        });
        let mut accounts =
            Informer::<ServiceAccount>::new(Vec::new()).with_fields("metadata.name=default");
        accounts.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let (None, Some(old)) = (&change.new, &change.old) {
                    queue.add(Key::new("", old.metadata.namespace.as_deref().unwrap_or_default()));
                }
            }
        });
        Self { queue, accounts }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let (accounts, shared) = (&self.accounts, &context);
        let sync = |key: Key| async move { sync(shared, accounts, &key).await };
        let work = async {
            context.namespaces.wait_synced().await;
            accounts.wait_synced().await;
            worker::run(COMPONENT, context.config.concurrent_syncs, self.queue, sync).await;
        };
        futures::join!(accounts.run(Api::all(context.client.clone())), work);
    }
}

async fn sync(
    context: &Context,
    accounts: &Informer<ServiceAccount>,
    namespace: &Key,
) -> Result<Again, SyncError> {
    let active = context.namespaces.get(namespace).is_some_and(|found| found.is_active());
    let account = Key::new(&namespace.name, NAME);
    if !active || accounts.get(&account).is_some() {
        return Ok(None);
    }
    let wanted = json!({"metadata": {"name": NAME, "namespace": &*namespace.name}});
    let created =
        kinds::create::<ServiceAccount>(&context.client, Some(&namespace.name), wanted).await;
    match created {
        Ok(_) => Ok(None),
        Err(error)
            if is_already_exists(&error)
                || is_namespace_terminating(&error)
                || is_not_found(&error) =>
        {
            Ok(None)
        }
        Err(error) => Err(SyncError::api("create", "ServiceAccount", &account)(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::kinds::Namespace;

    #[test]
    fn a_namespace_that_is_being_deleted_gets_nothing() {
        let read = |value: serde_json::Value| serde_json::from_value::<Namespace>(value).unwrap();
        assert!(read(json!({"metadata": {}})).is_active());
        assert!(!read(json!({"metadata": {}, "status": {"phase": "Terminating"}})).is_active());
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert!(!read(deleted).is_active());
    }
}
