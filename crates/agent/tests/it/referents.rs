//! What containers get of ConfigMaps and Secrets: when they come, change and go, also while there is no cloud.

use std::{fs, time::Duration};

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use toono_sandbox::{ContainerStatus as Live, Keeper};

use crate::{
    cloud::{Cloud, PATIENCE},
    site::{Site, in_own_namespace},
};

const UID: &str = "5f0c3c1e-30d9-4c6b-8a3c-0a6f5cf0b7a1";

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": UID, "labels": {"app": "web"}},
        "spec": {
            "nodeName": "n1", "terminationGracePeriodSeconds": 0,
            "volumes": [
                {"name": "conf", "configMap": {"name": "m"}},
                {"name": "keys", "secret": {"secretName": "s", "defaultMode": 0o400}},
                {"name": "all", "projected": {"sources": [
                    {"configMap": {"name": "m", "items": [{"key": "k", "path": "deep/k"}]}},
                    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}],
            "containers": [{
                "name": "main", "image": "images.test/busybox:1", "command": ["/bin/sleep", "1000"],
                "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}],
                "envFrom": [{"prefix": "M_", "configMapRef": {"name": "m"}}],
                "volumeMounts": [
                    {"name": "conf", "mountPath": "/conf"}, {"name": "keys", "mountPath": "/keys"},
                    {"name": "all", "mountPath": "/all"}, {"name": "conf", "mountPath": "/k", "subPath": "k"}]}],
        },
    })
}

fn map(value: &str) -> Value {
    json!({"kind": "ConfigMap", "namespace": "default", "name": "m", "data": {"k": value}})
}

fn secret(name: &str) -> Value {
    json!({"kind": "Secret", "namespace": "default", "name": name, "type": "Opaque", "data": {"k": "c2VjcmV0"}})
}

fn waits_for(status: &PodStatus, wanted: &str) -> bool {
    let state = status.container_statuses.as_ref().and_then(|it| it[0].state.clone());
    state.and_then(|it| it.waiting?.reason).is_some_and(|reason| reason == wanted)
}

fn runs(status: &PodStatus) -> bool {
    let state = status.container_statuses.as_ref().and_then(|it| it[0].state.clone());
    state.is_some_and(|it| it.running.is_some())
}

async fn pid(site: &Site) -> i32 {
    let keeper = Keeper::adopt(&site.pod_dir(UID)).await.unwrap().expect("the keeper lives");
    let state = keeper.state().await.unwrap();
    match state.containers[0].status {
        Live::Running { pid } => pid,
        ref other => panic!("{other:?}"),
    }
}

/// Until a file of the container says this.
async fn until_seen(pid: i32, path: &str, text: &str) {
    let file = format!("/proc/{pid}/root{path}");
    let seen = tokio::time::timeout(PATIENCE, async {
        while fs::read_to_string(&file).unwrap_or_default() != text {
            // Nothing tells of a file in another mount namespace.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(seen.await.is_ok(), "{path} is {:?}", fs::read_to_string(&file));
}

#[test]
fn what_is_missing_is_waited_for_and_what_changes_is_seen() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        cloud.want(vec![pod()]).await;
        cloud.until(UID, |_, status| waits_for(status, "ContainerCreating")).await;
        cloud.want_with(vec![pod()], vec![map("1"), secret("s")]).await;
        let status =
            cloud.until(UID, |_, status| waits_for(status, "CreateContainerConfigError")).await;
        let waiting = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
        assert_eq!(waiting.message.unwrap(), "secret \"late\" not found");
        let messages = cloud.messages_of("FailedMount");
        let expected = "MountVolume.SetUp failed for volume \"conf\" : configmap \"m\" not found";
        assert!(messages.iter().any(|it| it == expected), "{messages:?}");
        cloud.want_with(vec![pod()], vec![map("1"), secret("s"), secret("late")]).await;
        cloud.until(UID, |_, status| runs(status)).await;

        let pid_before = pid(&site).await;
        let environ = fs::read_to_string(format!("/proc/{pid_before}/environ")).unwrap();
        let variables: Vec<&str> = environ.split('\0').collect();
        assert!(variables.contains(&"K=secret") && variables.contains(&"M_k=1"), "{variables:?}");
        for (path, text) in [
            ("/conf/k", "1"),
            ("/keys/k", "secret"),
            ("/all/deep/k", "1"),
            ("/all/labels", "app=\"web\""),
            ("/k", "1"),
        ] {
            until_seen(pid_before, path, text).await;
        }
        assert!(fs::write(format!("/proc/{pid_before}/root/conf/k"), "x").is_err(), "read-only");
        let stat = nix::sys::statfs::statfs(&site.pod_dir(UID).join("volumes/keys")).unwrap();
        assert_eq!(stat.filesystem_type(), nix::sys::statfs::TMPFS_MAGIC);

        let mut labelled = pod();
        labelled["metadata"]["labels"]["app"] = "shop".into();
        let all = || vec![map("2"), secret("s"), secret("late")];
        cloud.want_with(vec![labelled.clone()], all()).await;
        until_seen(pid_before, "/conf/k", "2").await;
        until_seen(pid_before, "/all/deep/k", "2").await;
        until_seen(pid_before, "/all/labels", "app=\"shop\"").await;
        until_seen(pid_before, "/k", "1").await;

        // Without a cloud: an agent that starts anew restarts the container from its disk.
        agent.stop().await;
        drop(cloud);
        let agent = site.start();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid_before),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        let restarted = tokio::time::timeout(PATIENCE, async {
            loop {
                let keeper = Keeper::adopt(&site.pod_dir(UID)).await.unwrap().unwrap();
                let state = keeper.state().await.unwrap();
                match state.containers.last().map(|it| &it.status) {
                    Some(Live::Running { pid }) if *pid != pid_before => return *pid,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        let pid = restarted.await.unwrap();
        until_seen(pid, "/k", "2").await;
        let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        assert!(environ.split('\0').any(|it| it == "M_k=2"), "{environ}");
        agent.stop().await;
        site.clear().await;
    });
}
