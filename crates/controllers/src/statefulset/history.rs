//! The revisions of a stateful set: the one that its pods are of, and the one that they shall be of.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec},
    core::v1::PodTemplateSpec,
};
use kube::core::Selector;

use super::view::revision;
use crate::{claim, context::Context, error::SyncError, history, kinds::pod::Pod};

/// The label of a revision with the hash in its name.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The two revisions of a set.
pub(super) struct History {
    pub(super) current: Arc<ControllerRevision>,
    pub(super) update: Arc<ControllerRevision>,
    pub(super) collisions: Option<i32>,
    all: Vec<Arc<ControllerRevision>>,
}

impl History {
    pub(super) fn current_name(&self) -> &str {
        self.current.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn update_name(&self) -> &str {
        self.update.metadata.name.as_deref().unwrap_or_default()
    }

    /// The template of the current revision.
    pub(super) fn current_template(&self, spec: &StatefulSetSpec) -> PodTemplateSpec {
        history::template_of(&self.current).unwrap_or_else(|| spec.template.clone())
    }

    /// Removes what neither the set nor its pods use.
    pub(super) async fn prune(
        &self,
        context: &Context,
        spec: &StatefulSetSpec,
        pods: &[Arc<Pod>],
    ) -> Result<(), SyncError> {
        let live: HashSet<&str> = pods
            .iter()
            .map(|pod| revision(pod))
            .chain([self.current_name(), self.update_name()])
            .collect();
        let in_use = |known: &ControllerRevision| {
            known.metadata.name.as_deref().is_some_and(|name| live.contains(name))
        };
        history::prune(context, &self.all, spec.revision_history_limit, in_use).await
    }
}

/// Brings the history up to date.
pub(super) async fn sync(
    context: &Context,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    selector: &Selector,
) -> Result<History, SyncError> {
    let mut all = claim::claim(context, set, selector, &context.revisions).await?;
    all.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
    let newest = all.last().map_or(0, |revision| revision.revision);
    let mut collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let known = history::find(&all, &history::data_of(&spec.template)).cloned();
    let update = match known {
        Some(known) => {
            if known.revision < newest {
                history::renumber(context, &known, newest + 1).await?;
            }
            known
        }
        None => loop {
            let number = newest + 1;
            let template = &spec.template;
            let made =
                history::create(context, set, HASH_LABEL, template, number, collisions).await?;
            if let Some(made) = made {
                break Arc::new(made);
            }
            collisions = Some(collisions.unwrap_or(0) + 1);
        },
    };
    let name = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let current = all.iter().find(|known| known.metadata.name.as_deref() == name).cloned();
    let current = current.unwrap_or_else(|| Arc::clone(&update));
    Ok(History { current, update, collisions, all })
}
