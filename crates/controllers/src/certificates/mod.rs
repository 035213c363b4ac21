//! Certificate requests: those of kubelets for themselves are approved, approved ones of the
//! cluster's own signers are signed, and old ones go.

mod age;
mod approve;
mod request;
mod sign;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use toono_pki::ClusterCa;

use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    informer::Informer,
    key::Key,
    queue::WorkQueue,
    worker::{self, Again},
};
use request::SigningRequest;

const COMPONENT: &str = "certificate-controller";

/// Handles requests.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    requests: Informer<SigningRequest>,
    /// Signs; without it requests are approved and collected only.
    ca: Option<Arc<ClusterCa>>,
}

impl Controller {
    pub(crate) fn new(ca: Option<Arc<ClusterCa>>) -> Self {
        let queue = Arc::new(WorkQueue::new());
        let mut requests = Informer::<SigningRequest>::new(Vec::new());
        requests.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(request) = &change.new {
                    queue.add(Key::of(&request.metadata));
                }
            }
        });
        Self { queue, requests, ca }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let (this, shared) = (&self, &context);
        let sync = |key: Key| async move { this.sync(shared, &key).await };
        let work = async {
            this.requests.wait_synced().await;
            let workers = context.config.concurrent_syncs;
            worker::run(COMPONENT, workers, Arc::clone(&this.queue), sync).await;
        };
        futures::join!(this.requests.run(Api::all(context.client.clone())), work);
    }

    async fn sync(&self, context: &Context, key: &Key) -> Result<Again, SyncError> {
        let Some(request) = self.requests.get(key) else { return Ok(None) };
        let age = age::remaining(&request, Timestamp::now());
        if age == Some(Duration::ZERO) {
            return delete(context, &request, key).await;
        }
        if !request.is_decided() {
            approve::approve(context, &request, key).await?;
        } else if let Some(ca) = &self.ca {
            sign::sign(context, ca, &request, key).await?;
        }
        Ok(age)
    }
}

async fn delete(
    context: &Context,
    request: &SigningRequest,
    key: &Key,
) -> Result<Again, SyncError> {
    let api: Api<SigningRequest> = Api::all(context.client.clone());
    let only_this = Preconditions {
        uid: request.metadata.uid.clone(),
        resource_version: request.metadata.resource_version.clone(),
    };
    match api.delete(&key.name, &DeleteParams::default().preconditions(only_this)).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("delete", "CertificateSigningRequest", key)(error)),
    }
}
