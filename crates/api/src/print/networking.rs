//! Rows of Ingresses, their classes, NetworkPolicies, EndpointSlices and addresses.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, NAME, NONE, age, column, core::ingress_points, first_few, joined, name, selector_text,
    text_or,
};
use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
};

/// Columns of Ingresses.
pub const INGRESS: &[Column] = &[
    NAME,
    column("Class", "string"),
    column("Hosts", "string"),
    column("Address", "string"),
    column("Ports", "string"),
    AGE,
];
/// Columns of IngressClasses.
pub const INGRESS_CLASS: &[Column] =
    &[NAME, column("Controller", "string"), column("Parameters", "string"), AGE];
/// Columns of NetworkPolicies.
pub const NETWORK_POLICY: &[Column] = &[NAME, column("Pod-Selector", "string"), AGE];
/// Columns of IPAddresses.
pub const IP_ADDRESS: &[Column] = &[NAME, column("ParentRef", "string")];
/// Columns of ServiceCIDRs.
pub const SERVICE_CIDR: &[Column] = &[NAME, column("CIDRs", "string"), AGE];
/// Columns of EndpointSlices.
pub const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    column("AddressType", "string"),
    column("Ports", "string"),
    column("Endpoints", "string"),
    AGE,
];

/// How many items of a list a row shows before it counts the rest.
const SHOWN: usize = 3;

/// An Ingress's row.
#[must_use]
pub fn ingress_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let secure = items_at(object, &["spec", "tls"]).next().is_some();
    vec![
        name(object),
        text_at(object, &["spec", "ingressClassName"]).unwrap_or(NONE).into(),
        hosts(object).into(),
        ingress_points(object).join(",").into(),
        if secure { "80, 443" } else { "80" }.into(),
        age(object, now),
    ]
}

fn hosts(object: &Value) -> String {
    let rules = items_at(object, &["spec", "rules"]).count();
    let named = items_at(object, &["spec", "rules"])
        .filter_map(|rule| text_at(rule, &["host"]))
        .filter(|host| !host.is_empty());
    let shown: Vec<&str> = named.take(SHOWN).collect();
    match shown.len() {
        0 => "*".to_owned(),
        SHOWN if rules > SHOWN => format!("{} + {} more...", shown.join(","), rules - SHOWN),
        _ => shown.join(","),
    }
}

/// An IngressClass's row.
#[must_use]
pub fn ingress_class_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = at(object, &["spec", "parameters"]).map_or_else(
        || NONE.to_owned(),
        |parameters| {
            let kind = text_or(parameters, &["kind"], "");
            let name = text_or(parameters, &["name"], "");
            match text_at(parameters, &["apiGroup"]) {
                Some(group) => format!("{kind}.{group}/{name}"),
                None => format!("{kind}/{name}"),
            }
        },
    );
    vec![
        name(object),
        text_or(object, &["spec", "controller"], "").into(),
        parameters.into(),
        age(object, now),
    ]
}

/// A NetworkPolicy's row.
#[must_use]
pub fn network_policy_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector_text(at(object, &["spec", "podSelector"])).into(), age(object, now)]
}

/// An IPAddress's row.
#[must_use]
pub fn ip_address_row(object: &Value, _: Timestamp) -> Vec<Value> {
    let parent = at(object, &["spec", "parentRef"]).map_or_else(
        || NONE.to_owned(),
        |parent| {
            let text = |field: &str| text_or(parent, &[field], "");
            let mut path = text("resource").to_lowercase();
            for (separator, part) in [(".", "group"), ("/", "namespace"), ("/", "name")] {
                if !text(part).is_empty() {
                    path.push_str(separator);
                    path.push_str(text(part));
                }
            }
            path
        },
    );
    vec![name(object), parent.into()]
}

/// A ServiceCIDR's row.
#[must_use]
pub fn service_cidr_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ranges = items_at(object, &["spec", "cidrs"]).filter_map(Value::as_str);
    vec![name(object), joined(ranges, "").into(), age(object, now)]
}

/// An EndpointSlice's row.
#[must_use]
pub fn endpoint_slice_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items_at(object, &["ports"])
        .map(|port| match (at(port, &["port"]).and_then(Value::as_i64), text_at(port, &["name"])) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) if !name.is_empty() => name.to_owned(),
            (None, _) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = items_at(object, &["endpoints"])
        .flat_map(|endpoint| items_at(endpoint, &["addresses"]))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    vec![
        name(object),
        text_or(object, &["addressType"], "").into(),
        first_few(&ports, SHOWN, "<unset>").into(),
        first_few(&addresses, SHOWN, "<unset>").into(),
        age(object, now),
    ]
}
