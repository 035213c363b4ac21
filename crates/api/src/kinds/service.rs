//! The row of Services, and what Services are given besides what clients say. Addresses and node
//! ports are allocated by the server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{ROW, SPEC_AND_STATUS, map_in, maps_in, proxy, service_rules, set_default, status_of};
use crate::{
    meta::{at, text_at},
    names,
    print::core as print,
    resource::{BuiltIn, Strategy},
};

/// Services.
pub static SERVICE: BuiltIn = BuiltIn {
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[proxy("ServiceProxyOptions"), status_of("", "v1", "Service")],
    strategy: Strategy {
        counts_generation: false,
        returns_deleted: true,
        name_rule: names::dns_label_1035,
        initial_status: |_| json!({"loadBalancer": {}}),
        ..SPEC_AND_STATUS
    },
    columns: print::SERVICE,
    row: print::service_row,
    message: "core.Service",
    default: defaults,
    validate: service_rules::rules,
    validate_update: service_rules::update_rules,
    field_selectors: &["spec.clusterIP", "spec.type"],
    ..ROW
};

/// How long a client stays with one backend unless the Service says otherwise.
const AFFINITY_SECONDS: i64 = 10_800;

/// What a Service says of itself that decides over addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressing {
    /// It has an address of the cluster's range.
    pub cluster_ip: bool,
    /// Its ports have ports on nodes.
    pub node_ports: bool,
}

/// What a Service needs of the allocators.
#[must_use]
pub fn addressing(service: &Value) -> Addressing {
    let kind = text_at(service, &["spec", "type"]).unwrap_or("ClusterIP");
    let headless = text_at(service, &["spec", "clusterIP"]) == Some("None");
    let asks = at(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false));
    Addressing {
        cluster_ip: kind != "ExternalName" && !headless,
        node_ports: kind == "NodePort" || kind == "LoadBalancer" && asks,
    }
}

fn defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "type", "ClusterIP");
    set_default(spec, "sessionAffinity", "None");
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    match spec.get("sessionAffinity").and_then(Value::as_str) {
        Some("ClientIP") => {
            let config = spec.entry("sessionAffinityConfig").or_insert_with(|| json!({}));
            if let Some(client) = map_in(config, "clientIP") {
                set_default(client, "timeoutSeconds", AFFINITY_SECONDS);
            }
        }
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        _ => {}
    }
    for port in maps_in(spec, "ports") {
        set_default(port, "protocol", "TCP");
        let unset = matches!(port.get("targetPort"), None | Some(Value::Null))
            || port.get("targetPort") == Some(&json!(0))
            || port.get("targetPort") == Some(&json!(""));
        if let Some(number) = port.get("port").cloned().filter(|_| unset) {
            port.insert("targetPort".to_owned(), number);
        }
        if port.get("nodePort") == Some(&json!(0)) {
            port.remove("nodePort");
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_default(spec, "internalTrafficPolicy", "Cluster");
        families(spec);
    }
}

/// One family, IPv4; a headless Service without selector may have addresses of both.
fn families(spec: &mut Map<String, Value>) {
    let headless = spec.get("clusterIP").and_then(Value::as_str) == Some("None");
    let selects = spec
        .get("selector")
        .and_then(Value::as_object)
        .is_some_and(|selector| !selector.is_empty());
    if let Some(first) = spec.get("clusterIPs").and_then(|all| all.get(0)).cloned() {
        let none_given = spec.get("clusterIP").and_then(Value::as_str).is_none_or(str::is_empty);
        if none_given {
            spec.insert("clusterIP".to_owned(), first);
        }
    } else if let Some(address) =
        spec.get("clusterIP").cloned().filter(|address| address.as_str() != Some(""))
    {
        spec.insert("clusterIPs".to_owned(), json!([address]));
    }
    if headless && !selects {
        set_default(spec, "ipFamilyPolicy", "RequireDualStack");
        let single = spec.get("ipFamilyPolicy") == Some(&json!("SingleStack"));
        set_default(
            spec,
            "ipFamilies",
            if single { json!(["IPv4"]) } else { json!(["IPv4", "IPv6"]) },
        );
    } else {
        set_default(spec, "ipFamilyPolicy", "SingleStack");
        set_default(spec, "ipFamilies", json!(["IPv4"]));
    }
}

