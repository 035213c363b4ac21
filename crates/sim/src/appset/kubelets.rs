//! Says for all nodes that their pods run and are ready, and takes away those that shall end.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    runtime::watcher,
};
use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};

/// The task.
pub(super) struct Kubelets {
    last: Arc<Mutex<Option<Instant>>>,
    task: JoinHandle<()>,
}

impl Kubelets {
    /// When the last pod so far was said to be ready.
    pub(super) fn last(&self) -> Option<Instant> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) {
        self.task.abort();
    }
}

pub(super) fn start(client: Client) -> Kubelets {
    let last = Arc::new(Mutex::new(None));
    let told = Arc::clone(&last);
    let task = tokio::spawn(async move {
        let config = watcher::Config::default();
        let mut stream = pin!(watcher::watcher(Api::<Pod>::all(client.clone()), config));
        while let Some(event) = stream.next().await {
            if let Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) = event
                && look_at(&client, &pod).await
            {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
        }
    });
    Kubelets { last, task }
}

/// Whether the pod became ready by that.
async fn look_at(client: &Client, pod: &Pod) -> bool {
    let (Some(name), Some(namespace)) = (&pod.metadata.name, &pod.metadata.namespace) else {
        return false;
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if !bound {
        return false;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        // It may be gone by now.
        let _ = api.delete(name, &DeleteParams::default().grace_period(0)).await;
        return false;
    }
    if !matches!(phase, None | Some("Pending")) {
        return false;
    }
    let now = Timestamp::now();
    let ready = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": now});
    let status = json!({"status": {"phase": "Running",
        "conditions": [ready("PodScheduled"), ready("ContainersReady"), ready("Ready")]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.is_ok()
}
