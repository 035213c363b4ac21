//! The revisions of a daemon set's template.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use kube::core::Selector;
use serde_json::json;

use super::HASH_LABEL;
use crate::{
    claim,
    context::Context,
    error::SyncError,
    history,
    informer::Index,
    key::Key,
    kinds::pod::Pod,
    patch,
    pods::{controller_of, uid},
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

/// The hash of the present template where another controller keeps the revisions; nothing while that has not seen
/// the template.
pub(super) fn as_others_have_it(context: &Context, set: &DaemonSet) -> Option<String> {
    let mut revisions = context.revisions.by(Index::Owner, uid(&set.metadata));
    revisions.sort_by_key(|revision| revision.revision);
    newest(set, &revisions).map(|revision| hash_of(revision).to_owned())
}

fn newest<'r>(
    set: &DaemonSet,
    revisions: &'r [Arc<ControllerRevision>],
) -> Option<&'r Arc<ControllerRevision>> {
    let template = &set.spec.as_ref()?.template;
    // A template with fields that are newer than this program equals none; the newest revision is of it once its
    // controller says that it has seen it.
    let seen = set.status.as_ref().and_then(|status| status.observed_generation);
    let is_seen = seen.is_some() && seen >= set.metadata.generation;
    history::find(revisions, &history::data_of(template))
        .or_else(|| revisions.last().filter(|_| is_seen))
}

/// The daemon set that a revision is of, if it is of one.
pub(super) fn set_of(revision: &ControllerRevision) -> Option<Key> {
    let owner = controller_of(&revision.metadata).filter(|owner| owner.kind == "DaemonSet")?;
    Some(Key::new(revision.metadata.namespace.as_deref()?, &owner.name))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64, hash: &str, image: &str) -> Arc<ControllerRevision> {
        let template =
            json!({"spec": {"containers": [{"name": "c", "image": image}]}, "$patch": "replace"});
        let revision = json!({"metadata": {"name": hash, "labels": {HASH_LABEL: hash}},
            "data": {"spec": {"template": template}}, "revision": number});
        Arc::new(serde_json::from_value(revision).unwrap())
    }

    #[test]
    fn the_revision_of_the_template_is_found_among_those_that_others_made() {
        let set = |image: &str, observed: i64| -> DaemonSet {
            let template = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
            serde_json::from_value(json!({"metadata": {"name": "d", "generation": 3},
                "spec": {"selector": {}, "template": template},
                "status": {"currentNumberScheduled": 0, "desiredNumberScheduled": 0,
                    "numberMisscheduled": 0, "numberReady": 0, "observedGeneration": observed}}))
            .unwrap()
        };
        let revisions = [revision(1, "one", "web:1"), revision(2, "two", "web:2")];
        let hash = |set: &DaemonSet| newest(set, &revisions).map(|found| hash_of(found).to_owned());
        assert_eq!(hash(&set("web:2", 2)).as_deref(), Some("two"));
        assert_eq!(hash(&set("web:1", 2)).as_deref(), Some("one"), "back to it");
        assert_eq!(hash(&set("web:3", 2)), None, "its controller has not seen it");
        assert_eq!(hash(&set("web:3", 3)).as_deref(), Some("two"), "read otherwise than here");
        assert_eq!(newest(&set("web:1", 3), &[]), None);
    }
}