/// What a changed Service keeps of the old one although the client did not say it, and what it loses
/// because its new type has no use for it.
pub fn carry_over(new: &mut Value, old: &Value) {
    let (now, before) = (addressing(new), addressing(old));
    let empty = Map::new();
    let old_spec = old.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    let kind = text_at(new, &["spec", "type"]).unwrap_or_default().to_owned();
    let old_kind = old_spec.get("type").and_then(Value::as_str).unwrap_or_default();
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let said = |spec: &Map<String, Value>, field: &str| {
        spec.get(field).is_some_and(|value| value != "" && !value.is_null())
    };
    if now.cluster_ip && before.cluster_ip && !said(spec, "clusterIP") {
        for field in ["clusterIP", "clusterIPs"] {
            keep(spec, old_spec, field);
        }
    }
    if now.node_ports && before.node_ports {
        keep_node_ports(spec, old_spec);
    }
    if kind == "LoadBalancer" && old_kind == "LoadBalancer" {
        let asked = spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0);
        if asked == 0 && old_spec.contains_key("healthCheckNodePort") {
            keep(spec, old_spec, "healthCheckNodePort");
        }
    }
    // A field that only the old type needed falls away, if the client did not change it.
    let lost: &[&str] = match kind.as_str() {
        "ExternalName" => {
            &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
        }
        _ => &[],
    };
    drop_unchanged(spec, old_spec, lost);
    if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        drop_unchanged(spec, old_spec, &["externalTrafficPolicy"]);
        if before.node_ports {
            drop_node_ports(spec, old_spec);
        }
    }
    if kind != "LoadBalancer" {
        let fields = ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"];
        drop_unchanged(spec, old_spec, &fields);
    }
}

fn keep(spec: &mut Map<String, Value>, old: &Map<String, Value>, field: &str) {
    match old.get(field) {
        Some(value) => spec.insert(field.to_owned(), value.clone()),
        None => spec.remove(field),
    };
}

fn drop_unchanged(spec: &mut Map<String, Value>, old: &Map<String, Value>, fields: &[&str]) {
    for field in fields {
        if spec.get(*field) == old.get(*field) {
            spec.remove(*field);
        }
    }
}

fn ports(spec: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    spec.get("ports").and_then(Value::as_array).into_iter().flatten()
}

/// A port that names no node port keeps the one that it had, found by port and protocol.
fn keep_node_ports(spec: &mut Map<String, Value>, old: &Map<String, Value>) {
    let mut had = BTreeMap::new();
    for port in ports(old).filter_map(Value::as_object) {
        had.entry(port_and_protocol(port)).or_insert(port.get("nodePort"));
    }
    for port in maps_in(spec, "ports") {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            continue;
        }
        if let Some(Some(number)) = had.get(&port_and_protocol(port)) {
            port.insert("nodePort".to_owned(), (*number).clone());
        }
    }
}

fn port_and_protocol(port: &Map<String, Value>) -> (Option<i64>, Option<&str>) {
    let number = port.get("port").and_then(Value::as_i64);
    (number, port.get("protocol").and_then(Value::as_str))
}

fn node_port(port: &Map<String, Value>) -> Option<i64> {
    port.get("nodePort").and_then(Value::as_i64)
}

fn drop_node_ports(spec: &mut Map<String, Value>, old: &Map<String, Value>) {
    let had: BTreeSet<i64> =
        ports(old).filter_map(Value::as_object).filter_map(node_port).collect();
    for port in maps_in(spec, "ports") {
        if node_port(port).is_some_and(|number| had.contains(&number)) {
            port.remove("nodePort");
        }
    }
}
