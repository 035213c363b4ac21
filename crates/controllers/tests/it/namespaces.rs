//! What every namespace has.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use toono_controllers::ControllersConfig;

use crate::cluster::{Cluster, wait_for};

async fn cluster_with_namespace(name: &str) -> Cluster {
    let config = ControllersConfig { root_ca: "PEM".to_owned(), ..ControllersConfig::default() };
    let cluster = Cluster::with(config, &[]).await;
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::<Namespace>::all(cluster.client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    cluster
}

#[tokio::test]
async fn every_namespace_has_its_default_service_account() {
    let cluster = cluster_with_namespace("shop").await;
    for namespace in ["shop", "default", "kube-system"] {
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
        let before = wait_for(accounts.clone(), "the account", |all| {
            all.iter().any(|account| account.metadata.name.as_deref() == Some("default"))
        })
        .await;
        accounts.delete("default", &DeleteParams::default()).await.unwrap();
        wait_for(accounts, "a new account", |all| {
            all.iter().any(|account| {
                account.metadata.name.as_deref() == Some("default")
                    && account.metadata.uid != before[0].metadata.uid
            })
        })
        .await;
    }
}

#[tokio::test]
async fn the_root_certificates_are_in_every_namespace_and_are_kept_right() {
    let cluster = cluster_with_namespace("shop").await;
    for namespace in ["shop", "kube-public"] {
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        let right = |all: &[ConfigMap]| {
            all.iter().any(|map| {
                map.metadata.name.as_deref() == Some("kube-root-ca.crt")
                    && map.data == Some([("ca.crt".to_owned(), "PEM".to_owned())].into())
            })
        };
        wait_for(maps.clone(), "the certificates", right).await;
        let spoil = json!({"data": {"ca.crt": "evil", "more": "evil"}});
        maps.patch("kube-root-ca.crt", &PatchParams::default(), &Patch::Merge(&spoil))
            .await
            .unwrap();
        wait_for(maps, "the certificates again", right).await;
    }
}
