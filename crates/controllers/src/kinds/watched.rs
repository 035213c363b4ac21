//! A pod as watches bring it, by what the caches and placement read of it. The rest of its JSON,
//! most of it, is passed over and not decoded. It is never written.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        self as core, ContainerPort, NodeAffinity, PodAffinity, PodAntiAffinity, PodIP,
        PodSchedulingGate, ResourceRequirements, Toleration, TopologySpreadConstraint,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use serde::Deserialize;

use super::{kind, lean_metadata};

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchedPod {
    #[serde(deserialize_with = "lean_metadata")]
    pub(crate) metadata: ObjectMeta,
    pub(super) spec: Option<Spec>,
    pub(super) status: Option<Status>,
}
kind!(WatchedPod, NamespaceResourceScope, "", "v1", "Pod", "pods");

/// What a pod asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    affinity: Option<Affinity>,
    containers: Option<Vec<Container>>,
    hostname: Option<String>,
    init_containers: Option<Vec<Container>>,
    node_name: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    overhead: Option<BTreeMap<String, Quantity>>,
    preemption_policy: Option<String>,
    priority: Option<i32>,
    scheduler_name: Option<String>,
    scheduling_gates: Option<Vec<PodSchedulingGate>>,
    subdomain: Option<String>,
    tolerations: Option<Vec<Toleration>>,
    topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
}

/// Where it asks to be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
    pod_affinity: Option<PodAffinity>,
    pod_anti_affinity: Option<PodAntiAffinity>,
}

/// A container that it asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: Option<String>,
    image: Option<String>,
    ports: Option<Vec<ContainerPort>>,
    resources: Option<ResourceRequirements>,
    restart_policy: Option<String>,
}

/// What a pod reports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Option<Vec<PodIP>>,
    pub(super) conditions: Option<Vec<Condition>>,
    pub(super) container_statuses: Option<Vec<ContainerStatus>>,
    pub(super) init_container_statuses: Option<Vec<ContainerStatus>>,
}

/// A condition that it reports.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) status: String,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    pub(super) last_transition_time: Option<Time>,
}

/// What it reports of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    pub(super) ready: bool,
    pub(super) restart_count: i32,
    pub(super) state: Option<State>,
}

/// A container's state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) terminated: Option<Terminated>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Terminated {
    pub(super) exit_code: i32,
    pub(super) finished_at: Option<Time>,
}

impl From<Spec> for core::PodSpec {
    fn from(spec: Spec) -> Self {
        let all = |containers: Vec<Container>| containers.into_iter().map(Into::into).collect();
        Self {
            affinity: spec.affinity.map(|affinity| core::Affinity {
                node_affinity: affinity.node_affinity,
                pod_affinity: affinity.pod_affinity,
                pod_anti_affinity: affinity.pod_anti_affinity,
            }),
            containers: spec.containers.map(all).unwrap_or_default(),
            hostname: spec.hostname,
            init_containers: spec.init_containers.map(all),
            node_name: spec.node_name,
            node_selector: spec.node_selector,
            overhead: spec.overhead,
            preemption_policy: spec.preemption_policy,
            priority: spec.priority,
            scheduler_name: spec.scheduler_name,
            scheduling_gates: spec.scheduling_gates,
            subdomain: spec.subdomain,
            tolerations: spec.tolerations,
            topology_spread_constraints: spec.topology_spread_constraints,
            ..Self::default()
        }
    }
}

impl From<Container> for core::Container {
    fn from(container: Container) -> Self {
        Self {
            name: container.name.unwrap_or_default(),
            image: container.image,
            ports: container.ports,
            resources: container.resources,
            restart_policy: container.restart_policy,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toono_placement::PodView;

    use crate::kinds::pod::cached;

    #[test]
    fn placement_learns_the_same_as_from_the_whole_pod() {
        let term = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}],
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]});
        let container = json!({"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}],
            "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}],
            "resources": {"requests": {"cpu": "50m", "example.com/gpu": "1"}}});
        let mut sidecar = container.clone();
        sidecar["restartPolicy"] = "Always".into();
        sidecar["ports"][0]["hostPort"] = 9090.into();
        let whole: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "a", "v": "1"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r",
                    "uid": "owner", "controller": true}]},
            "spec": {"nodeName": "n", "priority": 7, "preemptionPolicy": "Never", "containers": [container],
                "initContainers": [sidecar], "overhead": {"memory": "16Mi"},
                "nodeSelector": {"zone": "z"},
                "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 5}],
                "affinity": {"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
                    "preferredDuringSchedulingIgnoredDuringExecution":
                        [{"weight": 3, "preference": term}]},
                    "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
                        [{"weight": 4, "podAffinityTerm": {"topologyKey": "zone",
                            "namespaceSelector": {}, "labelSelector": {}}}]},
                    "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                        [{"topologyKey": "zone", "matchLabelKeys": ["v"],
                            "labelSelector": {"matchLabels": {"app": "a"}}}]}},
                "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1,
                    "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["v"],
                    "labelSelector": {"matchLabels": {"app": "a"}}}]},
            "status": {"phase": "Running"}}))
        .unwrap();
        assert_eq!(cached(&whole).placement(), PodView::from_pod(&whole));
    }
}
