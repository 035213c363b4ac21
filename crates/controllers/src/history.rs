//! Revisions of a workload's template, kept as ControllerRevisions for `kubectl rollout`.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{
    Resource,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    claim::controller_reference,
    context::Context,
    error::{SyncError, is_already_exists, is_not_found},
    hash::template_hash,
    key::Key,
    patch,
};

/// Revisions kept when a workload names no limit: Kubernetes' default.
pub(crate) const DEFAULT_LIMIT: usize = 10;

/// What a revision keeps: a patch that puts the template back.
pub(crate) fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    serde_json::from_value(template.clone()).ok()
}

/// The newest revision of this template; `revisions` are ordered by number.
pub(crate) fn find<'a>(
    revisions: &'a [Arc<ControllerRevision>],
    data: &Value,
) -> Option<&'a Arc<ControllerRevision>> {
    let same = |known: &&Arc<ControllerRevision>| {
        known.data.as_ref().is_some_and(|known| known.0 == *data)
    };
    revisions.iter().rev().find(same)
}

/// Gives a revision a new number: its template is the present one again.
pub(crate) async fn renumber(
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

/// A revision to be made.
pub(crate) struct Draft {
    /// What it keeps.
    pub(crate) data: Value,
    /// Goes into its name.
    pub(crate) hash: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) number: i64,
}

/// Makes a revision of `template`, labelled with the hash in its name. `None`: the name is taken by
/// another template, and one more collision is to be counted.
pub(crate) async fn create<O>(
    context: &Context,
    owner: &O,
    hash_label: &str,
    template: &PodTemplateSpec,
    number: i64,
    collisions: Option<i32>,
) -> Result<Option<ControllerRevision>, SyncError>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Debug,
{
    let (data, hash) = (data_of(template), template_hash(template, collisions));
    let metadata = template.metadata.clone();
    let mut labels = metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
    labels.insert(hash_label.to_owned(), hash.clone());
    make(context, owner, Draft { data, hash, labels, number }).await
}

/// Makes a revision. `None`: the name is taken by another one.
pub(crate) async fn make<O>(
    context: &Context,
    owner: &O,
    draft: Draft,
) -> Result<Option<ControllerRevision>, SyncError>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Debug,
{
    let key = Key::of(owner.meta());
    let name = format!("{}-{}", key.name, draft.hash);
    let annotations = owner.meta().annotations.clone().map(|mut annotations| {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations
    });
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(key.namespace.to_string()),
            labels: Some(draft.labels),
            annotations,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(draft.data.clone())),
        revision: draft.number,
    };
    let api = context.api::<ControllerRevision>(&key.namespace);
    match api.create(&PostParams::default(), &revision).await {
        Ok(made) => Ok(Some(made)),
        Err(error) if is_already_exists(&error) => {
            let taken =
                api.get(&name).await.map_err(SyncError::api("get", "ControllerRevision", &key))?;
            let same = taken.data.as_ref().is_some_and(|taken| taken.0 == draft.data);
            Ok(same.then_some(taken))
        }
        Err(error) => Err(SyncError::api("create", "ControllerRevision", &key)(error)),
    }
}

/// Removes the oldest revisions beyond the limit that are not in use.
pub(crate) async fn prune(
    context: &Context,
    revisions: &[Arc<ControllerRevision>],
    limit: Option<i32>,
    in_use: impl Fn(&ControllerRevision) -> bool,
) -> Result<(), SyncError> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT);
    let unused: Vec<_> = revisions.iter().filter(|revision| !in_use(revision)).cloned().collect();
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
