//! Rules of Services.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::{
    checks::{self, Errors},
    field::At,
};
use crate::{FieldError, names};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const EXTERNAL_POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const NOT_EXTERNAL_NAME: &str = "may not be set for ExternalName services";
/// Longest time that a client stays with one backend.
const AFFINITY_MAX_SECONDS: i64 = 86_400;
/// The port of a node's own server, which a load balancer must not hide.
const NODE_SERVER_PORT: i64 = 10_250;

/// Rules of a Service.
pub(super) fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let kind = spec.get("type");
    checks::required_choice(kind, TYPES, &mut errors);
    let headless = spec.get("clusterIP").text() == "None";
    if spec.get("ports").len() == 0 && !headless && kind.text() != "ExternalName" {
        errors.push(spec.get("ports").required(""));
    }
    by_type(spec, kind.text(), headless, &mut errors);
    ports(spec, kind.text(), &mut errors);
    checks::labels(spec.get("selector"), &mut errors);
    affinity(spec, &mut errors);
    for address in spec.each("externalIPs") {
        checks::ip_address(address, &mut errors);
    }
    traffic(spec, kind.text(), &mut errors);
    let ranges = spec.get("loadBalancerSourceRanges");
    if ranges.len() > 0 && kind.text() != "LoadBalancer" {
        let why = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden("spec.LoadBalancerSourceRanges", why));
    }
    for range in spec.each("loadBalancerSourceRanges") {
        checks::cidr(range, &mut errors);
    }
    let class = spec.get("loadBalancerClass");
    if class.is_set() {
        if kind.text() != "LoadBalancer" {
            errors.push(class.forbidden("may only be used when `type` is 'LoadBalancer'"));
        }
        checks::named(class, names::qualified_name, &mut errors);
    }
    let asks = spec.get("allocateLoadBalancerNodePorts");
    if asks.is_set() && kind.text() != "LoadBalancer" {
        errors.push(asks.forbidden("may only be used when `type` is 'LoadBalancer'"));
    }
    addresses(spec, kind.text(), &mut errors);
    errors
}

fn by_type(spec: At<'_, '_>, kind: &str, headless: bool, errors: &mut Errors) {
    match kind {
        "LoadBalancer" => {
            for port in spec.each("ports") {
                if port.get("port").number() == Some(NODE_SERVER_PORT) {
                    errors.push(port.invalid(&format!(
                        "may not expose port {NODE_SERVER_PORT} externally since it is used by kubelet"
                    )));
                }
            }
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.get(field).is_set() {
                    errors.push(spec.get(field).forbidden(NOT_EXTERNAL_NAME));
                }
            }
            let name = spec.get("externalName");
            match name.text().strip_suffix('.').unwrap_or(name.text()) {
                "" => errors.push(name.required("")),
                text => errors.extend(
                    names::dns_subdomain(text).iter().map(|why| name.invalid_text(text, why)),
                ),
            }
        }
        _ => {}
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let why = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid_text("spec.clusterIPs[0]", "None", &why));
    }
}

fn ports(spec: At<'_, '_>, kind: &str, errors: &mut Errors) {
    let named = spec.get("ports").len() > 1;
    let (mut seen_names, mut seen_ports, mut seen_node_ports) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for port in spec.each("ports") {
        let (name, number, protocol) = (port.get("name"), port.get("port"), port.get("protocol"));
        if name.text().is_empty() {
            if named {
                errors.push(name.required(""));
            }
        } else {
            checks::named(name, names::dns_label, errors);
            checks::unique(name, &mut seen_names, errors);
        }
        if number.number().is_none_or(|number| !(1..=65535).contains(&number)) {
            let value = json!(number.number().unwrap_or(0));
            errors.push(number.invalid_value(&value, checks::PORT_RANGE));
        }
        checks::required_choice(protocol, PROTOCOLS, errors);
        checks::port(port.get("targetPort"), errors);
        if !port.get("appProtocol").text().is_empty() {
            checks::named(port.get("appProtocol"), names::qualified_name, errors);
        }
        if !seen_ports.insert((number.number(), protocol.text())) {
            let what = json!({"port": number.value, "protocol": protocol.value, "targetPort": 0});
            errors.push(FieldError {
                reason: crate::error::FieldReason::Duplicate,
                field: port.path(),
                message: format!("Duplicate value: {what}"),
            });
        }
        let node_port = port.get("nodePort");
        let Some(on_node) = node_port.number().filter(|number| *number != 0) else { continue };
        if matches!(kind, "ClusterIP" | "ExternalName") {
            errors.push(node_port.forbidden(&format!("may not be used when `type` is '{kind}'")));
        }
        if !seen_node_ports.insert((on_node, protocol.text())) {
            errors.push(node_port.duplicate());
        }
    }
}

