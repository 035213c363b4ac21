//! Services, EndpointSlices and Endpoints, made of the records of the pool's part.
//!
//! Records are what a proxy needs, so a Service has no selector here and its ports no targets. Of a Service whose
//! traffic stays near those endpoints are shown that this node may use.

use std::collections::BTreeMap;

use super::fields::{set, set_text};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use toono_wire::pool::{
    EndpointRecord, Records, ServiceRecord, SliceRecord,
    near::{TopologyKeys, Vantage},
    node_key, service_key,
};

/// By which label a slice says whose it is.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// All of a kind in a namespace, or in all of them if it is empty.
pub(super) fn list(
    plural: &str,
    records: &Records,
    namespace: &str,
    vantage: &Vantage,
) -> Vec<Value> {
    let slices = || slices(records, namespace, vantage);
    match plural {
        "services" => {
            let all = of::<ServiceRecord>(records, "service", namespace);
            all.map(|(place, record)| service(&place, &record)).collect()
        }
        "endpointslices" => slices().into_iter().map(|it| it.object()).collect(),
        "endpoints" => endpoints(&slices()),
        _ => Vec::new(),
    }
}

/// The records of a kind: what is in their keys after it, and what they say.
fn of<'r, T: DeserializeOwned>(
    records: &'r Records,
    kind: &'static str,
    namespace: &'r str,
) -> impl Iterator<Item = (Vec<&'r str>, T)> {
    records.iter().filter_map(move |(key, text)| {
        let mut place: Vec<&str> = key.splitn(4, '/').collect();
        let wanted = place.first() == Some(&kind)
            && (namespace.is_empty() || place.get(1) == Some(&namespace));
        if !wanted {
            return None;
        }
        place.remove(0);
        Some((place, serde_json::from_str(text).ok()?))
    })
}

fn protocol(text: &str) -> &str {
    if text.is_empty() { "TCP" } else { text }
}

fn service(place: &[&str], record: &ServiceRecord) -> Value {
    let (namespace, name) = (place.first(), place.get(1));
    let ports = record.ports.iter().map(|port| {
        let mut made = json!({"port": port.port, "protocol": protocol(&port.protocol)});
        set_text(&mut made, "name", &port.name);
        if port.node_port != 0 {
            set(&mut made, &["nodePort"], port.node_port);
        }
        made
    });
    let policy = |is_local| if is_local { "Local" } else { "Cluster" };
    let kind = if record.r#type.is_empty() { "ClusterIP" } else { &record.r#type };
    let affinity = if record.affinity_seconds > 0 { "ClientIP" } else { "None" };
    let mut spec = json!({"type": kind, "ports": ports.collect::<Vec<_>>(),
        "sessionAffinity": affinity, "internalTrafficPolicy": policy(record.internal_local),
        "publishNotReadyAddresses": record.publish_not_ready});
    if let Some(first) = record.cluster_ips.first() {
        set(&mut spec, &["clusterIP"], first.as_str());
        set(&mut spec, &["clusterIPs"], json!(record.cluster_ips));
    }
    set_text(&mut spec, "externalName", &record.external_name);
    if !record.external_ips.is_empty() {
        set(&mut spec, &["externalIPs"], json!(record.external_ips));
    }
    if matches!(kind, "NodePort" | "LoadBalancer") {
        set(&mut spec, &["externalTrafficPolicy"], policy(record.external_local));
    }
    let ingress: Vec<Value> = record.ingress.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}}})
}

/// A slice with its endpoints.
struct Slice<'r> {
    namespace: &'r str,
    name: &'r str,
    record: SliceRecord,
    endpoints: Vec<(&'r str, EndpointRecord)>,
}

fn slices<'r>(records: &'r Records, namespace: &'r str, vantage: &Vantage) -> Vec<Slice<'r>> {
    let mut found = BTreeMap::new();
    for (place, record) in of::<SliceRecord>(records, "slice", namespace) {
        if let [namespace, name] = *place.as_slice() {
            found.insert(
                (namespace, name),
                Slice { namespace, name, record, endpoints: Vec::new() },
            );
        }
    }
    for (place, record) in of::<EndpointRecord>(records, "endpoint", namespace) {
        if let [namespace, slice, address] = *place.as_slice()
            && let Some(slice) = found.get_mut(&(namespace, slice))
        {
            slice.endpoints.push((address, record));
        }
    }
    keep_near(records, &mut found, vantage);
    found.into_values().collect()
}

/// A slice's place, and an endpoint of it.
type Placed<'r> = ((&'r str, &'r str), (&'r str, EndpointRecord));

fn node_of<'p>(placed: &'p Placed<'_>) -> &'p str {
    &placed.1.1.node
}

/// Takes out what this node may not use. The endpoints of all slices of a Service are looked at together.
fn keep_near<'r>(
    records: &Records,
    slices: &mut BTreeMap<(&'r str, &'r str), Slice<'r>>,
    vantage: &Vantage,
) {
    let mut services: BTreeMap<String, Vec<(&'r str, &'r str)>> = BTreeMap::new();
    for (key, slice) in slices.iter() {
        let service = service_key(slice.namespace, &slice.record.service);
        services.entry(service).or_default().push(*key);
    }
    let is_neighbour = |node: &str| records.get(&node_key(node)).is_some();
    for (service, its) in services {
        let record = records.get(&service);
        let record = record.and_then(|text| serde_json::from_str::<ServiceRecord>(text).ok());
        let keys = TopologyKeys::parse(&record.unwrap_or_default().topology_keys);
        if keys == TopologyKeys::default() {
            continue;
        }
        let mut all: Vec<Placed<'r>> = Vec::new();
        for key in its {
            let endpoints = slices.get_mut(&key).map(|it| std::mem::take(&mut it.endpoints));
            all.extend(endpoints.into_iter().flatten().map(|endpoint| (key, endpoint)));
        }
        let is_ready = |placed: &Placed<'_>| !placed.1.1.is_unready;
        for (key, endpoint) in keys.select(vantage, all, node_of, is_ready, is_neighbour) {
            if let Some(slice) = slices.get_mut(&key) {
                slice.endpoints.push(endpoint);
            }
        }
    }
}

