//! Writes to workloads: one request for each that is not as it should be.

use k8s_openapi::{
    NamespaceResourceScope,
    api::apps::v1::{Deployment, StatefulSet},
    serde::de::DeserializeOwned,
};
use kube::{
    Client, Resource,
    api::{DeleteParams, Preconditions},
};
use serde_json::{Value, json};
use toono_openyurt::YurtAppSet;

use super::{app::Kind, live::Live, plan, render::Rendered};
use crate::{
    claim::controller_reference,
    context::Context,
    error::{chain, is_already_exists, is_not_found},
    kinds,
    object::Metadata,
    patch,
    pods::{controller_of, uid},
};

/// Names that are tried before it is said that all are taken.
const MAX_NAMES: u32 = 8;

/// What became of a creation.
pub(super) enum Made {
    New(Live),
    /// It was there already; the cache is behind.
    Already,
}

/// Makes the workload of a pool.
pub(super) async fn create(
    context: &Context,
    set: &YurtAppSet,
    pool: &str,
    rendered: &Rendered,
    revision: &str,
) -> Result<Made, String> {
    let metadata = &set.metadata;
    for taken in 0..MAX_NAMES {
        let name = plan::name(metadata.name(), metadata.uid(), pool, taken);
        let object = json!({
            "metadata": {
                "name": name,
                "labels": rendered.labels_of(revision),
                "annotations": rendered.annotations,
                "ownerReferences": [controller_reference(set)],
            },
            "spec": rendered.spec_of(revision),
        });
        let (client, namespace) = (&context.client, metadata.namespace());
        let made = match rendered.kind {
            Kind::Deployment => kinds::create::<Deployment>(client, Some(namespace), object)
                .await
                .map(|made| Live::Deployment(made.into())),
            Kind::StatefulSet => kinds::create::<StatefulSet>(client, Some(namespace), object)
                .await
                .map(|made| Live::StatefulSet(made.into())),
        };
        match made {
            Ok(made) => return Ok(Made::New(made)),
            Err(error) if is_already_exists(&error) => {
                if is_ours(context, set, rendered.kind, &name).await? {
                    return Ok(Made::Already);
                }
            }
            Err(error) => return Err(said(&error)),
        }
    }
    Err(format!("the first {MAX_NAMES} names for it are taken by others"))
}

/// Whether the workload of this name is the set's own.
async fn is_ours(
    context: &Context,
    set: &YurtAppSet,
    kind: Kind,
    name: &str,
) -> Result<bool, String> {
    let namespace = set.metadata.namespace();
    let metadata = match kind {
        Kind::Deployment => {
            let found = context.api::<Deployment>(namespace).get_opt(name).await;
            found.map(|found| found.map(|found| found.metadata))
        }
        Kind::StatefulSet => {
            let found = context.api::<StatefulSet>(namespace).get_opt(name).await;
            found.map(|found| found.map(|found| found.metadata))
        }
    };
    let metadata = metadata.map_err(|error| said(&error))?;
    let owner = metadata.as_ref().and_then(controller_of);
    Ok(owner.is_some_and(|owner| owner.uid == uid(&set.metadata)))
}

/// Applies a merge patch to this very workload. `None`: it is gone meanwhile.
pub(super) async fn update(
    context: &Context,
    live: &Live,
    mut patch: Value,
) -> Result<Option<Live>, String> {
    let metadata = live.metadata();
    if let Some(fields) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
        fields.insert("uid".to_owned(), metadata.uid().into());
    }
    let (namespace, name) = (metadata.namespace(), metadata.name());
    let changed = match live {
        Live::Deployment(_) => patch::merge::<Deployment>(&context.api(namespace), name, &patch)
            .await
            .map(|changed| Live::Deployment(changed.into())),
        Live::StatefulSet(_) => patch::merge::<StatefulSet>(&context.api(namespace), name, &patch)
            .await
            .map(|changed| Live::StatefulSet(changed.into())),
    };
    match changed {
        Ok(changed) => Ok(Some(changed)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(said(&error)),
    }
}

/// Deletes this very workload, and then its pods. Whether it was there.
pub(super) async fn delete(context: &Context, live: &Live) -> Result<bool, String> {
    let metadata = live.metadata();
    let (namespace, name) = (metadata.namespace(), metadata.name());
    let only_this = Preconditions { uid: Some(metadata.uid().to_owned()), resource_version: None };
    let deleted = match live.kind() {
        Kind::Deployment => {
            delete_named::<Deployment>(&context.client, namespace, name, only_this).await
        }
        Kind::StatefulSet => {
            delete_named::<StatefulSet>(&context.client, namespace, name, only_this).await
        }
    };
    match deleted {
        Ok(()) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(said(&error)),
    }
}

async fn delete_named<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    only_this: Preconditions,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: kube::Api<K> = kube::Api::namespaced(client.clone(), namespace);
    api.delete(name, &DeleteParams::background().preconditions(only_this)).await.map(drop)
}

/// What the API said, or why it said nothing.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}
