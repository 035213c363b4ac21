//! Tokens of service accounts in pods: asked for, renewed under the eyes of their pod, and there without a cloud.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use crate::{
    cloud::{Cloud, PATIENCE},
    site::{Site, in_own_namespace},
};

const UID: &str = "7f0c3c1e-30d9-4c6b-8a3c-0a6f5cf0b7a2";
const OTHER_UID: &str = "8f0c3c1e-30d9-4c6b-8a3c-0a6f5cf0b7a3";

fn pod(name: &str, uid: &str, user: Option<u32>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {
            "nodeName": "n1", "terminationGracePeriodSeconds": 0, "serviceAccountName": "bot",
            "securityContext": {"runAsUser": user},
            "volumes": [{"name": "kube-api-access-x", "projected": {"defaultMode": 0o644, "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}],
            "containers": [{
                "name": "main", "image": "images.test/busybox:1", "command": ["/bin/sleep", "1000"],
                "volumeMounts": [{"name": "kube-api-access-x", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
        },
    })
}

fn runs(status: &PodStatus) -> bool {
    let state = status.container_statuses.as_ref().and_then(|it| it[0].state.clone());
    state.is_some_and(|it| it.running.is_some())
}

fn file(site: &Site, uid: &str) -> PathBuf {
    site.pod_dir(uid).join("volumes/kube-api-access-x/token")
}

/// Until the pod sees another token than this one.
async fn next_token(site: &Site, uid: &str, before: &str) -> String {
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            match fs::read_to_string(file(site, uid)) {
                Ok(text) if text != before => return text,
                // Nothing tells of a file that changed.
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    seen.await.expect("the token does not change")
}

#[test]
fn a_token_is_asked_for_renewed_and_kept() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        cloud.want(vec![pod("web", UID, Some(1000))]).await;
        let expected = "MountVolume.SetUp failed for volume \"kube-api-access-x\" : \
            failed to fetch token: serviceaccounts \"bot\" not found";
        let told = tokio::time::timeout(PATIENCE, async {
            while !cloud.messages_of("FailedMount").iter().any(|it| it == expected) {
                cloud.news().await;
            }
        });
        assert!(told.await.is_ok(), "{:?}", cloud.messages());

        cloud.give_tokens(4);
        cloud.until(UID, |_, status| runs(status)).await;
        let (path, body) = cloud.asked().pop().unwrap();
        assert_eq!(path, "/api/v1/namespaces/default/serviceaccounts/bot/token");
        assert_eq!(body["spec"]["expirationSeconds"], 3607);
        assert_eq!(body["spec"]["audiences"], json!([]));
        let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": UID});
        assert_eq!(body["spec"]["boundObjectRef"], bound);
        let metadata = fs::metadata(file(&site, UID)).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, 1000), "its user's alone");

        let first = next_token(&site, UID, "").await;
        let second = next_token(&site, UID, &first).await;
        // Long before the next is due the agent starts anew, and finds that the cloud is gone.
        cloud.give_tokens(3607);
        let third = next_token(&site, UID, &second).await;
        let asked = cloud.asked().len();
        cloud.want(vec![pod("web", UID, Some(1000)), pod("late", OTHER_UID, None)]).await;
        cloud.until(OTHER_UID, |_, status| runs(status)).await;
        assert_eq!(cloud.asked().len(), asked + 1);
        let mode = fs::metadata(file(&site, OTHER_UID)).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o644, "it has no user of its own");
        let late = fs::read_to_string(file(&site, OTHER_UID)).unwrap();
        agent.stop().await;
        drop(cloud);
        // As after a power cut: what was in memory is gone.
        for uid in [UID, OTHER_UID] {
            fs::remove_dir_all(site.pod_dir(uid).join("volumes/kube-api-access-x"))
                .unwrap_or_default();
        }
        let agent = site.start();
        assert_eq!(next_token(&site, UID, "").await, third);
        assert_eq!(next_token(&site, OTHER_UID, "").await, late);
        agent.stop().await;
        site.clear().await;
    });
}
