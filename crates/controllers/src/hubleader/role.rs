//! The ClusterRole of what leaders fetch: of all pools together, one rule for each API group.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use serde_json::json;
use toono_openyurt::{NodePool, keys};

use crate::{
    context::Context,
    error::{SyncError, is_already_exists},
    key::Key,
    kinds::create,
    patch,
    worker::Again,
};

/// Its name.
pub(super) const NAME: &str = keys::HUB_LEADER_ROLE;

pub(super) async fn sync(context: &Context) -> Result<Again, SyncError> {
    let pools = context.node_pools.all();
    let rules = rules(&pools);
    let key = Key::new("", NAME);
    let api: Api<ClusterRole> = Api::all(context.client.clone());
    let present = api.get_opt(NAME).await.map_err(SyncError::api("read", "ClusterRole", &key))?;
    let written = match present {
        Some(present) if present.rules.as_ref() == Some(&rules) => return Ok(None),
        Some(present) => {
            let change = patch::on_top_of(&present, json!({"rules": rules}));
            patch::merge(&api, NAME, &change).await.map(drop)
        }
        // A cluster without pools has no use for it.
        None if pools.is_empty() => return Ok(None),
        None => {
            let object = json!({"metadata": {"name": NAME}, "rules": rules});
            create::<ClusterRole>(&context.client, None, object).await.map(drop)
        }
    };
    match written {
        Err(error) if !is_already_exists(&error) => {
            Err(SyncError::api("write", "ClusterRole", &key)(error))
        }
        _ => Ok(None),
    }
}

/// What all pools share, by group.
fn rules(pools: &[Arc<NodePool>]) -> Vec<PolicyRule> {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for shared in pools.iter().flat_map(|pool| pool.spec.shared()) {
        groups.entry(shared.group).or_default().insert(shared.resource);
    }
    let rule = |(group, resources): (String, BTreeSet<String>)| PolicyRule {
        api_groups: Some(vec![group]),
        resources: Some(resources.into_iter().collect()),
        verbs: vec!["list".to_owned(), "watch".to_owned()],
        ..PolicyRule::default()
    };
    groups.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_one_group_are_one() {
        let pool = |resource: &str| -> Arc<NodePool> {
            let shared =
                json!([{"group": "discovery.k8s.io", "version": "v1", "resource": resource}]);
            Arc::new(
                serde_json::from_value(json!({"spec": {"poolScopeMetadata": shared}})).unwrap(),
            )
        };
        let rules = rules(&[pool("endpointslices"), pool("endpoints")]);
        assert_eq!(
            json!(rules),
            json!([
                {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpoints", "endpointslices"],
                 "verbs": ["list", "watch"]},
            ])
        );
    }
}