impl Slice<'_> {
    fn ports(&self) -> Vec<Value> {
        let ports = self.record.ports.iter().map(|port| {
            json!({"name": port.name, "protocol": protocol(&port.protocol), "port": port.port})
        });
        ports.collect()
    }

    fn object(&self) -> Value {
        let endpoints = self.endpoints.iter().map(|(address, record)| {
            let mut addresses = vec![(*address).to_owned()];
            addresses.extend(record.more.iter().cloned());
            let mut made = json!({"addresses": addresses, "conditions": {
                "ready": !record.is_unready, "serving": !record.is_unready || record.still_serves,
                "terminating": record.is_terminating}});
            let texts = [
                ("nodeName", &record.node),
                ("hostname", &record.hostname),
                ("zone", &record.zone),
            ];
            for (field, text) in texts {
                set_text(&mut made, field, text);
            }
            let named = |names: &[String]| -> Vec<Value> {
                names.iter().map(|name| json!({"name": name})).collect()
            };
            let mut hints = Map::new();
            for (field, names) in [("forZones", &record.zones), ("forNodes", &record.nodes)] {
                if !names.is_empty() {
                    hints.insert(field.to_owned(), named(names).into());
                }
            }
            if !hints.is_empty() {
                set(&mut made, &["hints"], hints);
            }
            made
        });
        json!({"metadata": {"namespace": self.namespace, "name": self.name,
                "labels": {SERVICE_LABEL: self.record.service}},
            "addressType": self.record.family, "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": self.ports()})
    }

    fn subset(&self) -> Value {
        let (mut ready, mut unready) = (Vec::new(), Vec::new());
        for (address, record) in &self.endpoints {
            let mut made = json!({"ip": address});
            set_text(&mut made, "nodeName", &record.node);
            if record.is_unready { unready.push(made) } else { ready.push(made) }
        }
        let mut subset = json!({"ports": self.ports()});
        for (field, addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
            if !addresses.is_empty() {
                set(&mut subset, &[field], addresses);
            }
        }
        subset
    }
}

/// One object a Service, with a subset for each of its slices.
fn endpoints(slices: &[Slice<'_>]) -> Vec<Value> {
    let mut subsets: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
    for slice in slices.iter().filter(|it| !it.record.service.is_empty()) {
        let of = subsets.entry((slice.namespace, &slice.record.service)).or_default();
        if !slice.endpoints.is_empty() {
            of.push(slice.subset());
        }
    }
    let object = |((namespace, name), subsets): ((&str, &str), Vec<Value>)| json!({"metadata": {"namespace": namespace, "name": name}, "subsets": subsets});
    subsets.into_iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_objects_again() {
        let mut records = Records::default();
        let service = r#"{"clusterIPs":["10.96.0.7"],"type":"NodePort","ports":[{"name":"http","port":80,"nodePort":30080}]}"#;
        records.put("service/shop/web", service);
        records.put("service/other/web", service);
        let slice = r#"{"service":"web","family":"IPv4","ports":[{"name":"http","port":8080}]}"#;
        records.put("slice/shop/web-1", slice);
        records.put("endpoint/shop/web-1/10.244.0.2", r#"{"node":"n1"}"#);
        records.put("endpoint/shop/web-1/10.244.1.3", r#"{"unready":true}"#);
        let here = Vantage { node: "n1".into(), pool: "shop".into(), zone: String::new() };
        let services = list("services", &records, "shop", &here);
        assert_eq!(services.len(), 1);
        assert_eq!(services[0]["spec"]["clusterIP"], "10.96.0.7");
        assert_eq!(services[0]["spec"]["ports"][0]["nodePort"], 30080);
        assert_eq!(list("services", &records, "", &here).len(), 2);
        let slices = list("endpointslices", &records, "shop", &here);
        assert_eq!(slices[0]["metadata"]["labels"][SERVICE_LABEL], "web");
        assert_eq!(slices[0]["endpoints"][0]["nodeName"], "n1");
        assert_eq!(slices[0]["endpoints"][1]["conditions"]["ready"], false);
        let endpoints = list("endpoints", &records, "shop", &here);
        let subset = json!({"addresses": [{"ip": "10.244.0.2", "nodeName": "n1"}],
            "notReadyAddresses": [{"ip": "10.244.1.3"}],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]});
        assert_eq!(endpoints[0]["subsets"], json!([subset]));
    }

    #[test]
    fn only_what_this_node_may_use_is_shown() {
        let mut records = Records::default();
        records.put("service/shop/web", r#"{"topologyKeys":"kubernetes.io/hostname"}"#);
        for slice in ["web-1", "web-2"] {
            records.put(&format!("slice/shop/{slice}"), r#"{"service":"web","family":"IPv4"}"#);
        }
        records.put("endpoint/shop/web-1/10.244.0.2", r#"{"node":"n1","zones":["z"]}"#);
        records.put("endpoint/shop/web-2/10.244.1.3", r#"{"node":"n2"}"#);
        let here = Vantage { node: "n1".into(), pool: "shop".into(), zone: String::new() };
        let slices = list("endpointslices", &records, "shop", &here);
        assert_eq!(slices[0]["endpoints"][0]["hints"], json!({"forZones": [{"name": "z"}]}));
        assert_eq!(slices[1]["endpoints"], json!([]));
    }
}
