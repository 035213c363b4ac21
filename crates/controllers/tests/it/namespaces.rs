//! What every namespace has, and how one goes.

use k8s_openapi::api::{
    authentication::v1::TokenReview,
    core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
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

fn message<'a>(namespace: &'a Namespace, type_: &str) -> Option<&'a str> {
    let conditions = namespace.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|one| one.type_ == type_ && one.status == "True")?;
    found.message.as_deref()
}

#[tokio::test]
async fn a_namespace_goes_when_what_is_in_it_has_gone() {
    let cluster = cluster_with_namespace("shop").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    for (name, finalizers) in [("held", vec!["example.com/till"]), ("free", vec![])] {
        let map =
            serde_json::from_value(json!({"metadata": {"name": name, "finalizers": finalizers}}));
        maps.create(&PostParams::default(), &map.unwrap()).await.unwrap();
    }
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let remaining = "Some resources are remaining: configmaps. has 1 resource instances";
    let held = "Some content in the namespace has finalizers remaining: example.com/till in 1 resource instances";
    wait_for(namespaces.clone(), "the conditions", |all| {
        all.iter().any(|namespace| {
            message(namespace, "NamespaceContentRemaining") == Some(remaining)
                && message(namespace, "NamespaceFinalizersRemaining") == Some(held)
                && message(namespace, "NamespaceDeletionContentFailure").is_none()
        })
    })
    .await;
    let left: Vec<_> = maps.list(&ListParams::default()).await.unwrap().items;
    let names: Vec<_> = left.iter().filter_map(|map| map.metadata.name.as_deref()).collect();
    assert_eq!(names, ["held"]);
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    wait_for(namespaces, "no namespace", |all| {
        all.iter().all(|namespace| namespace.metadata.name.as_deref() != Some("shop"))
    })
    .await;
}

#[tokio::test]
async fn the_pods_of_a_namespace_end_first() {
    let cluster = cluster_with_namespace("shop").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    let pod = json!({"metadata": {"name": "till", "finalizers": ["example.com/till"]},
        "spec": {"containers": [{"name": "c", "image": "one"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let map = serde_json::from_value(json!({"metadata": {"name": "settings"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    wait_for(namespaces.clone(), "the condition", |all| {
        all.iter().any(|namespace| {
            message(namespace, "NamespaceContentRemaining")
                == Some("Some resources are remaining: pods. has 1 resource instances")
        })
    })
    .await;
    maps.get("settings").await.unwrap();
    let release = json!({"metadata": {"finalizers": null}});
    pods.patch("till", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    wait_for(namespaces, "no namespace", |all| {
        all.iter().all(|namespace| namespace.metadata.name.as_deref() != Some("shop"))
    })
    .await;
    assert!(maps.get_opt("settings").await.unwrap().is_none());
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

#[tokio::test]
async fn a_secret_gets_its_accounts_token_and_goes_with_it() {
    let config = ControllersConfig { root_ca: "PEM".to_owned(), ..ControllersConfig::default() };
    let cluster = Cluster::with(config, &[]).await;
    let (accounts, secrets): (Api<ServiceAccount>, Api<Secret>) = (cluster.api(), cluster.api());
    let _: ServiceAccount = cluster.create(json!({"metadata": {"name": "robot"}})).await;
    let secret = |name: &str, account: &str| {
        json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token"})
    };
    let _: Secret = cluster.create(secret("key", "robot")).await;
    let _: Secret = cluster.create(secret("of-nobody", "nobody")).await;
    let filled = wait_for(secrets.clone(), "one secret with a token", |all| {
        all.len() == 1 && all[0].data.as_ref().is_some_and(|data| data.contains_key("token"))
    })
    .await;
    let data = filled[0].data.clone().unwrap();
    assert_eq!((&data["ca.crt"].0[..], &data["namespace"].0[..]), (&b"PEM"[..], &b"default"[..]));
    let annotations = filled[0].metadata.annotations.clone().unwrap();
    assert!(!annotations["kubernetes.io/service-account.uid"].is_empty());
    let token = String::from_utf8(data["token"].0.clone()).unwrap();
    let reviews: Api<TokenReview> = Api::all(cluster.client.clone());
    let review = async || {
        let asked = serde_json::from_value(json!({"spec": {"token": token}})).unwrap();
        reviews.create(&PostParams::default(), &asked).await.unwrap().status.unwrap()
    };
    let holder = review().await;
    assert_eq!(
        holder.user.unwrap().username.as_deref(),
        Some("system:serviceaccount:default:robot")
    );
    // Another token in the secret is another credential: the first one is no more.
    let emptied = json!({"data": {"token": null}});
    let params = PatchParams::default();
    secrets.patch("key", &params, &Patch::Merge(&emptied)).await.unwrap();
    wait_for(secrets.clone(), "a new token", |all| {
        let data = all.first().and_then(|secret| secret.data.as_ref());
        data.and_then(|data| data.get("token")).is_some_and(|held| held.0 != token.as_bytes())
    })
    .await;
    assert_eq!(review().await.authenticated, None);
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    wait_for(secrets, "no secret", <[Secret]>::is_empty).await;
}
