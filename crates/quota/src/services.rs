//! What a Service uses: node ports and load balancers.

use serde_json::Value;
use toono_api::Quantity;

use crate::{
    Amounts,
    usage::{at, items, text},
};

const NODE_PORTS: &str = "services.nodeports";
const LOAD_BALANCERS: &str = "services.loadbalancers";

pub(crate) fn counts(resource: &str) -> bool {
    matches!(resource, NODE_PORTS | LOAD_BALANCERS)
}

pub(crate) fn usage(service: &Value) -> Amounts {
    let number = |count: usize| {
        Quantity::from_millis(i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(1000))
    };
    let ports = || items(service, &["spec", "ports"]);
    // The ports may not be assigned yet, so what counts is the intent.
    let (node_ports, balancers) = match text(service, &["spec", "type"]) {
        Some("NodePort") => (ports().count(), 0),
        Some("LoadBalancer") => {
            let allocates = at(service, &["spec", "allocateLoadBalancerNodePorts"]);
            let explicit = |port: &&Value| port.get("nodePort").and_then(Value::as_i64) > Some(0);
            match allocates.and_then(Value::as_bool) {
                Some(false) => (ports().filter(explicit).count(), 1),
                _ => (ports().count(), 1),
            }
        }
        _ => (0, 0),
    };
    let mut used = Amounts::default();
    used.set(NODE_PORTS, number(node_ports));
    used.set(LOAD_BALANCERS, number(balancers));
    used
}
