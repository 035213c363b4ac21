//! Pods of nodes that no longer exist: nobody is left to end them.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    context::Context,
    error::{SyncError, chain, is_conflict, is_not_found},
    key::Key,
    kinds::{
        node::WatchedNode,
        pod::{Pod, WatchedPod},
    },
    patch,
    pods::{is_finished, node_name, uid},
};

/// How often pods are compared with nodes.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be missing: it may be joining again under its name.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Compares for ever.
pub(super) async fn run(context: &Context) {
    context.nodes.wait_synced().await;
    context.pods.wait_synced().await;
    let mut missing: HashMap<String, Instant> = HashMap::new();
    loop {
        if let Err(error) = collect(context, &mut missing).await {
            warn!(error = chain(&error), "pods of missing nodes are collected later");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn collect(
    context: &Context,
    missing: &mut HashMap<String, Instant>,
) -> Result<(), SyncError> {
    let exists = |name: &str| context.nodes.get(&Key::new("", name)).is_some();
    let stranded: Vec<_> = context
        .pods
        .all()
        .into_iter()
        .filter(|pod| node_name(pod).is_some_and(|node| !exists(node)))
        .collect();
    let names: HashSet<_> =
        stranded.iter().filter_map(|pod| node_name(pod)).map(str::to_owned).collect();
    missing.retain(|name, _| names.contains(name));
    let now = Instant::now();
    let mut gone = HashSet::new();
    for name in names {
        let since = *missing.entry(name.clone()).or_insert(now);
        if now.duration_since(since) >= QUARANTINE && is_gone(context, &name).await? {
            gone.insert(name);
        }
    }
    for pod in stranded {
        if node_name(&pod).is_some_and(|node| gone.contains(node)) {
            end(context, &pod).await?;
        }
    }
    Ok(())
}

async fn is_gone(context: &Context, node: &str) -> Result<bool, SyncError> {
    let api: Api<WatchedNode> = Api::all(context.client.clone());
    let found =
        api.get_opt(node).await.map_err(SyncError::api("get", "Node", &Key::new("", node)))?;
    Ok(found.is_none())
}

async fn end(context: &Context, pod: &Pod) -> Result<(), SyncError> {
    let key = Key::of(&pod.metadata);
    let api: Api<WatchedPod> = context.api(&key.namespace);
    if !is_finished(pod) {
        // Its owner must see a failure, not a pod that vanished.
        let change = patch::on_top_of(pod, json!({"status": {"phase": "Failed"}}));
        if let Err(error) = patch::merge_status(&api, &key.name, &change).await
            && !is_not_found(&error)
        {
            return Err(SyncError::api("update the status of", "Pod", &key)(error));
        }
    }
    let only_this =
        Preconditions { uid: Some(uid(&pod.metadata).to_owned()), resource_version: None };
    let at_once = DeleteParams::default().grace_period(0).preconditions(only_this);
    match api.delete(&key.name, &at_once).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(SyncError::api("delete", "Pod", &key)(error)),
    }
}
