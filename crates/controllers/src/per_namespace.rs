//! One object of a fixed name in every namespace, such as its default service account: made when the
//! namespace is there, and set right whenever somebody changes or removes it. What it should be is said
//! by whoever has it.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, serde::de::DeserializeOwned};
use kube::{Api, Resource};
use serde_json::Value;

use crate::{
    context::Context,
    error::{SyncError, is_already_exists, is_namespace_terminating, is_not_found},
    informer::Informer,
    key::Key,
    kinds, patch,
    queue::WorkQueue,
    worker::{self, Again},
};

/// What has to be done for the object of one namespace.
pub(crate) enum Step {
    /// It is as it should be.
    Nothing,
    /// Create it; its metadata get name and namespace.
    Create(Value),
    /// Change it by this merge patch.
    Change(Value),
}

/// Keeps the objects. The queue holds names of namespaces.
pub(crate) struct PerNamespace<K> {
    component: &'static str,
    kind: &'static str,
    name: &'static str,
    queue: Arc<WorkQueue<Key>>,
    found: Informer<K>,
}

impl<K> PerNamespace<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    /// Objects of a kind and a name, which this field selector selects, kept in the name of a component.
    pub(crate) fn new(
        context: &mut Context,
        component: &'static str,
        (kind, name, selector): (&'static str, &'static str, &'static str),
    ) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.namespaces.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(namespace) = &change.new {
                    queue.add(Key::of(&namespace.metadata));
                }
            }
        });
        let mut found = Informer::<K>::new(Vec::new()).with_fields(selector);
        found.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                let Some(object) = change.latest() else { return };
                queue.add(Key::new("", object.meta().namespace.as_deref().unwrap_or_default()));
            }
        });
        Self { component, kind, name, queue, found }
    }

    /// Keeps them as `next` says of the one that is there, for ever.
    pub(crate) async fn run(self, context: Arc<Context>, next: impl Fn(Option<&K>) -> Step) {
        let (this, shared, next) = (&self, &context, &next);
        let sync = |key: Key| async move { this.sync(shared, &key, next).await };
        let (queue, at_once) = (Arc::clone(&self.queue), context.config.concurrent_syncs);
        let work = async {
            context.namespaces.wait_synced().await;
            self.found.wait_synced().await;
            worker::run(self.component, at_once, queue, sync).await;
        };
        futures::join!(self.found.run(Api::all(context.client.clone())), work);
    }

    async fn sync(
        &self,
        context: &Context,
        namespace: &Key,
        next: impl Fn(Option<&K>) -> Step,
    ) -> Result<Again, SyncError> {
        if !context.namespaces.get(namespace).is_some_and(|found| found.is_active()) {
            return Ok(None);
        }
        let key = Key::new(&namespace.name, self.name);
        let present = self.found.get(&key);
        let written = match next(present.as_deref()) {
            Step::Nothing => return Ok(None),
            Step::Create(mut object) => {
                if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.insert("name".to_owned(), self.name.into());
                    metadata.insert("namespace".to_owned(), (*namespace.name).into());
                }
                kinds::create::<K>(&context.client, Some(&namespace.name), object).await
            }
            Step::Change(change) => {
                let change = match &present {
                    Some(present) => patch::on_top_of(&**present, change),
                    None => change,
                };
                patch::merge(&context.api::<K>(&namespace.name), self.name, &change).await
            }
        };
        match written {
            Ok(_) => Ok(None),
            Err(error)
                if is_already_exists(&error)
                    || is_namespace_terminating(&error)
                    || is_not_found(&error) =>
            {
                Ok(None)
            }
            Err(error) => Err(SyncError::api("write", self.kind, &key)(error)),
        }
    }
}
