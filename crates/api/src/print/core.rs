//! Rows of the small core kinds: Namespaces, ConfigMaps, Secrets, Services, Events, Leases.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, NAME, NONE, age, column, first_few, integer, label_text, name, since, text_or, wide,
};
use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
};

/// Columns of Namespaces.
pub const NAMESPACE: &[Column] = &[NAME, column("Status", "string"), AGE];
/// Columns of ConfigMaps.
pub const CONFIG_MAP: &[Column] = &[NAME, column("Data", "string"), AGE];
/// Columns of Secrets.
pub const SECRET: &[Column] = &[NAME, column("Type", "string"), column("Data", "string"), AGE];
/// Columns of ServiceAccounts.
pub const SERVICE_ACCOUNT: &[Column] = &[NAME, column("Secrets", "string"), AGE];
/// Columns of Services.
pub const SERVICE: &[Column] = &[
    NAME,
    column("Type", "string"),
    column("Cluster-IP", "string"),
    column("External-IP", "string"),
    column("Port(s)", "string"),
    AGE,
    wide("Selector", "string"),
];
/// Columns of Endpoints.
pub const ENDPOINTS: &[Column] = &[NAME, column("Endpoints", "string"), AGE];
/// Columns of Leases.
pub const LEASE: &[Column] = &[NAME, column("Holder", "string"), AGE];
/// Columns of Events.
pub const EVENT: &[Column] = &[
    column("Last Seen", "string"),
    column("Type", "string"),
    column("Reason", "string"),
    column("Object", "string"),
    wide("Subobject", "string"),
    wide("Source", "string"),
    column("Message", "string"),
    wide("First Seen", "string"),
    wide("Count", "string"),
    Column { priority: 1, ..NAME },
];

/// How many endpoints a row names before it counts the rest.
const ENDPOINTS_SHOWN: usize = 3;

/// A Namespace's row.
#[must_use]
pub fn namespace_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text_or(object, &["status", "phase"], "").into(), age(object, now)]
}

fn entries(object: &Value, field: &str) -> usize {
    object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// A ConfigMap's row.
#[must_use]
pub fn config_map_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = entries(object, "data") + entries(object, "binaryData");
    vec![name(object), count.into(), age(object, now)]
}

/// A Secret's row.
#[must_use]
pub fn secret_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let kind = text_or(object, &["type"], "");
    vec![name(object), kind.into(), entries(object, "data").into(), age(object, now)]
}

/// A ServiceAccount's row.
#[must_use]
pub fn service_account_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items_at(object, &["secrets"]).count().into(), age(object, now)]
}

/// A Lease's row.
#[must_use]
pub fn lease_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text_or(object, &["spec", "holderIdentity"], "").into(), age(object, now)]
}

/// A Service's row.
#[must_use]
pub fn service_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let kind = text_or(object, &["spec", "type"], "ClusterIP");
    let ports: Vec<String> = items_at(object, &["spec", "ports"]).map(port_text).collect();
    vec![
        name(object),
        kind.into(),
        items_at(object, &["spec", "clusterIPs"])
            .next()
            .and_then(Value::as_str)
            .unwrap_or(NONE)
            .into(),
        external_ip(object, kind).into(),
        if ports.is_empty() { NONE.into() } else { ports.join(",").into() },
        age(object, now),
        label_text(at(object, &["spec", "selector"])).into(),
    ]
}

fn port_text(port: &Value) -> String {
    let number = integer(port, &["port"]);
    let protocol = text_or(port, &["protocol"], "TCP");
    match integer(port, &["nodePort"]) {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

fn external_ip(object: &Value, kind: &str) -> String {
    let join = |texts: Vec<&str>, absent: &str| {
        if texts.is_empty() { absent.to_owned() } else { texts.join(",") }
    };
    let external = items_at(object, &["spec", "externalIPs"]).filter_map(Value::as_str).collect();
    match kind {
        "ExternalName" => text_or(object, &["spec", "externalName"], "").to_owned(),
        "LoadBalancer" => {
            let mut all = ingress_points(object);
            all.extend::<Vec<&str>>(external);
            join(all, "<pending>")
        }
        _ => join(external, NONE),
    }
}

/// Addresses or names at which a load balancer listens, each once, in order.
pub(super) fn ingress_points(object: &Value) -> Vec<&str> {
    let mut all: Vec<&str> = items_at(object, &["status", "loadBalancer", "ingress"])
        .filter_map(|ingress| {
            text_at(ingress, &["ip"])
                .filter(|ip| !ip.is_empty())
                .or(text_at(ingress, &["hostname"]))
        })
        .filter(|text| !text.is_empty())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// An Endpoints object's row.
#[must_use]
pub fn endpoints_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in items_at(object, &["subsets"]) {
        let addresses = || items_at(subset, &["addresses"]).map(|one| text_or(one, &["ip"], ""));
        if items_at(subset, &["ports"]).next().is_none() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in items_at(subset, &["ports"]) {
            let number = integer(port, &["port"]);
            all.extend(addresses().map(|ip| {
                if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }
            }));
        }
    }
    vec![name(object), first_few(&all, ENDPOINTS_SHOWN, NONE).into(), age(object, now)]
}

/// An Event's row.
#[must_use]
pub fn event_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let first = text_at(object, &["firstTimestamp"]).or(text_at(object, &["eventTime"]));
    let mut last = text_at(object, &["lastTimestamp"])
        .map_or_else(|| since(first, now), |last| since(Some(last), now));
    let count = match integer(object, &["series", "count"]) {
        0 => integer(object, &["count"]).max(1),
        count => count,
    };
    if let Some(observed) = text_at(object, &["series", "lastObservedTime"]) {
        last = since(Some(observed), now);
    }
    let kind = text_or(object, &["involvedObject", "kind"], "").to_lowercase();
    let target = match text_or(object, &["involvedObject", "name"], "") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component =
        text_or(object, &["source", "component"], text_or(object, &["reportingComponent"], ""));
    let host = text_or(object, &["source", "host"], text_or(object, &["reportingInstance"], ""));
    let source = [component, host]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(", ");
    vec![
        last.into(),
        text_or(object, &["type"], "").into(),
        text_or(object, &["reason"], "").into(),
        target.into(),
        text_or(object, &["involvedObject", "fieldPath"], "").into(),
        source.into(),
        text_or(object, &["message"], "").trim().into(),
        since(first, now).into(),
        count.into(),
        name(object),
    ]
}
