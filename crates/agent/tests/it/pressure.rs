//! A node that runs short: pods leave, or do not come, and the cloud is told why.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use crate::{
    cloud::Cloud,
    site::{Site, in_own_namespace},
    statics::until,
};

fn pod(uid: &str, priority: i32, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": uid, "namespace": "default", "uid": uid},
        "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "priority": priority,
            "containers": [{"name": "main", "image": "images.test/busybox:1"}]},
    });
    let container = pod["spec"]["containers"][0].as_object_mut().unwrap();
    container.extend(spec["container"].as_object().cloned().unwrap_or_default());
    if let Some(volumes) = spec.get("volumes") {
        pod["spec"]["volumes"] = volumes.clone();
    }
    pod
}

fn command(script: &str) -> Value {
    json!(["/bin/sh", "-c", script])
}

fn is_ready(status: &PodStatus) -> bool {
    status.container_statuses.as_ref().is_some_and(|list| list[0].ready)
}

fn has_failed(status: &PodStatus) -> bool {
    status.phase.as_deref() == Some("Failed")
}

fn condition<'a>(node: &'a Value, kind: &str) -> &'a Value {
    node["conditions"].as_array().unwrap().iter().find(|it| it["type"] == kind).unwrap()
}

#[test]
fn the_least_important_pod_leaves_a_node_without_memory() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let mut site = Site::new(&cloud).await;
        let quiet = site.start();
        let sleep = json!({"container": {"command": command("exec sleep 1000")}});
        let pods = vec![pod("high", 1000, &sleep), pod("low", 0, &sleep)];
        cloud.want(pods.clone()).await;
        cloud.until("high", |_, status| is_ready(status)).await;
        cloud.until("low", |_, status| is_ready(status)).await;
        assert_eq!(condition(&cloud.node_status().unwrap(), "MemoryPressure")["status"], "False");
        quiet.stop().await;
        // From now on whatever is left is too little.
        site.config.room.eviction.hard = "memory.available<100%".parse().unwrap();
        let agent = site.start();
        let status = cloud.until("low", |_, status| has_failed(status)).await;
        assert_eq!(status.reason.as_deref(), Some("Evicted"));
        let message = status.message.unwrap();
        assert!(
            message.starts_with("The node was low on resource: memory. Threshold quantity: "),
            "{message}"
        );
        assert!(message.contains("Container main was using "), "{message}");
        let node =
            cloud.until_node(|node| condition(node, "MemoryPressure")["status"] == "True").await;
        assert_eq!(condition(&node, "MemoryPressure")["reason"], "KubeletHasInsufficientMemory");
        let events = cloud.events();
        for reason in ["EvictionThresholdMet", "NodeHasInsufficientMemory", "Evicted"] {
            assert!(events.iter().any(|it| it == reason), "{reason} in {events:?}");
        }
        // Then the others; and a newcomer that asks for nothing does not get in.
        cloud.until("high", |_, status| has_failed(status)).await;
        cloud.want([pods, vec![pod("late", 0, &sleep)]].concat()).await;
        let status = cloud.until("late", |_, status| has_failed(status)).await;
        assert_eq!(status.reason.as_deref(), Some("Evicted"));
        assert_eq!(
            status.message.as_deref(),
            Some("Pod was rejected: The node had condition: [MemoryPressure]. ")
        );
        cloud.want(vec![]).await;
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn who_takes_more_of_the_disk_than_it_may_is_evicted() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let fill = |path: &str| {
            command(&format!("dd if=/dev/zero of={path} bs=1M count=3; exec sleep 1000"))
        };
        cloud
            .want(vec![
                pod("volume", 0, &json!({
                    "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}],
                    "container": {"command": fill("/v/x"), "volumeMounts": [{"name": "v", "mountPath": "/v"}]}})),
                pod("root", 0, &json!({"container": {"command": fill("/x"),
                    "resources": {"limits": {"ephemeral-storage": "2Mi"}}}})),
                pod("modest", 0, &json!({"container": {"command": fill("/x"),
                    "resources": {"limits": {"ephemeral-storage": "20Mi"}}}})),
            ])
            .await;
        let agent = site.start();
        cloud.until("modest", |_, status| is_ready(status)).await;
        cloud.until("volume", |_, status| is_ready(status) || has_failed(status)).await;
        cloud.until("root", |_, status| is_ready(status) || has_failed(status)).await;
        agent.stop().await;
        // An agent that starts looks at once; files are counted once a minute.
        let agent = site.start();
        let status = cloud.until("volume", |_, status| has_failed(status)).await;
        assert_eq!(status.reason.as_deref(), Some("Evicted"));
        assert_eq!(
            status.message.as_deref(),
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"2Mi\". ")
        );
        // Removed after the pod is said to have failed.
        let volume = site.pod_dir("volume").join("volumes/v");
        until("what it wrote to be gone", async || !volume.exists()).await;
        assert!(site.pod_dir("volume").join("logs/main/0.log").exists(), "its log is not");
        let status = cloud.until("root", |_, status| has_failed(status)).await;
        assert_eq!(
            status.message.as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ")
        );
        cloud.until("modest", |_, status| is_ready(status)).await;
        cloud.want(vec![]).await;
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn what_does_not_fit_is_refused() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let mut site = Site::new(&cloud).await;
        site.config.room.max_pods = 2;
        let asking = |cpu: &str| {
            json!({"container": {"command": command("exec sleep 1000"),
                "resources": {"requests": {"cpu": cpu}}}})
        };
        cloud.want(vec![pod("small", 0, &asking("10m"))]).await;
        let agent = site.start();
        cloud.until("small", |_, status| is_ready(status)).await;
        cloud.want(vec![pod("small", 0, &asking("10m")), pod("huge", 0, &asking("900"))]).await;
        let status = cloud.until("huge", |_, status| has_failed(status)).await;
        assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
        let message = status.message.unwrap();
        assert!(message.starts_with("Pod was rejected: Node didn't have enough resource: cpu, requested: 900000, used: 10, capacity: "), "{message}");
        assert!(cloud.events().contains(&"OutOfcpu".to_owned()));
        // One that was refused takes no place.
        let some = ["small", "second", "third"].map(|uid| pod(uid, 0, &asking("10m")));
        cloud.want([&some[..2], &[pod("huge", 0, &asking("900"))]].concat()).await;
        cloud.until("second", |_, status| is_ready(status)).await;
        cloud.want(some.to_vec()).await;
        let status = cloud.until("third", |_, status| has_failed(status)).await;
        assert_eq!(status.reason.as_deref(), Some("OutOfpods"));
        cloud.want(vec![]).await;
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn a_child_that_dies_for_want_of_memory_is_told_of() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        // The shell lives on, and ends as its child did.
        let greedy = "dd if=/dev/zero of=/dev/null bs=64M count=1; exit $?";
        let mut pod = pod(
            "greedy",
            0,
            &json!({"container": {"command": command(greedy),
            "resources": {"limits": {"memory": "16Mi"}}}}),
        );
        pod["spec"]["restartPolicy"] = "Never".into();
        cloud.want(vec![pod]).await;
        let agent = site.start();
        let status = cloud.until("greedy", |_, status| has_failed(status)).await;
        let container = &status.container_statuses.unwrap()[0];
        let ended = container.state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("OOMKilled")));
        cloud.want(vec![]).await;
        agent.stop().await;
        site.clear().await;
    });
}
