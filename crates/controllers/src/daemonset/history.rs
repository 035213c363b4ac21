//! The revisions of a daemon set's template.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use kube::core::Selector;
use serde_json::json;

use super::HASH_LABEL;
use crate::{
    kinds::pod::Pod,
    {claim, context::Context, error::SyncError, history, key::Key, patch},
};

/// Brings the history up to date; answers with the hash of the present template.
pub(super) async fn sync(
    context: &Context,
    set: &DaemonSet,
    selector: &Selector,
    pods: &[Arc<Pod>],
) -> Result<String, SyncError> {
    let Some(spec) = &set.spec else { return Ok(String::new()) };
    let mut revisions = claim::claim(context, set, selector, &context.revisions).await?;
    revisions.sort_by_key(|revision| revision.revision);
    let newest = revisions.last().map_or(0, |revision| revision.revision);
    let hash = match history::find(&revisions, &history::data_of(&spec.template)) {
        Some(current) => {
            if current.revision < newest {
                history::renumber(context, current, newest + 1).await?;
            }
            hash_of(current).to_owned()
        }
        None => create(context, set, newest + 1).await?,
    };
    let live: HashSet<&str> = pods
        .iter()
        .filter_map(|pod| pod.metadata.label(HASH_LABEL))
        .chain([hash.as_str()])
        .collect();
    let in_use = |revision: &ControllerRevision| live.contains(hash_of(revision));
    history::prune(context, &revisions, spec.revision_history_limit, in_use).await?;
    Ok(hash)
}

fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map_or("", String::as_str)
}

async fn create(context: &Context, set: &DaemonSet, number: i64) -> Result<String, SyncError> {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let made = history::create(context, set, HASH_LABEL, &template, number, collisions).await?;
    if let Some(made) = made {
        return Ok(hash_of(&made).to_owned());
    }
    let key = Key::of(&set.metadata);
    let change = json!({"status": {"collisionCount": collisions.unwrap_or(0) + 1}});
    let sets = context.api::<DaemonSet>(&key.namespace);
    patch::merge_status(&sets, &key.name, &patch::on_top_of(set, change))
        .await
        .map_err(SyncError::api("update the status of", "DaemonSet", &key))?;
    Err(SyncError::Stale { key })
}
