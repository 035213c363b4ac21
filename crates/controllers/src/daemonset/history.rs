//! The revisions of a daemon set's template, kept as ControllerRevisions for `kubectl rollout`.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::Pod,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{
    api::{DeleteParams, PostParams},
    core::Selector,
};
use serde_json::{Value, json};

use super::HASH_LABEL;
use crate::{
    claim::{self, controller_reference},
    context::Context,
    error::{SyncError, is_already_exists, is_not_found},
    hash::template_hash,
    key::Key,
    patch,
};

/// Revisions kept when the set names no limit: Kubernetes' default.
const DEFAULT_HISTORY: usize = 10;

/// Brings the history up to date; answers with the hash of the present template.
pub(super) async fn sync(
    context: &Context,
    set: &DaemonSet,
    selector: &Selector,
    pods: &[Arc<Pod>],
) -> Result<String, SyncError> {
    let mut revisions = claim::claim(context, set, selector, &context.revisions).await?;
    revisions.sort_by_key(|revision| revision.revision);
    let newest = revisions.last().map_or(0, |revision| revision.revision);
    let data = data_of(set);
    let current = revisions
        .iter()
        .rev()
        .find(|known| known.data.as_ref().is_some_and(|known| known.0 == data));
    let hash = match current {
        Some(current) => {
            let hash = hash_of(current).to_owned();
            if current.revision < newest {
                renumber(context, current, newest + 1).await?;
            }
            hash
        }
        None => create(context, set, data, newest + 1).await?,
    };
    prune(context, set, &revisions, &hash, pods).await?;
    Ok(hash)
}

/// What a revision keeps: a patch that puts the template back.
fn data_of(set: &DaemonSet) -> Value {
    let template = set.spec.as_ref().map(|spec| &spec.template);
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map_or("", String::as_str)
}

async fn renumber(
    context: &Context,
    revision: &ControllerRevision,
    number: i64,
) -> Result<(), SyncError> {
    let key = Key::of(&revision.metadata);
    let change = patch::on_top_of(revision, json!({"revision": number}));
    patch::merge(&context.api::<ControllerRevision>(&key.namespace), &key.name, &change)
        .await
        .map(drop)
        .map_err(SyncError::api("renumber", "ControllerRevision", &key))
}

async fn create(
    context: &Context,
    set: &DaemonSet,
    data: Value,
    number: i64,
) -> Result<String, SyncError> {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&template, collisions);
    let key = Key::of(&set.metadata);
    let name = format!("{}-{hash}", key.name);
    let mut labels = template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let annotations = set.metadata.annotations.clone().map(|mut annotations| {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations
    });
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(key.namespace.to_string()),
            labels: Some(labels),
            annotations,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data.clone())),
        revision: number,
    };
    let api = context.api::<ControllerRevision>(&key.namespace);
    match api.create(&PostParams::default(), &revision).await {
        Ok(_) => Ok(hash),
        Err(error) if is_already_exists(&error) => {
            let taken =
                api.get(&name).await.map_err(SyncError::api("get", "ControllerRevision", &key))?;
            if taken.data.is_some_and(|taken| taken.0 == data) {
                return Ok(hash);
            }
            let change = json!({"status": {"collisionCount": collisions.unwrap_or(0) + 1}});
            let sets = context.api::<DaemonSet>(&key.namespace);
            patch::merge_status(&sets, &key.name, &patch::on_top_of(set, change))
                .await
                .map_err(SyncError::api("update the status of", "DaemonSet", &key))?;
            Err(SyncError::Stale { key })
        }
        Err(error) => Err(SyncError::api("create", "ControllerRevision", &key)(error)),
    }
}

/// Removes the oldest revisions beyond the limit that no pod is of.
async fn prune(
    context: &Context,
    set: &DaemonSet,
    revisions: &[Arc<ControllerRevision>],
    current: &str,
    pods: &[Arc<Pod>],
) -> Result<(), SyncError> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_HISTORY);
    let live: HashSet<&str> = pods
        .iter()
        .filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH_LABEL).map(String::as_str))
        .chain([current])
        .collect();
    let unused: Vec<_> =
        revisions.iter().filter(|revision| !live.contains(hash_of(revision))).collect();
    let excess = unused.len().saturating_sub(limit);
    for revision in unused.into_iter().take(excess) {
        let key = Key::of(&revision.metadata);
        let api = context.api::<ControllerRevision>(&key.namespace);
        match api.delete(&key.name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(SyncError::api("delete", "ControllerRevision", &key)(error)),
        }
    }
    Ok(())
}