fn affinity(spec: At<'_, '_>, errors: &mut Errors) {
    let affinity = spec.get("sessionAffinity");
    checks::required_choice(affinity, AFFINITIES, errors);
    let config = spec.get("sessionAffinityConfig");
    if affinity.text() == "None" && config.is_set() {
        errors.push(config.forbidden("must not be set when session affinity is None"));
    }
    if affinity.text() == "ClientIP" {
        let client = config.get("clientIP");
        let seconds = client.get("timeoutSeconds");
        if seconds.number().is_none_or(|seconds| !(1..=AFFINITY_MAX_SECONDS).contains(&seconds)) {
            errors.push(seconds.invalid("must be greater than 0 and less than 86400"));
        }
    }
}

fn traffic(spec: At<'_, '_>, kind: &str, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    let reachable = matches!(kind, "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && spec.get("externalIPs").len() > 0;
    if external.is_set() && !external.text().is_empty() {
        if reachable {
            checks::choice(external, EXTERNAL_POLICIES, errors);
        } else {
            errors.push(external.invalid("may only be set for externally-accessible services"));
        }
    }
    checks::choice(spec.get("internalTrafficPolicy"), EXTERNAL_POLICIES, errors);
    let health = spec.get("healthCheckNodePort");
    if health.number().is_some_and(|port| port != 0)
        && (kind != "LoadBalancer" || external.text() != "Local")
    {
        let why =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(health.invalid(why));
    }
}

fn addresses(spec: At<'_, '_>, kind: &str, errors: &mut Errors) {
    if kind == "ExternalName" {
        return;
    }
    checks::choice(spec.get("ipFamilyPolicy"), FAMILY_POLICIES, errors);
    for family in spec.each("ipFamilies") {
        if !FAMILIES.contains(&family.text()) {
            errors.push(family.unsupported(FAMILIES));
        }
    }
    let (first, all) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let listed = spec.each("clusterIPs").next().map(|address| address.text());
    match listed {
        Some(listed) if !first.text().is_empty() && listed != first.text() => {
            errors.push(all.invalid("first value must match `clusterIP`"));
        }
        Some(_) if first.text().is_empty() => {
            errors.push(all.invalid("must be empty when `clusterIP` is not specified"));
        }
        _ => {}
    }
    if all.len() > 2 {
        errors.push(all.invalid("may only hold up to 2 values"));
    }
    for address in spec.each("clusterIPs") {
        if address.text() == "None" && all.len() > 1 {
            errors.push(all.invalid("'None' must be the first and only value"));
        }
        if address.text() != "None" && address.text().parse::<IpAddr>().is_err() {
            errors.push(
                address.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            );
        }
    }
}

/// What may not change of a Service. What a client leaves out was carried over before.
pub(super) fn update_rules(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    let (new, old) = (new.get("spec"), old.get("spec"));
    let named = |spec: At<'_, '_>| spec.get("type").text() == "ExternalName";
    let before = old.get("clusterIP").text();
    if !named(new) && !named(old) && !before.is_empty() && new.get("clusterIP").text() != before {
        let all = json!([new.get("clusterIP").text()]);
        let value = if new.get("clusterIPs").is_set() { new.get("clusterIPs").value } else { &all };
        errors.push(FieldError::invalid("spec.clusterIPs[0]", value, "may not change once set"));
    }
    let balanced = |spec: At<'_, '_>| spec.get("type").text() == "LoadBalancer";
    if balanced(new)
        && balanced(old)
        && new.get("loadBalancerClass").value != old.get("loadBalancerClass").value
    {
        errors.push(new.get("loadBalancerClass").invalid("may not change once set"));
    }
    errors
}
