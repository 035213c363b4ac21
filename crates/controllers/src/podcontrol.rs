//! Making and deleting pods for a controller, many at a time, with its expectations and events.

use std::{future::Future, sync::Arc};

use futures::{StreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod as WholePod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams, Preconditions},
};

use crate::{
    claim::controller_reference,
    context::Context,
    error::{SyncError, is_not_found},
    expectations::Expectations,
    key::Key,
    kinds::pod::{Pod, WatchedPod},
    names,
    pods::uid,
    recorder::Severity,
};

/// Pods that one sync creates or deletes at most, as in Kubernetes: the rest follows in the next.
pub(crate) const MAX_PODS_AT_ONCE: usize = 500;
/// How much larger each batch is than the one before. Kubernetes doubles; a batch costs a commit's
/// latency here, and at four the twentieth pod waits for three of them instead of five.
const BATCH_GROWTH: usize = 4;
/// Requests of one batch under way at the same time.
const MAX_IN_FLIGHT: usize = 64;

/// A pod made from a template, owned by `owner`.
pub(crate) fn pod_from_template<O: Resource<DynamicType = ()>>(
    owner: &O,
    template: &PodTemplateSpec,
) -> WholePod {
    let prefix = format!("{}-", owner.meta().name.as_deref().unwrap_or_default());
    let metadata = template.metadata.clone().unwrap_or_default();
    WholePod {
        metadata: ObjectMeta {
            name: Some(names::generate(&prefix)),
            generate_name: Some(prefix),
            namespace: owner.meta().namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates and deletes pods in the name of one owner.
pub(crate) struct PodControl<'a, O> {
    pub(crate) context: &'a Context,
    pub(crate) expectations: &'a Expectations,
    pub(crate) component: &'static str,
    pub(crate) owner: &'a O,
    pub(crate) key: &'a Key,
}

impl<O> PodControl<'_, O>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    /// Creates `pods` in growing batches, so that a template which the API refuses costs one
    /// refusal and not hundreds.
    pub(crate) async fn create(&self, pods: Vec<WholePod>) -> Result<(), SyncError> {
        let count = pods.len().min(MAX_PODS_AT_ONCE);
        self.expectations.expect_creations(self.key, count);
        let pods: Vec<_> = pods.into_iter().take(count).map(Arc::new).collect();
        let (done, result) = slow_start(&pods, |pod| self.create_one(pod)).await;
        for _ in done..count {
            self.expectations.creation_observed(self.key);
        }
        result
    }

    async fn create_one(&self, pod: Arc<WholePod>) -> Result<(), SyncError> {
        let api: Api<WholePod> = self.context.api(&self.key.namespace);
        match api.create(&PostParams::default(), &pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.metadata.name.unwrap_or_default());
                self.tell(Severity::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.creation_observed(self.key);
                if !crate::error::is_namespace_terminating(&error) {
                    self.tell(
                        Severity::Warning,
                        "FailedCreate",
                        format!("Error creating: {error}"),
                    );
                }
                Err(SyncError::api("create a pod of", O::kind_name(), self.key)(error))
            }
        }
    }

    /// Deletes `pods`.
    pub(crate) async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), SyncError> {
        let pods: Vec<_> = pods.iter().take(MAX_PODS_AT_ONCE).cloned().collect();
        self.expectations.expect_deletions(self.key, pods.iter().map(|pod| Key::of(&pod.metadata)));
        let deletions = pods.into_iter().map(|pod| self.delete_one(pod));
        let outcomes: Vec<_> =
            stream::iter(deletions).buffer_unordered(MAX_IN_FLIGHT).collect().await;
        outcomes.into_iter().collect()
    }

    async fn delete_one(&self, pod: Arc<Pod>) -> Result<(), SyncError> {
        let key = Key::of(&pod.metadata);
        let api: Api<WatchedPod> = self.context.api(&key.namespace);
        let only_this =
            Preconditions { uid: Some(uid(&pod.metadata).to_owned()), resource_version: None };
        match api.delete(&key.name, &DeleteParams::default().preconditions(only_this)).await {
            Ok(_) => {
                self.tell(
                    Severity::Normal,
                    "SuccessfulDelete",
                    format!("Deleted pod: {}", key.name),
                );
                Ok(())
            }
            Err(error) => {
                self.expectations.deletion_observed(self.key, &key);
                if is_not_found(&error) {
                    return Ok(());
                }
                self.tell(Severity::Warning, "FailedDelete", format!("Error deleting: {error}"));
                Err(SyncError::api("delete", "pod", &key)(error))
            }
        }
    }

    fn tell(&self, severity: Severity, reason: &'static str, message: String) {
        self.context.recorder.record(self.component, self.owner, severity, reason, message);
    }
}

/// A kind's name for errors.
trait KindName {
    fn kind_name() -> &'static str;
}

impl<O: Resource<DynamicType = ()>> KindName for O {
    fn kind_name() -> &'static str {
        match O::kind(&()) {
            std::borrow::Cow::Borrowed(name) => name,
            std::borrow::Cow::Owned(_) => "object",
        }
    }
}

/// Runs `action` on all items in batches of 1, 4, 16, …; the first batch with a failure is the
/// last. Returns how many were tried.
pub(crate) async fn slow_start<T: Clone, F>(
    items: &[T],
    action: impl Fn(T) -> F,
) -> (usize, Result<(), SyncError>)
where
    F: Future<Output = Result<(), SyncError>>,
{
    let mut tried = 0;
    let mut batch = 1;
    while tried < items.len() {
        let now: Vec<_> = items.iter().skip(tried).take(batch).cloned().collect();
        tried += now.len();
        let outcomes: Vec<_> = stream::iter(now.into_iter().map(&action))
            .buffer_unordered(MAX_IN_FLIGHT)
            .collect()
            .await;
        if let Some(failure) = outcomes.into_iter().find_map(Result::err) {
            return (tried, Err(failure));
        }
        batch *= BATCH_GROWTH;
    }
    (tried, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn batches_grow_and_stop_after_a_failure() {
        for (fails_at, tried) in [(usize::MAX, 30), (0, 1), (1, 5), (4, 5), (5, 21), (21, 30)] {
            let calls = AtomicUsize::new(0);
            let (done, result) = slow_start(&[(); 30], |()| async {
                if calls.fetch_add(1, Ordering::Relaxed) == fails_at {
                    return Err(SyncError::Stale { key: Key::new("ns", "pod") });
                }
                Ok(())
            })
            .await;
            assert_eq!((done, calls.into_inner()), (tried, tried));
            assert_eq!(result.is_ok(), fails_at == usize::MAX);
        }
    }
}
