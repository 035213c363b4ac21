//! What the node's API says of its resources, measured at real containers.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use crate::{
    cloud::Cloud,
    site::{Site, in_own_namespace},
};

const UID: &str = "7d1f7c3a-26f8-4a44-9a53-25b2a2e1b1c5";

/// Keeps 8 MiB in memory, 1 MiB in its root file system and 2 MiB in a volume, and is busy for a while.
fn pod() -> Value {
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=8; dd if=/dev/urandom of=/y bs=1M count=1; \
                  dd if=/dev/urandom of=/scratch/z bs=1M count=2; \
                  i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; touch /done; exec sleep 1000";
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": UID},
        "spec": {
            "nodeName": "n1", "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "containers": [{
                "name": "main", "image": "images.test/busybox:1",
                "command": ["/bin/sh", "-c", script],
                "readinessProbe": {"exec": {"command": ["cat", "/done"]}, "periodSeconds": 1},
                "resources": {"limits": {"memory": "64Mi"}},
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
        },
    })
}

fn is_ready(status: &PodStatus) -> bool {
    status.container_statuses.as_ref().is_some_and(|list| list[0].ready)
}

/// The value of a sample whose labels contain all of these.
fn sample(page: &str, metric: &str, labels: &[&str]) -> f64 {
    let is_it = |line: &&str| {
        line.starts_with(&format!("{metric}{{")) && labels.iter().all(|label| line.contains(label))
    };
    let found: Vec<&str> = page.lines().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{metric} {labels:?}: {found:?}");
    found[0].rsplit_once("} ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_nodes_api_tells_what_is_used() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        cloud.want(vec![pod()]).await;
        let agent = site.start();
        cloud.until(UID, |_, status| is_ready(status)).await;
        assert_eq!(cloud.ask_node("/healthz").await, "ok");
        summary(&cloud).await;
        metrics(&cloud).await;
        settings_and_pods(&cloud).await;
        cloud.want(vec![]).await;
        agent.stop().await;
        site.clear().await;
    });
}

async fn summary(cloud: &Cloud) {
    let summary: Value = serde_json::from_str(&cloud.ask_node("/stats/summary").await).unwrap();
    let node = &summary["node"];
    assert_eq!(node["nodeName"], "n1");
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value}: {summary:#}"));
    assert!(number(&node["memory"]["workingSetBytes"]) > 0);
    assert!(number(&node["memory"]["availableBytes"]) > 0);
    assert!(number(&node["cpu"]["usageNanoCores"]) > 0);
    assert!(number(&node["fs"]["capacityBytes"]) > number(&node["fs"]["availableBytes"]));
    assert!(number(&node["runtime"]["imageFs"]["usedBytes"]) > 0);
    assert!(number(&node["rlimit"]["curproc"]) > 0);
    let pod = &summary["pods"][0];
    assert_eq!(pod["podRef"], json!({"name": "web", "namespace": "default", "uid": UID}));
    let main = &pod["containers"][0];
    assert_eq!(main["name"], "main");
    let memory = number(&main["memory"]["workingSetBytes"]);
    assert!((8 << 20..64 << 20).contains(&memory), "{memory}");
    let available = number(&main["memory"]["availableBytes"]);
    assert_eq!(available + memory, 64 << 20);
    assert!(number(&main["cpu"]["usageCoreNanoSeconds"]) > 1_000_000);
    let root = number(&main["rootfs"]["usedBytes"]);
    assert!((1 << 20..(1 << 20) + 200_000).contains(&root), "{root}");
    let volume = &pod["volume"][0];
    assert_eq!(volume["name"], "scratch");
    let used = number(&volume["usedBytes"]);
    assert!((2 << 20..(2 << 20) + 100_000).contains(&used), "{used}");
    assert!(number(&pod["ephemeral-storage"]["usedBytes"]) >= root + used);
    assert_eq!(pod["network"]["name"], "eth0");
    assert!(number(&pod["process_stats"]["process_count"]) >= 1);
    let little = cloud.ask_node("/stats/summary?only_cpu_and_memory=true").await;
    let little: Value = serde_json::from_str(&little).unwrap();
    assert!(little["pods"][0].get("volume").is_none());
}

async fn metrics(cloud: &Cloud) {
    let labels = ["container=\"main\"", "namespace=\"default\"", "pod=\"web\""];
    let page = cloud.ask_node("/metrics/resource").await;
    assert!(sample(&page, "container_memory_working_set_bytes", &labels) > 8e6);
    assert!(sample(&page, "container_cpu_usage_seconds_total", &labels) > 0.0);
    assert!(sample(&page, "container_start_time_seconds", &labels) > 1.7e9);
    assert!(sample(&page, "pod_cpu_usage_seconds_total", &["pod=\"web\""]) > 0.0);
    assert!(page.contains("\nresource_scrape_error 0\n"), "{page}");
    let page = cloud.ask_node("/metrics/cadvisor").await;
    let image = [&labels[..], &["image=\"images.test/busybox:1\""]].concat();
    let total = [&image[..], &["cpu=\"total\""]].concat();
    assert!(sample(&page, "container_cpu_usage_seconds_total", &total) > 0.0);
    assert!(sample(&page, "container_memory_working_set_bytes", &image) > 8e6);
    assert!(sample(&page, "container_spec_memory_limit_bytes", &image) == f64::from(64 << 20));
    assert!(sample(&page, "container_fs_usage_bytes", &image) > 1e6);
    let pods = ["pod=\"web\"", "interface=\"eth0\""];
    assert!(sample(&page, "container_network_receive_bytes_total", &pods) >= 0.0);
    assert!(sample(&page, "container_memory_working_set_bytes", &["id=\"/\""]) > 0.0);
    let page = cloud.ask_node("/metrics").await;
    assert!(page.contains("kubelet_node_name{node=\"n1\"} 1\n"), "{page}");
    assert!(page.contains("kubelet_running_pods 1\n"), "{page}");
}

async fn settings_and_pods(cloud: &Cloud) {
    let pods: Value = serde_json::from_str(&cloud.ask_node("/pods").await).unwrap();
    assert_eq!((&pods["kind"], pods["items"].as_array().unwrap().len()), (&json!("PodList"), 1));
    assert_eq!(pods["items"][0]["status"]["phase"], "Running");
    let settings: Value = serde_json::from_str(&cloud.ask_node("/configz").await).unwrap();
    let settings = &settings["kubeletconfig"];
    assert_eq!(settings["evictionHard"]["memory.available"], "100Mi");
    assert_eq!((&settings["maxPods"], &settings["containerLogMaxFiles"]), (&json!(110), &json!(5)));
}
