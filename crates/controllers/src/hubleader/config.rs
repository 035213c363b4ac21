//! The ConfigMap by which the nodes of a pool know who leads it. It belongs to the pool and goes with it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::json;
use toono_openyurt::{NodePool, keys, node_pool::Leader};

use crate::{
    context::Context,
    error::{SyncError, is_already_exists},
    key::Key,
    kinds::create,
    patch,
    worker::Again,
};

/// Where it is.
const NAMESPACE: &str = "kube-system";

pub(super) async fn sync(
    context: &Context,
    pool: &NodePool,
    leaders: &[Leader],
) -> Result<Again, SyncError> {
    let name = format!("{}{}", keys::HUB_LEADER_CONFIG_PREFIX, pool.name());
    let key = Key::new(NAMESPACE, &name);
    let api: Api<ConfigMap> = context.api(NAMESPACE);
    let wanted = data(pool, leaders);
    let present = api.get_opt(&name).await.map_err(SyncError::api("read", "ConfigMap", &key))?;
    let written = match present {
        Some(present) if present.data.as_ref() == Some(&wanted) => return Ok(None),
        Some(present) => {
            let before = json!({"data": present.data});
            let change = patch::difference(&before, &json!({"data": wanted}));
            patch::merge(&api, &name, &patch::on_top_of(&present, change)).await.map(drop)
        }
        None => {
            let owner = json!({"apiVersion": "apps.openyurt.io/v1beta2", "kind": "NodePool",
                "name": pool.name(), "uid": pool.metadata.uid});
            let labels = json!({keys::HUB_LEADER_CONFIG: name});
            let metadata = json!({"name": name, "labels": labels, "ownerReferences": [owner]});
            let object = json!({"metadata": metadata, "data": wanted});
            create::<ConfigMap>(&context.client, Some(NAMESPACE), object).await.map(drop)
        }
    };
    match written {
        Err(error) if !is_already_exists(&error) => {
            Err(SyncError::api("write", "ConfigMap", &key)(error))
        }
        _ => Ok(None),
    }
}

/// What it says, as OpenYurt's nodes read it.
fn data(pool: &NodePool, leaders: &[Leader]) -> BTreeMap<String, String> {
    let mut ends: Vec<String> =
        leaders.iter().map(|leader| format!("{}/{}", leader.node_name, leader.address)).collect();
    ends.sort_unstable();
    let shared = pool.spec.shared();
    let mut shared: Vec<String> = shared
        .iter()
        .map(|each| format!("{}/{}/{}", each.group, each.version, each.resource))
        .collect();
    shared.sort_unstable();
    [
        ("leaders", ends.join(",")),
        ("pool-scoped-metadata", shared.join(",")),
        ("interconnectivity", pool.spec.inter_connectivity.to_string()),
        ("enable-leader-election", pool.spec.enable_leader_election.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_openyurts_says() {
        let pool: NodePool = serde_json::from_value(json!({"metadata": {"name": "p"},
            "spec": {"interConnectivity": true, "enableLeaderElection": true}}))
        .unwrap();
        let leader = |name: &str, address: &str| Leader {
            node_name: name.to_owned(),
            address: address.to_owned(),
        };
        let leaders = [leader("b", "10.0.0.2"), leader("a", "10.0.0.1")];
        assert_eq!(
            json!(data(&pool, &leaders)),
            json!({
                "leaders": "a/10.0.0.1,b/10.0.0.2",
                "pool-scoped-metadata": "/v1/services,discovery.k8s.io/v1/endpointslices",
                "interconnectivity": "true",
                "enable-leader-election": "true",
            })
        );
    }
}
