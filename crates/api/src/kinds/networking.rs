//! The rows of `networking.k8s.io` other than Ingresses' rules.

use serde_json::{Value, json};

use super::{
    ROW, SPEC_AND_STATUS,
    checks::{self, Errors},
    field::At,
    ingress, map_in, maps_in, set_default, status_of,
};
use crate::{
    names,
    print::networking as print,
    resource::{BuiltIn, Strategy},
};

const GROUP: &str = "networking.k8s.io";
const NETWORKING: BuiltIn =
    BuiltIn { group: GROUP, strategy: Strategy { counts_generation: true, ..super::DATA }, ..ROW };

/// Ingresses.
pub static INGRESS: BuiltIn = BuiltIn {
    kind: "Ingress",
    list_kind: "IngressList",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    subresources: &[status_of(GROUP, "v1", "Ingress")],
    strategy: Strategy { initial_status: |_| json!({"loadBalancer": {}}), ..SPEC_AND_STATUS },
    columns: print::INGRESS,
    row: print::ingress_row,
    message: "networking.Ingress",
    default: |object| {
        map_in(object, "spec");
    },
    validate: ingress::rules,
    ..NETWORKING
};

/// IngressClasses.
pub static INGRESS_CLASS: BuiltIn = BuiltIn {
    kind: "IngressClass",
    list_kind: "IngressClassList",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    columns: print::INGRESS_CLASS,
    row: print::ingress_class_row,
    message: "networking.IngressClass",
    default: |object| {
        let Some(spec) = map_in(object, "spec") else { return };
        if let Some(parameters) = spec.get_mut("parameters").and_then(Value::as_object_mut) {
            set_default(parameters, "scope", "Cluster");
        }
    },
    validate: ingress::class_rules,
    validate_update: ingress::class_update,
    ..NETWORKING
};

/// NetworkPolicies.
pub static NETWORK_POLICY: BuiltIn = BuiltIn {
    kind: "NetworkPolicy",
    list_kind: "NetworkPolicyList",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    columns: print::NETWORK_POLICY,
    row: print::network_policy_row,
    message: "networking.NetworkPolicy",
    default: network_policy_defaults,
    validate: network_policy_rules,
    ..NETWORKING
};

/// IPAddresses.
pub static IP_ADDRESS: BuiltIn = BuiltIn {
    kind: "IPAddress",
    list_kind: "IPAddressList",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    strategy: Strategy { name_rule: names::ip_address, ..super::DATA },
    columns: print::IP_ADDRESS,
    row: print::ip_address_row,
    message: "networking.IPAddress",
    validate: ip_address_rules,
    validate_update: |new, old| {
        let mut errors = Errors::new();
        let (new, old) = (At::root(new), At::root(old));
        let (new, old) = (new.get("spec"), old.get("spec"));
        checks::unchanged(new.get("parentRef"), old.get("parentRef").value, &mut errors);
        errors
    },
    ..NETWORKING
};

/// ServiceCIDRs.
pub static SERVICE_CIDR: BuiltIn = BuiltIn {
    kind: "ServiceCIDR",
    list_kind: "ServiceCIDRList",
    plural: "servicecidrs",
    singular: "servicecidr",
    namespaced: false,
    subresources: &[status_of(GROUP, "v1", "ServiceCIDR")],
    strategy: SPEC_AND_STATUS,
    columns: print::SERVICE_CIDR,
    row: print::service_cidr_row,
    message: "networking.ServiceCIDR",
    validate: service_cidr_rules,
    validate_update: |new, old| {
        let mut errors = Errors::new();
        let (new, old) = (At::root(new), At::root(old));
        let (new, old) = (new.get("spec"), old.get("spec"));
        checks::unchanged(new.get("cidrs"), old.get("cidrs").value, &mut errors);
        errors
    },
    ..NETWORKING
};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const POLICY_TYPES: &[&str] = &["Egress", "Ingress"];

fn network_policy_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    let no_types = spec.get("policyTypes").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if no_types {
        let egress =
            spec.get("egress").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
    set_default(spec, "podSelector", json!({}));
    for list in ["ingress", "egress"] {
        for rule in maps_in(spec, list) {
            maps_in(rule, "ports").for_each(|port| set_default(port, "protocol", "TCP"));
        }
    }
}

fn network_policy_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    checks::label_selector(spec.get("podSelector"), &mut errors);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.each(list) {
            rule.each("ports").for_each(|port| policy_port(port, &mut errors));
            rule.each(peers).for_each(|peer| policy_peer(peer, &mut errors));
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > POLICY_TYPES.len() {
        errors.push(types.invalid("may not specify more than two policyTypes"));
    } else {
        for kind in spec.each("policyTypes") {
            if !POLICY_TYPES.contains(&kind.text()) {
                errors.push(kind.unsupported(POLICY_TYPES));
            }
        }
    }
    errors
}

fn policy_port(port: At<'_, '_>, errors: &mut Errors) {
    checks::choice(port.get("protocol"), PROTOCOLS, errors);
    let (number, end) = (port.get("port"), port.get("endPort"));
    checks::port(number, errors);
    let Some(last) = end.number() else { return };
    match number.value {
        Value::Number(_) => {
            if number.number().is_some_and(|first| last < first) {
                errors.push(end.invalid("must be greater than or equal to `port`"));
            }
            checks::between(end, 1, 65535, errors);
        }
        Value::String(_) => {
            errors.push(end.invalid("may not be specified when `port` is non-numeric"));
        }
        _ => errors.push(end.required("may not be specified when `port` is not specified")),
    }
}

fn policy_peer(peer: At<'_, '_>, errors: &mut Errors) {
    let given = ["podSelector", "namespaceSelector", "ipBlock"]
        .iter()
        .filter(|field| peer.get(field).is_set())
        .count();
    if given == 0 {
        errors.push(peer.required("must specify a peer"));
    }
    if given > 1 && peer.get("ipBlock").is_set() {
        errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
    }
    checks::label_selector(peer.get("podSelector"), errors);
    checks::label_selector(peer.get("namespaceSelector"), errors);
    let block = peer.get("ipBlock");
    if !block.is_set() || !checks::required(block.get("cidr"), errors) {
        return;
    }
    checks::cidr(block.get("cidr"), errors);
    for except in block.each("except") {
        checks::cidr(except, errors);
        let (Some(outer), Some(inner)) =
            (checks::split_cidr(block.get("cidr").text()), checks::split_cidr(except.text()))
        else {
            continue;
        };
        if inner.1 <= outer.1 || !checks::contains(outer, inner.0) {
            errors.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
}

fn ip_address_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let parent = spec.get("parentRef");
    if !parent.is_set() {
        return vec![parent.required("")];
    }
    if !parent.get("group").text().is_empty() {
        checks::named(parent.get("group"), names::dns_subdomain, &mut errors);
    }
    checks::required_name(parent.get("resource"), names::path_segment, &mut errors);
    checks::required_name(parent.get("name"), names::path_segment, &mut errors);
    errors
}

fn service_cidr_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let cidrs = spec.get("cidrs");
    if cidrs.len() == 0 {
        errors.push(cidrs.required("at least one CIDR required"));
    } else if cidrs.len() > 2 {
        errors.push(cidrs.invalid("may only hold up to 2 values"));
    }
    for cidr in spec.each("cidrs") {
        checks::cidr(cidr, &mut errors);
    }
    errors
}
