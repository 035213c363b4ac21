//! Addresses and node ports of Services: taken and given back in the transaction that writes the
//! Service, so that no two Services ever have the same one, whichever server writes them.
//!
//! An address that is taken is an IPAddress, as in Kubernetes. A port that is taken is an object of a
//! kind that is not served. Both are kept by what is taken, so that taking one twice is a conflict.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use serde_json::{Value, json};
use toono_api::{
    ApiError, FieldError,
    kinds::{networking::IP_ADDRESS, service},
    meta::{at, items_at, text_at},
};
use toono_mvcc::{Expect, Key, Op, Owner};

use crate::{
    admission::{Charge, Operation, Review},
    encode,
    server::{ApiServer, key},
    verbs::{may_go, whole_seconds},
};

/// Where ports that are taken are kept: no path leads there.
const PORTS: (&str, &str) = ("toono.internal", "nodeports");

/// What a Service has taken.
#[derive(Debug, Default)]
struct Taken {
    address: Option<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

/// Takes what a Service needs, writes it into the Service, and gives back what it no longer needs.
///
/// # Errors
/// When it asks for what is taken or out of range, or when nothing is left.
pub(crate) fn charge(
    review: &Review<'_>,
    object: &mut Value,
    charge: &mut Charge,
) -> Result<(), ApiError> {
    let before = review.old.map(taken).unwrap_or_default();
    let goes = review.operation == Operation::Delete || may_go(object);
    let after = if goes { Taken::default() } else { fill(review, object, &before)? };
    if let Some(address) = after.address.filter(|address| before.address != Some(*address)) {
        take(charge, address_key(review.server, address), &address_object(review, address));
    }
    if let Some(address) = before.address.filter(|address| after.address != Some(*address)) {
        give_back(review, charge, address_key(review.server, address))?;
    }
    for port in after.ports.difference(&before.ports) {
        take(charge, port_key(*port), &port_object(review, *port));
    }
    for port in before.ports.difference(&after.ports) {
        give_back(review, charge, port_key(*port))?;
    }
    Ok(())
}

/// What a Service says that it has.
fn taken(service: &Value) -> Taken {
    let needs = service::addressing(service);
    let address = text_at(service, &["spec", "clusterIP"]).and_then(|text| text.parse().ok());
    let mut ports = BTreeSet::new();
    if needs.node_ports {
        let all = items_at(service, &["spec", "ports"]).filter_map(|port| port.get("nodePort"));
        ports.extend(all.chain(at(service, &["spec", "healthCheckNodePort"])).filter_map(number));
    }
    Taken { address: address.filter(|_| needs.cluster_ip), ports }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

/// Writes into a Service what it needs and does not have yet.
fn fill(review: &Review<'_>, object: &mut Value, before: &Taken) -> Result<Taken, ApiError> {
    let needs = service::addressing(object);
    let mut after = Taken::default();
    if needs.cluster_ip {
        let address = address(review, object, before)?;
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("clusterIP".to_owned(), address.to_string().into());
            spec.insert("clusterIPs".to_owned(), json!([address.to_string()]));
        }
        after.address = Some(address);
    }
    if needs.node_ports {
        after.ports = ports(review, object, before)?;
    }
    Ok(after)
}

fn address(review: &Review<'_>, object: &Value, before: &Taken) -> Result<Ipv4Addr, ApiError> {
    let range = review.server.inner.config.service_range;
    let used = |address: Ipv4Addr| {
        let found = review.server.current(&address_key(review.server, address));
        found.is_ok_and(|entry| entry.is_some())
    };
    let asked = text_at(object, &["spec", "clusterIP"]).unwrap_or_default();
    let refuse = |why: &str| {
        let all = json!([asked]);
        let why = format!("failed to allocate IP {asked}: {why}");
        invalid(object, FieldError::invalid("spec.clusterIPs", &all, &why))
    };
    if asked.is_empty() {
        return range.pick(random(), used).ok_or_else(|| {
            ApiError::Internal("failed to allocate a serviceIP: range is full".to_owned())
        });
    }
    let address = asked.parse().ok().filter(|address| range.contains(*address));
    let Some(address) = address else {
        return Err(refuse(&format!(
            "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}"
        )));
    };
    if before.address != Some(address) && used(address) {
        return Err(refuse("provided IP is already allocated"));
    }
    Ok(address)
}

/// Gives each port its port on nodes. Ports of one number that differ in protocol share one.
fn ports(
    review: &Review<'_>,
    object: &mut Value,
    before: &Taken,
) -> Result<BTreeSet<u16>, ApiError> {
    let range = review.server.inner.config.node_ports;
    let used = |port: u16| {
        !before.ports.contains(&port)
            && review.server.current(&port_key(port)).is_ok_and(|entry| entry.is_some())
    };
    let mut after = BTreeSet::new();
    let mut by_number: BTreeMap<u64, u16> = BTreeMap::new();
    let mut asked: Vec<(String, u16)> = Vec::new();
    for (index, port) in items_at(object, &["spec", "ports"]).enumerate() {
        if let Some(on_node) = port.get("nodePort").and_then(number) {
            by_number.insert(port.get("port").and_then(Value::as_u64).unwrap_or(0), on_node);
            asked.push((format!("spec.ports[{index}].nodePort"), on_node));
        }
    }
    if let Some(health) = at(object, &["spec", "healthCheckNodePort"]).and_then(number) {
        asked.push(("spec.healthCheckNodePort".to_owned(), health));
    }
    for (field, port) in asked {
        let why = if !range.contains(port) {
            format!("provided port is not in the valid range. The range of valid ports is {range}")
        } else if used(port) {
            "provided port is already allocated".to_owned()
        } else {
            after.insert(port);
            continue;
        };
        return Err(invalid(object, FieldError::invalid(field, &Value::from(port), &why)));
    }
    let pick = |after: &mut BTreeSet<u16>| {
        let port = range.pick(random(), |port| after.contains(&port) || used(port));
        let port = port.ok_or_else(|| {
            ApiError::Internal("failed to allocate a nodePort: range is full".to_owned())
        })?;
        after.insert(port);
        Ok::<u16, ApiError>(port)
    };
    if needs_health_check(object) {
        let port = pick(&mut after)?;
        if let Some(spec) = object.get_mut("spec") {
            encode::set(spec, "healthCheckNodePort", port);
        }
    }
    let list = object.get_mut("spec").and_then(|spec| spec.get_mut("ports"));
    for port in list.and_then(Value::as_array_mut).into_iter().flatten() {
        if port.get("nodePort").and_then(number).is_some() {
            continue;
        }
        let own = port.get("port").and_then(Value::as_u64).unwrap_or(0);
        let on_node = match by_number.get(&own) {
            Some(shared) => *shared,
            None => pick(&mut after)?,
        };
        by_number.insert(own, on_node);
        encode::set(port, "nodePort", on_node);
    }
    Ok(after)
}

/// A load balancer that must know which nodes have backends asks them at a port of its own.
fn needs_health_check(object: &Value) -> bool {
    text_at(object, &["spec", "type"]) == Some("LoadBalancer")
        && text_at(object, &["spec", "externalTrafficPolicy"]) == Some("Local")
        && at(object, &["spec", "healthCheckNodePort"]).and_then(number).is_none()
}

fn invalid(object: &Value, cause: FieldError) -> ApiError {
    ApiError::Invalid {
        kind: "Service".to_owned(),
        group: String::new(),
        name: text_at(object, &["metadata", "name"]).unwrap_or_default().to_owned(),
        causes: vec![cause],
    }
}

fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

fn address_key(server: &ApiServer, address: Ipv4Addr) -> Key {
    key(&server.built_in(&IP_ADDRESS), "", &address.to_string())
}

fn port_key(port: u16) -> Key {
    Key::new(PORTS.0, PORTS.1, "", &port.to_string())
}

fn address_object(review: &Review<'_>, address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": whole_seconds(ApiServer::now()),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"group": "", "resource": "services",
                               "namespace": review.namespace, "name": review.name}},
    })
}

fn port_object(review: &Review<'_>, port: u16) -> Value {
    json!({
        "kind": "NodePort",
        "metadata": {"name": port.to_string()},
        "spec": {"parentRef": {"namespace": review.namespace, "name": review.name}},
    })
}

fn take(charge: &mut Charge, key: Key, object: &Value) {
    let value = encode::draft_of(object);
    charge.ops.push((Expect::Absent, Op::Put { key, value, owner: Owner::PLATFORM }));
}

/// Gives back what the Service took. What is not there, or is another's, stays as it is.
fn give_back(review: &Review<'_>, charge: &mut Charge, key: Key) -> Result<(), ApiError> {
    let Some(entry) = review.server.current(&key)? else { return Ok(()) };
    let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let parent = |field: &str| text_at(&object, &["spec", "parentRef", field]);
    if parent("namespace") == Some(review.namespace) && parent("name") == Some(review.name) {
        let last = encode::draft_of(&object);
        charge.ops.push((Expect::At(entry.modified), Op::Delete { key, last }));
    }
    Ok(())
}
