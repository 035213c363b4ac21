//! Pods that a job's finalizer still holds although no job will count them any more.

use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::facts::{FINALIZER, finished, is_tracked};
use crate::{
    context::Context,
    error::{SyncError, is_conflict, is_not_found},
    key::Key,
    kinds::pod::{Pod, WatchedPod},
    pods::{controller_of, uid},
    worker::Again,
};

/// Lets a pod go if its job is over or no more. The cache of jobs may be old, so the API is asked.
pub(super) async fn release(context: &Context, key: &Key) -> Result<Again, SyncError> {
    let Some(pod) = context.pods.get(key).filter(|pod| is_tracked(pod)) else { return Ok(None) };
    let owner = controller_of(&pod.metadata).filter(|reference| reference.kind == "Job");
    if let Some(owner) = owner {
        let jobs: Api<Job> = context.api(&key.namespace);
        let job = jobs.get_opt(&owner.name).await.map_err(SyncError::api("get", "Job", key))?;
        let current = job.filter(|job| uid(&job.metadata) == owner.uid);
        if current.is_some_and(|job| finished(&job).is_none()) {
            return Ok(None);
        }
    }
    remove_finalizer(context, &pod).await.map(|()| None)
}

/// Removes the finalizer from this very pod; it is no error if the pod is gone.
pub(super) async fn remove_finalizer(context: &Context, pod: &Pod) -> Result<(), SyncError> {
    if !is_tracked(pod) {
        return Ok(());
    }
    let key = Key::of(&pod.metadata);
    let change = json!({"metadata": {
        "uid": uid(&pod.metadata),
        "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    }});
    let api: Api<WatchedPod> = context.api(&key.namespace);
    match api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(change)).await {
        Ok(_) => Ok(()),
        // Another pod has the name now.
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(SyncError::api("remove the finalizer of", "pod", &key)(error)),
    }
}
