//! A pod's quality-of-service class, for pods that the API server has not classed.

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use std::collections::BTreeMap;
use toono_api::quantity::Quantity;

/// A pod's class. As <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/> has it: `Guaranteed` when each
/// container limits cpu and memory and requests no less, `BestEffort` when none asks for anything.
#[must_use]
pub fn class(spec: &PodSpec) -> &'static str {
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    if containers().all(asks_nothing) {
        "BestEffort"
    } else if containers().all(is_guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

fn asks_nothing(container: &Container) -> bool {
    let Some(resources) = &container.resources else { return true };
    COMPUTE.iter().all(|name| {
        amount(&resources.requests, name).is_none() && amount(&resources.limits, name).is_none()
    })
}

fn is_guaranteed(container: &Container) -> bool {
    let Some(resources) = &container.resources else { return false };
    COMPUTE.iter().all(|name| {
        // A limit without a request is the request too.
        let Some(limit) = amount(&resources.limits, name) else { return false };
        amount(&resources.requests, name).is_none_or(|request| request == limit)
    })
}

/// None for zero as well: asking for nothing is not asking.
fn amount(list: &Option<BTreeMap<String, Text>>, name: &str) -> Option<Quantity> {
    let quantity: Quantity = list.as_ref()?.get(name)?.0.parse().ok()?;
    (quantity != Quantity::from_millis(0)).then_some(quantity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for (resources, expected) in [
            (serde_json::json!({}), "BestEffort"),
            (serde_json::json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (serde_json::json!({"requests": {"cpu": "100m"}}), "Burstable"),
            (serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"},
                    "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (
                serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"},
                    "requests": {"cpu": "500m"}}),
                "Burstable",
            ),
        ] {
            let spec = serde_json::json!({"containers": [{"name": "a", "resources": resources}]});
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(class(&spec), expected, "{resources}");
        }
    }
}
