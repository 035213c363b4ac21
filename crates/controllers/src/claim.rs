//! Which objects a controller owns: those with its reference whose labels match, plus matching
//! orphans, which it adopts; those that no longer match it releases.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference},
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Resource,
    core::{Selector, SelectorExt},
};
use serde_json::json;

use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    informer::{Index, Informer, orphans_of},
    key::Key,
    object::{Claimable, Metadata, Object},
    patch,
    pods::uid,
};

/// The reference that makes `owner` the controller of what carries it.
pub(crate) fn controller_reference<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: uid(owner.meta()).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A workload's selector, parsed. An empty one selects nothing: the API refuses it on creation,
/// and read as "everything" it would adopt the whole namespace.
pub(crate) fn selector(
    kind: &'static str,
    key: &Key,
    selector: &LabelSelector,
) -> Result<Option<Selector>, SyncError> {
    let parsed = Selector::try_from(selector.clone()).map_err(|source| SyncError::Selector {
        kind,
        key: key.clone(),
        source,
    })?;
    Ok(Some(parsed).filter(|selector| !selector.selects_all()))
}

pub(crate) fn selects<V: Object<Metadata: Claimable>>(selector: &Selector, object: &V) -> bool {
    match object.metadata().labels() {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&std::collections::BTreeMap::new()),
    }
}

/// The objects of kind `K` that `owner` owns after adopting and releasing.
pub(crate) async fn claim<O, K, V>(
    context: &Context,
    owner: &O,
    selector: &Selector,
    informer: &Informer<K, V>,
) -> Result<Vec<Arc<V>>, SyncError>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
    V: Object<Metadata: Claimable> + From<K> + Send + Sync + 'static,
{
    claim_with(context, owner, selector, informer, None, &|_| true).await
}

/// The same, with a finalizer that an adopted object gets and a released one loses, and only for
/// objects that satisfy `fits`.
pub(crate) async fn claim_with<O, K, V>(
    context: &Context,
    owner: &O,
    selector: &Selector,
    informer: &Informer<K, V>,
    finalizer: Option<&str>,
    fits: &(dyn Fn(&V) -> bool + Sync),
) -> Result<Vec<Arc<V>>, SyncError>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
    V: Object<Metadata: Claimable> + From<K> + Send + Sync + 'static,
{
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let api: Api<K> = context.api(namespace);
    let leaving = owner.meta().deletion_timestamp.is_some();
    let mut claimed = Vec::new();
    for object in informer.by(Index::Owner, uid(owner.meta())) {
        if selects(selector, &*object) && fits(&object) {
            claimed.push(object);
        } else if !leaving {
            release(&api, owner, &*object, finalizer).await?;
        }
    }
    let orphans = informer.by(Index::Owner, &orphans_of(namespace));
    let wanted: Vec<_> = orphans
        .into_iter()
        .filter(|object| !object.metadata().is_leaving())
        .filter(|object| selects(selector, &**object) && fits(object))
        .collect();
    if leaving || wanted.is_empty() || !still_there(context, owner).await? {
        return Ok(claimed);
    }
    for object in wanted {
        if let Some(adopted) = adopt(&api, owner, &*object, finalizer).await? {
            claimed.push(Arc::new(adopted.into()));
        }
    }
    Ok(claimed)
}

/// The cache may be old: nothing is adopted for an owner that is already gone.
async fn still_there<O>(context: &Context, owner: &O) -> Result<bool, SyncError>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let key = Key::of(owner.meta());
    let api: Api<O> = context.api(&key.namespace);
    let current = api.get_opt(&key.name).await.map_err(SyncError::api("get", "owner", &key))?;
    Ok(current.is_some_and(|current| {
        uid(current.meta()) == uid(owner.meta()) && current.meta().deletion_timestamp.is_none()
    }))
}

async fn adopt<O, K, V>(
    api: &Api<K>,
    owner: &O,
    object: &V,
    finalizer: Option<&str>,
) -> Result<Option<K>, SyncError>
where
    O: Resource<DynamicType = ()>,
    K: Clone + DeserializeOwned + Debug,
    V: Object<Metadata: Claimable>,
{
    let mut owners = object.metadata().owners().to_vec();
    owners.push(controller_reference(owner));
    let mut finalizers = object.metadata().finalizers().to_vec();
    if let Some(finalizer) = finalizer.filter(|name| !finalizers.iter().any(|known| known == name))
    {
        finalizers.push(finalizer.to_owned());
    }
    set_owners(api, object, &owners, &finalizers, "adopt").await
}

async fn release<O, K, V>(
    api: &Api<K>,
    owner: &O,
    object: &V,
    finalizer: Option<&str>,
) -> Result<(), SyncError>
where
    O: Resource<DynamicType = ()>,
    K: Clone + DeserializeOwned + Debug,
    V: Object<Metadata: Claimable>,
{
    let mut owners = object.metadata().owners().to_vec();
    owners.retain(|reference| reference.uid != uid(owner.meta()));
    let mut finalizers = object.metadata().finalizers().to_vec();
    finalizers.retain(|known| Some(known.as_str()) != finalizer);
    set_owners(api, object, &owners, &finalizers, "release").await.map(drop)
}

async fn set_owners<K, V>(
    api: &Api<K>,
    object: &V,
    owners: &[OwnerReference],
    finalizers: &[String],
    verb: &'static str,
) -> Result<Option<K>, SyncError>
where
    K: Clone + DeserializeOwned + Debug,
    V: Object<Metadata: Claimable>,
{
    let key = object.metadata().key();
    let mut metadata = json!({"ownerReferences": owners});
    if finalizers != object.metadata().finalizers()
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.insert("finalizers".to_owned(), json!(finalizers));
    }
    let change = patch::on_top_of(object, json!({"metadata": metadata}));
    match patch::merge(api, &key.name, &change).await {
        Ok(changed) => Ok(Some(changed)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api(verb, "object", &key)(error)),
    }
}
