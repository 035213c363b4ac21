//! Hooks, sidecars, shared processes and last words of real containers.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use serde_json::{Value, json};
use toono_sandbox::ContainerId;

use crate::{
    cloud::Cloud,
    health::{exec, main_of, pod},
    site::{Site, in_own_namespace},
};

const UID: &str = "d2c5ac42-7c49-4e1b-9b30-2a9a3c2a0001";
const BAD: &str = "d2c5ac42-7c49-4e1b-9b30-2a9a3c2a0002";
const IMAGE: &str = "images.test/busybox:1";

fn deleted(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
    pod["metadata"]["deletionGracePeriodSeconds"] = 10.into();
    pod
}

fn sh(script: &str) -> Value {
    json!(["/bin/sh", "-c", script])
}

fn phase(status: &PodStatus) -> &str {
    status.phase.as_deref().unwrap()
}

#[test]
fn hooks_run_after_the_start_and_before_the_end() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        let shared = tempfile::tempdir().unwrap();
        let good = pod(
            UID,
            "good",
            json!({
                "volumes": [{"name": "out", "hostPath": {"path": shared.path()}}],
                "containers": [{
                    "name": "main", "image": IMAGE,
                    "command": sh("trap 'echo term >> /out/log; exit 0' TERM; while :; do sleep 0.1; done"),
                    "volumeMounts": [{"name": "out", "mountPath": "/out"}],
                    "lifecycle": {
                        "postStart": {"exec": {"command": sh("echo post >> /out/log")}},
                        "preStop": {"exec": {"command": sh("sleep 0.5; echo pre >> /out/log")}}}}],
            }),
        );
        let bad = pod(
            BAD,
            "bad",
            json!({
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": IMAGE, "command": ["/bin/sleep", "1000"],
                    "lifecycle": {
                        "postStart": {"exec": {"command": sh("echo secret; exit 7")}},
                        "preStop": {"httpGet": {"port": 1}}}}],
            }),
        );
        cloud.want(vec![good.clone(), bad.clone()]).await;
        cloud.until(UID, |_, status| main_of(status).ready).await;
        let status = cloud.until(BAD, |_, status| phase(status) == "Failed").await;
        assert_eq!(main_of(&status).state.unwrap().terminated.unwrap().exit_code, 137);
        cloud.want(vec![deleted(good), bad]).await;
        cloud.until(UID, |report, _| report.gone).await;
        let log = std::fs::read_to_string(shared.path().join("log")).unwrap();
        assert_eq!(log, "post\npre\nterm\n");
        let events = cloud.events();
        for reason in ["FailedPostStartHook", "FailedPreStopHook"] {
            assert!(events.iter().any(|it| it == reason), "{reason} in {events:?}");
        }
        assert!(!cloud.messages().iter().any(|it| it.contains("secret")));
        agent.stop().await;
        site.clear().await;
    });
}

fn found(status: &PodStatus, name: &str) -> ContainerStatus {
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    lists.into_iter().flatten().flatten().find(|it| it.name == name).cloned().unwrap_or_default()
}

fn message(status: &PodStatus, name: &str) -> Option<String> {
    found(status, name).state?.terminated?.message
}

#[test]
fn a_pod_with_a_sidecar_completes_and_leaves_last_words() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        cloud.want(vec![pod(UID, "job", json!({
            "restartPolicy": "Never", "shareProcessNamespace": true,
            "volumes": [{"name": "out", "emptyDir": {}}],
            "initContainers": [{
                "name": "car", "image": IMAGE, "restartPolicy": "Always",
                "command": sh("echo up > /out/up; trap 'echo bye > /last; exit 0' TERM; while :; do sleep 0.1; done"),
                "terminationMessagePath": "/last",
                "volumeMounts": [{"name": "out", "mountPath": "/out"}],
                "startupProbe": {"exec": {"command": ["cat", "/out/up"]}, "periodSeconds": 1}}],
            "containers": [
                {"name": "main", "image": IMAGE,
                 "command": sh("busybox ps | busybox grep -q '[e]cho up' && cat /out/up && echo well > /dev/termination-log"),
                 "volumeMounts": [{"name": "out", "mountPath": "/out"}]},
                {"name": "other", "image": IMAGE, "terminationMessagePolicy": "FallbackToLogsOnError",
                 "command": sh("echo what went wrong; exit 3")}],
        }))]).await;
        let status = cloud.until(UID, |_, status| phase(status) == "Failed").await;
        assert_eq!(message(&status, "car").as_deref(), Some("bye\n"));
        assert_eq!(message(&status, "main").as_deref(), Some("well\n"));
        assert_eq!(message(&status, "other").as_deref(), Some("what went wrong\n"));
        assert_eq!(found(&status, "main").state.unwrap().terminated.unwrap().exit_code, 0);
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn a_container_is_added_to_look_at_another() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        let mut wanted = pod(
            UID,
            "web",
            json!({
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": IMAGE, "command": ["/bin/sleep", "1234"]}],
            }),
        );
        cloud.want(vec![wanted.clone()]).await;
        cloud.until(UID, |_, status| main_of(status).ready).await;
        wanted["spec"]["ephemeralContainers"] = json!([{
            "name": "debug", "image": IMAGE, "targetContainerName": "main",
            "command": sh("busybox ps | busybox grep '[s]leep 1234' > /dev/termination-log")}]);
        cloud.want(vec![wanted.clone()]).await;
        let status = cloud.until(UID, |_, status| message(status, "debug").is_some()).await;
        let seen = message(&status, "debug").unwrap();
        assert!(seen.contains("/bin/sleep 1234"), "{seen}");
        assert_eq!((phase(&status), main_of(&status).restart_count), ("Running", 0));
        assert_eq!(exec(&site, UID, ContainerId::new("main", 0), "exit 5").await, 5);
        agent.stop().await;
        // It is known to the next agent, too, and does not run again.
        let agent = site.start();
        let again = cloud.until(UID, |_, _| true).await;
        assert_eq!(found(&again, "debug"), found(&status, "debug"));
        agent.stop().await;
        site.clear().await;
    });
}
