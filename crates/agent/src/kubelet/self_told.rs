//! `/pods` and `/configz`: which pods the node has, and by which settings it goes.

use std::{path::PathBuf, sync::Arc};

use http::Response;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use toono_http::Body;
use toono_podmachine::pressure::written;
use toono_sandbox::MAX_LOG_FILES;
use toono_wire::usage::{NodeUsage, PodUsage, Usage};

use super::{Refusal, json as answer};
use crate::{
    bundles,
    stats::{Measured, Rate},
    worker::Node,
};

/// All pods of the node, each with its status as the node sees it.
pub(super) async fn pods(node: &Arc<Node>) -> Result<Response<Body>, Refusal> {
    let dirs: Vec<PathBuf> = node.views.all().into_values().map(|view| view.dir).collect();
    let read = tokio::task::spawn_blocking(move || -> Vec<Value> {
        dirs.iter()
            .filter_map(|dir| pod(dir))
            .filter_map(|it| serde_json::to_value(it).ok())
            .collect()
    });
    let items = read.await.map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
}

fn pod(dir: &std::path::Path) -> Option<Pod> {
    let mut pod = bundles::read_pod(dir)?;
    pod.status = bundles::read_status(dir).or(pod.status);
    Some(pod)
}

/// What the cloud asks for when somebody there wants to see it.
pub(super) fn usage(measured: &Measured) -> NodeUsage {
    let of = |rate: Option<Rate>, memory_bytes: u64| Usage {
        nano_cores: rate.map(|rate| rate.nano_cores),
        window_ms: rate
            .map_or(0, |rate| u64::try_from(rate.window.as_millis()).unwrap_or(u64::MAX)),
        memory_bytes,
    };
    let pods = measured.pods.iter().map(|pod| PodUsage {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        containers: pod
            .containers
            .iter()
            .map(|it| (it.name.clone(), of(it.rate, it.usage.working_set_bytes)))
            .collect(),
    });
    NodeUsage { node: of(measured.rate, measured.machine.memory.working_set), pods: pods.collect() }
}

/// Those of the kubelet's settings that this node has, by the kubelet's names.
pub(super) fn configuration(node: &Node) -> Value {
    let rules = node.pressure().rules().clone();
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "cgroupRoot": node.cgroup_parent,
        "cgroupDriver": "cgroupfs",
        "containerLogMaxFiles": MAX_LOG_FILES,
        "containerLogMaxSize": "10Mi",
        "evictionHard": rules.hard.texts(),
        "evictionMaxPodGracePeriod": rules.soft.pod_grace.as_secs(),
        "evictionPressureTransitionPeriod": written(rules.transition),
        "evictionSoft": rules.soft.thresholds().texts(),
        "evictionSoftGracePeriod": rules.soft.grace_periods().texts(),
        "imageGCHighThresholdPercent": 85,
        "imageGCLowThresholdPercent": 80,
        "maxPods": node.max_pods,
        "staticPodPath": node.manifests,
    }})
}
