//! Whether a pod that is new on this node may run here, in the kubelet's words where not.
//!
//! The scheduler has looked already, at what the cloud knew then. Pods that have begun to run are not asked
//! again.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use toono_api::Quantity;
use toono_podmachine::{Moment, pressure::Newcomer, qos_class};

use crate::{statics, worker::Node};

/// The taint of a node whose memory runs short.
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// What a pod asks for: thousandths of a core, and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    pub(crate) storage: i64,
}

/// Why a pod does not run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The pods that are here, and what each asks for.
#[derive(Debug, Default)]
pub(crate) struct Booked(BTreeMap<String, Amounts>);

/// Why a pod does not run here whose ports of the node another one has.
pub(crate) fn ports_taken() -> Refused {
    let message =
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    Refused { reason: "NodePorts".to_owned(), message: message.to_owned() }
}

impl Booked {
    pub(crate) fn add(&mut self, uid: &str, pod: &Pod) {
        self.0.insert(uid.to_owned(), Amounts::of(pod));
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// Whether a pod fits beside the others that have not ended.
    pub(crate) fn admit(&self, node: &Node, pod: &Pod, now: Moment) -> Result<(), Refused> {
        let pressure = node.pressure().admit(&newcomer(pod), now.elapsed);
        pressure.map_err(|message| Refused { reason: "Evicted".to_owned(), message })?;
        let over = node.views.over();
        self.fits(&over, pod, node.room(), i64::from(node.max_pods))
    }

    fn fits(
        &self,
        over: &BTreeSet<String>,
        pod: &Pod,
        room: Amounts,
        max_pods: i64,
    ) -> Result<(), Refused> {
        let active = || self.0.iter().filter(|(uid, _)| !over.contains(*uid)).map(|(_, it)| it);
        let count = i64::try_from(active().count()).unwrap_or(i64::MAX);
        let used = active().fold(Amounts::default(), |sum, it| sum.plus(*it));
        let wanted = Amounts::of(pod);
        for (resource, requested, used, capacity) in [
            ("pods", 1, count, max_pods),
            ("cpu", wanted.cpu, used.cpu, room.cpu),
            ("memory", wanted.memory, used.memory, room.memory),
            ("ephemeral-storage", wanted.storage, used.storage, room.storage),
        ] {
            if requested > 0 && requested > capacity.saturating_sub(used) {
                let message = format!(
                    "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
                );
                return Err(Refused { reason: format!("OutOf{resource}"), message });
            }
        }
        Ok(())
    }
}

impl Amounts {
    /// As the scheduler counts: the containers that run together, or the init container that takes most with the
    /// sidecars that are there by then.
    pub(crate) fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut together = Self::default();
        let mut most = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let own = Self::of_container(container);
            let with = together.plus(own);
            if container.restart_policy.as_deref() == Some("Always") {
                together = with;
            }
            most = most.max(with);
        }
        let all = spec.containers.iter().map(Self::of_container).fold(together, Self::plus);
        all.max(most).plus(overhead(spec))
    }

    pub(crate) fn of_container(container: &Container) -> Self {
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|it| it.requests.as_ref());
        let limits = resources.and_then(|it| it.limits.as_ref());
        // A limit without a request is the request too.
        let find = |name: &str| amount(requests, name).or_else(|| amount(limits, name));
        Self {
            cpu: find("cpu").map_or(0, Quantity::millis),
            memory: find("memory").map_or(0, Quantity::units),
            storage: find("ephemeral-storage").map_or(0, Quantity::units),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            storage: self.storage.saturating_add(other.storage),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
            storage: self.storage.max(other.storage),
        }
    }
}

fn overhead(spec: &PodSpec) -> Amounts {
    let of = |name: &str| amount(spec.overhead.as_ref(), name);
    Amounts {
        cpu: of("cpu").map_or(0, Quantity::millis),
        memory: of("memory").map_or(0, Quantity::units),
        storage: of("ephemeral-storage").map_or(0, Quantity::units),
    }
}

pub(crate) fn amount(list: Option<&BTreeMap<String, Text>>, name: &str) -> Option<Quantity> {
    list?.get(name)?.0.parse().ok()
}

fn newcomer(pod: &Pod) -> Newcomer {
    let spec = pod.spec.as_ref();
    let tolerates =
        spec.and_then(|spec| spec.tolerations.as_ref()).into_iter().flatten().any(|it| {
            let is_key =
                it.key.as_deref().is_none_or(|key| key.is_empty() || key == MEMORY_PRESSURE);
            let exists = it.operator.as_deref() == Some("Exists");
            let is_value = it.value.as_deref().is_none_or(str::is_empty) && it.key.is_some();
            let is_effect = matches!(it.effect.as_deref(), None | Some("" | "NoSchedule"));
            is_key && is_effect && (exists || is_value)
        });
    Newcomer {
        priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
        is_static: statics::is_static(pod),
        is_best_effort: spec.is_some_and(|spec| qos_class(spec) == "BestEffort"),
        tolerates_memory_pressure: tolerates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn asking(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}})
    }

    #[test]
    fn a_pod_asks_for_what_runs_together_or_for_the_greatest_beginning() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"limits": {"cpu": "100m"}}});
        let plain = pod(
            json!({"containers": [asking("200m"), asking("300m")], "overhead": {"cpu": "50m"}}),
        );
        assert_eq!(Amounts::of(&plain), Amounts { cpu: 550, memory: 2 << 20, storage: 0 });
        let helped = pod(
            json!({"initContainers": [sidecar, asking("700m")], "containers": [asking("200m")]}),
        );
        assert_eq!(Amounts::of(&helped).cpu, 800, "the sidecar with the second one");
        let late = pod(
            json!({"initContainers": [asking("700m"), sidecar], "containers": [asking("200m")]}),
        );
        assert_eq!(Amounts::of(&late).cpu, 700);
    }

    #[test]
    fn what_does_not_fit_is_refused_in_the_kubelets_words() {
        let mut booked = Booked::default();
        booked.add("a", &pod(json!({"containers": [asking("1500m")]})));
        let room = Amounts { cpu: 2000, memory: 1 << 30, storage: 1 << 30 };
        let over = BTreeSet::new();
        let small = pod(json!({"containers": [asking("500m")]}));
        assert_eq!(booked.fits(&over, &small, room, 110), Ok(()));
        let large = pod(json!({"containers": [asking("501m")]}));
        let refused = booked.fits(&over, &large, room, 110).unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
        );
        assert_eq!(booked.fits(&over, &small, room, 1).unwrap_err().reason, "OutOfpods");
        let over = BTreeSet::from(["a".to_owned()]);
        assert_eq!(
            booked.fits(&over, &large, room, 1),
            Ok(()),
            "a pod that has ended takes nothing"
        );
    }

    #[test]
    fn tolerations_of_memory_pressure_are_seen() {
        let tolerates = |toleration: Value| {
            let pod = pod(json!({"containers": [{"name": "c"}], "tolerations": [toleration]}));
            newcomer(&pod).tolerates_memory_pressure
        };
        assert!(tolerates(json!({"operator": "Exists"})));
        assert!(tolerates(
            json!({"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"})
        ));
        assert!(tolerates(json!({"key": MEMORY_PRESSURE})));
        assert!(!tolerates(
            json!({"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoExecute"})
        ));
        assert!(!tolerates(json!({"key": "other", "operator": "Exists"})));
    }
}
