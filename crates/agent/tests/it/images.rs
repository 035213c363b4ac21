//! What a pod's status and the node's say of images, and images that are brought by hand.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use toono_images::{ImageRef, ImageStore, RegistryConfig};

use crate::{
    cloud::Cloud,
    registry,
    site::{Site, in_own_namespace},
};

fn pod(name: &str, image: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": image, "imagePullPolicy": policy,
            "command": ["/bin/sleep", "1000"]}]},
    })
}

fn waiting(status: &PodStatus) -> Option<(String, String)> {
    let container = status.container_statuses.as_ref()?.first()?;
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    Some((waiting.reason.clone()?, waiting.message.clone().unwrap_or_default()))
}

fn is_ready(status: &PodStatus) -> bool {
    status.container_statuses.as_ref().is_some_and(|list| list[0].ready)
}

#[test]
fn an_image_that_cannot_be_had_says_why_and_what_to_do() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        cloud
            .want(vec![
                pod("invalid", "Images.test/Busybox:1", "IfNotPresent"),
                pod("missing", "images.test/none:1", "IfNotPresent"),
                pod("never", "q.io/never:1", "Never"),
            ])
            .await;
        let told = async |uid: &str, wanted: &str| {
            let is_it = |status: &PodStatus| waiting(status).is_some_and(|it| it.0 == wanted);
            let status = cloud.until(uid, |_, status| is_it(status)).await;
            waiting(&status).unwrap().1
        };
        let message = told("invalid", "InvalidImageName").await;
        assert!(message.contains("lower-case"), "{message}");
        let message = told("missing", "ImagePullBackOff").await;
        assert!(message.contains("not found") && message.contains("check the name"), "{message}");
        told("never", "ErrImageNeverPull").await;

        // What is brought by hand is used at the next look.
        let archive = site.pod_dir("never").join("archive");
        std::fs::write(&archive, registry::archive("q.io/never:1")).unwrap();
        let store = ImageStore::open(site.config.data.join("images"), RegistryConfig::default());
        let imported = store.unwrap().import(&archive, None).unwrap();
        assert_eq!(imported.len(), 1);
        cloud.until("never", |_, status| is_ready(status)).await;
        let in_use = toono_agent::images::in_use(&site.config.data).unwrap();
        let never: ImageRef = "q.io/never:1".parse().unwrap();
        assert!(in_use.images.contains(&never) && in_use.has(&imported[0]));
        let mounted: Vec<_> = in_use.layers.iter().collect();
        assert_eq!(mounted, imported[0].layers.iter().collect::<Vec<_>>());
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn pull_secrets_open_a_registry_when_they_come() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let mut site = Site::new(&cloud).await;
        // `u` and `secret`, in base64.
        let address = registry::serve_to(Some("Basic dTpzZWNyZXQ=")).await;
        site.config.registries.add(&format!("private.test=http://{address}")).unwrap();
        let agent = site.start();
        let mut private = pod("private", "private.test/busybox:1", "IfNotPresent");
        private["spec"]["imagePullSecrets"] = json!([{"name": "key"}]);
        cloud.want(vec![private.clone()]).await;
        let denied = |status: &PodStatus| {
            waiting(status).is_some_and(|it| it.1.contains("imagePullSecrets"))
        };
        cloud.until("private", |_, status| denied(status)).await;
        let events = cloud.messages_of("FailedToRetrieveImagePullSecret");
        assert!(events.iter().any(|it| it.contains("(key)")), "{events:?}");
        // {"auths":{"private.test":{"auth":"dTpzZWNyZXQ="}}}
        let config = "eyJhdXRocyI6eyJwcml2YXRlLnRlc3QiOnsiYXV0aCI6ImRUcHpaV055WlhRPSJ9fX0=";
        let secret = json!({"kind": "Secret", "namespace": "default", "name": "key",
            "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}});
        cloud.want_with(vec![private], vec![secret]).await;
        cloud.until("private", |_, status| is_ready(status)).await;
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn the_nodes_status_lists_its_images() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        cloud.want(vec![pod("web", "images.test/busybox:1", "Always")]).await;
        let status = cloud.until_node(|node| !node["images"][0].is_null()).await;
        let image = &status["images"][0];
        assert_eq!(image["names"][1], "images.test/busybox:1", "{image}");
        assert!(image["names"][0].as_str().unwrap().starts_with("images.test/busybox@sha256:"));
        assert!(image["sizeBytes"].as_u64().unwrap() > 100_000);
        assert!(status["nodeInfo"].is_object(), "with all the rest");
        agent.stop().await;
        site.clear().await;
    });
}
