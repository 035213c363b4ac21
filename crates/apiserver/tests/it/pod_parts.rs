//! What may still change of a pod that runs, through the subresources that are for it.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{cluster::Cluster, programs::programs};

fn pod() -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [{
        "name": "c", "image": "i:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"cpu": "200m", "memory": "64Mi"}}}]}}))
    .unwrap()
}

/// A strategic merge patch of a subresource; what the server says instead if it refuses.
async fn patched(pods: &Api<Pod>, part: &str, patch: Value) -> Result<Pod, (u16, String)> {
    let params = PatchParams::default();
    match pods.patch_subresource(part, "p", &params, &Patch::Strategic(patch)).await {
        Ok(pod) => Ok(pod),
        Err(kube::Error::Api(status)) => Err((status.code, status.message)),
        Err(error) => unreachable!("{error}"),
    }
}

#[tokio::test]
async fn ephemeral_containers_are_only_added() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.create(&PostParams::default(), &pod()).await.unwrap();
    let added = |container: Value| json!({"spec": {"ephemeralContainers": [container]}});
    let patch = added(json!({"name": "look", "image": "b", "targetContainerName": "c"}));
    let now = patched(&pods, "ephemeralcontainers", patch).await.unwrap();
    assert_eq!(now.metadata.generation, Some(2));
    let containers = now.spec.unwrap().ephemeral_containers.unwrap();
    assert_eq!(containers[0].image_pull_policy.as_deref(), Some("Always"));
    // What else is sent with it is dropped.
    let more = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 5,
        "ephemeralContainers": [{"name": "more", "image": "b"}]}});
    let now = patched(&pods, "ephemeralcontainers", more).await.unwrap();
    assert_eq!(now.metadata.labels, None);
    let spec = now.spec.unwrap();
    assert_eq!(spec.active_deadline_seconds, None);
    assert_eq!(spec.ephemeral_containers.unwrap().len(), 2);
    let refused = [
        (
            json!({"name": "look", "image": "other"}),
            "existing ephemeral containers \"look\" may not be changed",
        ),
        (
            json!({"$patch": "delete", "name": "look"}),
            "existing ephemeral containers \"look\" may not be removed",
        ),
        (
            json!({"name": "c", "image": "b"}),
            "spec.ephemeralContainers[0].name: Duplicate value: \"c\"",
        ),
        (
            json!({"name": "x", "image": "b", "targetContainerName": "none"}),
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"none\"",
        ),
        (
            json!({"name": "x", "image": "b", "ports": [{"containerPort": 80}]}),
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ];
    for (container, expected) in refused {
        let refusal = patched(&pods, "ephemeralcontainers", added(container)).await.unwrap_err();
        assert_eq!(refusal.0, 422, "{refusal:?}");
        assert!(refusal.1.contains(expected), "{refusal:?}");
    }
    let mut early = pod();
    early.metadata.name = Some("early".to_owned());
    early.spec.as_mut().unwrap().ephemeral_containers =
        serde_json::from_value(json!([{"name": "x", "image": "b"}])).unwrap();
    let error = pods.create(&PostParams::default(), &early).await.unwrap_err().to_string();
    assert!(error.contains("cannot be set on create"), "{error}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_resize_changes_resources_only() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.create(&PostParams::default(), &pod()).await.unwrap();
    let resized = |resources: Value| json!({"spec": {"containers": [{"name": "c", "image": "other", "resources": resources}]}});
    let now = patched(&pods, "resize", resized(json!({"limits": {"cpu": "300m"}}))).await.unwrap();
    assert_eq!(now.metadata.generation, Some(2));
    let container = now.spec.unwrap().containers.remove(0);
    assert_eq!(container.image.as_deref(), Some("i:1"));
    assert_eq!(container.resources.unwrap().limits.unwrap()["cpu"].0, "300m");
    let refused = [
        (
            json!({"requests": {"cpu": "300m"}}),
            "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing",
        ),
        (
            json!({"limits": {"cpu": null}}),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            json!({"limits": {"ephemeral-storage": "1Gi"}}),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
    ];
    for (resources, expected) in refused {
        let refusal = patched(&pods, "resize", resized(resources)).await.unwrap_err();
        assert!(refusal.0 == 422 && refusal.1.contains(expected), "{refusal:?}");
    }
    let more = json!({"spec": {"containers": [{"name": "d", "image": "i"}]}});
    let refusal = patched(&pods, "resize", more).await.unwrap_err();
    assert!(refusal.1.contains("containers may not be added or removed on resize"), "{refusal:?}");
    // A limit range judges the new amounts.
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container",
        "max": {"cpu": "400m"}}]}});
    let ranges: Api<k8s_openapi::api::core::v1::LimitRange> =
        Api::default_namespaced(cluster.client());
    let range = serde_json::from_value(range).unwrap();
    ranges.create(&PostParams::default(), &range).await.unwrap();
    let refusal =
        patched(&pods, "resize", resized(json!({"limits": {"cpu": "500m"}}))).await.unwrap_err();
    assert!(
        refusal.0 == 403 && refusal.1.contains("maximum cpu usage per Container"),
        "{refusal:?}"
    );
    // A node that does not tell what its containers may use cannot change it.
    let status = json!({"status": {"containerStatuses": [{"name": "c", "image": "i:1",
        "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]}});
    patched(&pods, "status", status).await.unwrap();
    let refusal =
        patched(&pods, "resize", resized(json!({"limits": {"cpu": "350m"}}))).await.unwrap_err();
    assert!(refusal.1.contains("Pod running on node without support for resize"), "{refusal:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn kubectl_debug_adds_a_container() {
    let cluster = Cluster::start().await;
    for program in programs() {
        let name = "p";
        let pods: Api<Pod> = Api::default_namespaced(cluster.client());
        pods.create(&PostParams::default(), &pod()).await.unwrap();
        let args = ["debug", name, "--image=busybox:1", "--container=look", "--target=c", "-q"];
        let done = cluster.run(program, "admin.kubeconfig", &args).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{program}: {said}");
        let image = "jsonpath={.spec.ephemeralContainers[0].image}";
        assert_eq!(cluster.kubectl(program, &["get", "pod", name, "-o", image]).await, "busybox:1");
        cluster.kubectl(program, &["delete", "pod", name]).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn bindings_of_a_namespace_bind_its_pods() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.create(&PostParams::default(), &pod()).await.unwrap();
    let bindings: Api<k8s_openapi::api::core::v1::Binding> =
        Api::default_namespaced(cluster.client());
    let binding = |pod: &str| {
        let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"kind": "Node", "name": "n1"}});
        http::Request::post("/api/v1/namespaces/default/bindings")
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .unwrap()
    };
    let client = bindings.into_client();
    let answer: Value = client.request(binding("p")).await.unwrap();
    assert_eq!(answer["status"], "Success");
    assert_eq!(pods.get("p").await.unwrap().spec.unwrap().node_name.as_deref(), Some("n1"));
    for (pod, code) in [("p", 409), ("none", 404)] {
        let refused = client.request::<Value>(binding(pod)).await;
        assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == code));
    }
    cluster.stop().await;
}
