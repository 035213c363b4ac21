//! How many pods the owners of pods want: the total that percentages are of.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api,
    api::DynamicObject,
    core::GroupVersionKind,
    discovery::{self, Scope},
};

use crate::{
    context::Context,
    error::{chain, is_not_found},
    key::Key,
    kinds::pod::Pod,
    object::Metadata,
    pods::{controller_of, uid},
};

/// The sum of the replicas of all pods' owners, and whether pods have none.
pub(super) async fn of_owners(context: &Context, pods: &[Arc<Pod>]) -> Result<(i32, bool), String> {
    // Of owners by their uid; replica sets of one deployment count once.
    let mut scales: HashMap<String, i32> = HashMap::new();
    let mut known = HashSet::new();
    let mut unmanaged = false;
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else {
            unmanaged = true;
            continue;
        };
        if !known.insert(owner.uid.clone()) {
            continue;
        }
        let namespace = pod.metadata.namespace();
        match of_owner(context, owner, namespace).await? {
            Some((uid, replicas)) => scales.insert(uid, replicas),
            None => {
                let name = pod.metadata.name();
                return Err(format!("found no controllers for pod {name:?}"));
            }
        };
    }
    Ok((scales.into_values().fold(0, i32::saturating_add), unmanaged))
}

async fn of_owner(
    context: &Context,
    owner: &OwnerReference,
    namespace: &str,
) -> Result<Option<(String, i32)>, String> {
    if owner.kind != "ReplicaSet" || !owner.api_version.starts_with("apps/") {
        return through_api(context, owner, namespace).await;
    }
    let set = context.replica_sets.get(&Key::new(namespace, &owner.name));
    let Some(set) = set.filter(|set| uid(&set.metadata) == owner.uid) else { return Ok(None) };
    let Some(above) = controller_of(&set.metadata).filter(|above| above.kind == "Deployment")
    else {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
        return Ok(Some((owner.uid.clone(), replicas.unwrap_or(1))));
    };
    let deployment = context.deployments.get(&Key::new(namespace, &above.name));
    let deployment = deployment.filter(|found| uid(&found.metadata) == above.uid);
    let replicas = |spec: &k8s_openapi::api::apps::v1::DeploymentSpec| spec.replicas.unwrap_or(1);
    Ok(deployment.map(|found| (above.uid.clone(), found.spec.as_ref().map_or(1, replicas))))
}

/// Any other kind that can be scaled says so through its `scale` subresource.
async fn through_api(
    context: &Context,
    owner: &OwnerReference,
    namespace: &str,
) -> Result<Option<(String, i32)>, String> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let kind = GroupVersionKind::gvk(group, version, &owner.kind);
    let (resource, capabilities) =
        discovery::pinned_kind(&context.client, &kind).await.map_err(|error| chain(&error))?;
    let scalable = capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale");
    if !scalable {
        let name =
            if group.is_empty() { resource.plural } else { format!("{}.{group}", resource.plural) };
        return Err(format!("{name} does not implement the scale subresource"));
    }
    if capabilities.scope == Scope::Cluster {
        return Ok(None);
    }
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), namespace, &resource);
    match api.get_scale(&owner.name).await {
        Ok(scale) if uid(&scale.metadata) == owner.uid => {
            let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
            Ok(Some((owner.uid.clone(), replicas)))
        }
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}
