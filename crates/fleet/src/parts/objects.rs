//! Services and EndpointSlices as the records that nodes keep of them; the rest of them is not read.

use std::collections::BTreeMap;

use serde::Deserialize;
use toono_openyurt::keys::{DISCARD_SERVICE, NODE_PORT_LISTEN, TOPOLOGY_KEYS};
use toono_wire::pool::{
    EndpointPort, EndpointRecord, ServicePort, ServiceRecord, SliceRecord, endpoint_key,
    near::TopologyKeys, service_key, slice_key,
};

use crate::objects::Meta;

/// Names the Service that a slice belongs to (<https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetesioservice-name>).
const LABEL_SERVICE: &str = "kubernetes.io/service-name";
/// The type of a Service that a balancer outside of the cluster leads to.
const LOAD_BALANCER: &str = "LoadBalancer";

/// Whom a Service's endpoints concern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Every node.
    #[default]
    Everywhere,
    /// Nodes of the pool that the endpoint's node is in; nodes without a pool are one together.
    Pool,
    /// No node at all, and neither does the Service: it is the cloud's.
    Nowhere,
}

/// A Service's record.
#[derive(Debug)]
pub(crate) struct ServiceObject {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) reach: Reach,
    pub(crate) text: String,
}

/// An EndpointSlice's records.
#[derive(Debug)]
pub(crate) struct SliceObject {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) revision: u64,
    /// Empty when it belongs to none, and is nothing that a proxy looks at.
    pub(crate) service: String,
    pub(crate) text: String,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its first address.
    pub(crate) address: Box<str>,
    pub(crate) node: Box<str>,
    pub(crate) text: Box<str>,
}

impl ServiceObject {
    pub(crate) fn key(&self) -> String {
        service_key(&self.namespace, &self.name)
    }

    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let Service { metadata, spec, status } = serde_json::from_slice(json)?;
        let said = |key| metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
        let topology = said(TOPOLOGY_KEYS).unwrap_or_default();
        let is_clouds = spec.r#type == LOAD_BALANCER;
        let reach = if is_clouds && said(DISCARD_SERVICE).as_deref() == Some("true") {
            Reach::Nowhere
        } else if TopologyKeys::parse(&topology).is_near() {
            Reach::Pool
        } else {
            Reach::Everywhere
        };
        let has_node_ports = is_clouds || spec.r#type == "NodePort";
        let affinity = spec.session_affinity_config.client_ip.timeout_seconds;
        let sticky = spec.session_affinity == "ClientIP";
        let ingress = status.load_balancer.ingress.into_iter().map(|it| it.ip);
        let record = ServiceRecord {
            cluster_ips: spec.cluster_ips,
            r#type: plain(spec.r#type, "ClusterIP"),
            external_name: spec.external_name,
            external_ips: spec.external_ips,
            ingress: ingress.filter(|ip| !ip.is_empty()).collect(),
            ports: spec.ports.into_iter().map(service_port).collect(),
            affinity_seconds: if sticky { affinity.unwrap_or(AFFINITY_SECONDS) } else { 0 },
            external_local: spec.external_traffic_policy == "Local",
            internal_local: spec.internal_traffic_policy == "Local",
            publish_not_ready: spec.publish_not_ready_addresses,
            listen: said(NODE_PORT_LISTEN).filter(|_| has_node_ports),
            topology_keys: topology,
        };
        Ok(Self {
            revision: metadata.revision(),
            namespace: metadata.namespace,
            name: metadata.name,
            reach,
            text: serde_json::to_string(&record)?,
        })
    }
}

impl SliceObject {
    pub(crate) fn key(&self) -> String {
        slice_key(&self.namespace, &self.name)
    }

    /// What the keys of its endpoints begin with.
    pub(crate) fn prefix(namespace: &str, name: &str) -> String {
        endpoint_key(namespace, name, "")
    }

    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let Slice { metadata, address_type, ports, endpoints } = serde_json::from_slice(json)?;
        let service = metadata.labels.as_ref().and_then(|all| all.get(LABEL_SERVICE));
        let service = service.cloned().unwrap_or_default();
        let port = |port: SlicePort| EndpointPort {
            name: port.name.unwrap_or_default(),
            protocol: plain(port.protocol.unwrap_or_default(), "TCP"),
            port: port.port.unwrap_or(0),
        };
        let record = SliceRecord {
            service: service.clone(),
            family: address_type,
            ports: ports.unwrap_or_default().into_iter().map(port).collect(),
        };
        // An address that is told twice in one slice counts as it is told last.
        let mut told = BTreeMap::new();
        for endpoint in endpoints.unwrap_or_default() {
            told.extend(endpoint.told()?.map(|endpoint| (endpoint.address.clone(), endpoint)));
        }
        Ok(Self {
            revision: metadata.revision(),
            namespace: metadata.namespace,
            name: metadata.name,
            service,
            text: serde_json::to_string(&record)?,
            endpoints: told.into_values().collect(),
        })
    }
}

impl Endpoint {
    /// As it is told by its record.
    pub(crate) fn of_record(address: &str, text: &str) -> Self {
        let record: EndpointRecord = serde_json::from_str(text).unwrap_or_default();
        Self { address: address.into(), node: record.node.into(), text: text.into() }
    }
}

/// Kubernetes' default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u32 = 10_800;

/// Nothing in place of what is meant without saying.
fn plain(value: String, usual: &str) -> String {
    if value == usual { String::new() } else { value }
}

fn service_port(port: SpecPort) -> ServicePort {
    ServicePort {
        name: port.name.unwrap_or_default(),
        protocol: plain(port.protocol, "TCP"),
        port: port.port,
        node_port: port.node_port,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Service {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    r#type: String,
    external_name: String,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    ports: Vec<SpecPort>,
    session_affinity: String,
    session_affinity_config: AffinityConfig,
    external_traffic_policy: String,
    internal_traffic_policy: String,
    publish_not_ready_addresses: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SpecPort {
    name: Option<String>,
    protocol: String,
    port: u16,
    node_port: u16,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: ClientIp,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClientIp {
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ingress {
    ip: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Slice {
    metadata: Meta,
    address_type: String,
    /// Written as null where there are none.
    ports: Option<Vec<SlicePort>>,
    endpoints: Option<Vec<SliceEndpoint>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SliceEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    hostname: Option<String>,
    node_name: Option<String>,
    zone: Option<String>,
    hints: Option<Hints>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Hints {
    for_zones: Option<Vec<Named>>,
    for_nodes: Option<Vec<Named>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl SliceEndpoint {
    /// As it is told; none when it has no address.
    fn told(self) -> Result<Option<Endpoint>, serde_json::Error> {
        let mut addresses = self.addresses.into_iter();
        let Some(address) = addresses.next() else { return Ok(None) };
        let is_ready = self.conditions.ready.unwrap_or(true);
        let Hints { for_zones, for_nodes } = self.hints.unwrap_or_default();
        let names = |all: Option<Vec<Named>>| {
            all.unwrap_or_default().into_iter().map(|it| it.name).collect()
        };
        let record = EndpointRecord {
            more: addresses.collect(),
            node: self.node_name.unwrap_or_default(),
            hostname: self.hostname.unwrap_or_default(),
            zone: self.zone.unwrap_or_default(),
            zones: names(for_zones),
            nodes: names(for_nodes),
            is_unready: !is_ready,
            still_serves: !is_ready && self.conditions.serving.unwrap_or(false),
            is_terminating: self.conditions.terminating.unwrap_or(false),
            is_silent: false,
        };
        let text = serde_json::to_string(&record)?.into();
        Ok(Some(Endpoint { address: address.into(), node: record.node.into(), text }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_told_as_short_as_it_is_plain() {
        let mut value = json!({"metadata": {"name": "till", "namespace": "shop", "resourceVersion": "7"},
            "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "type": "ClusterIP",
                "selector": {"app": "till"}, "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]},
            "status": {"loadBalancer": {}}});
        let parsed = ServiceObject::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.text, r#"{"clusterIPs":["10.96.0.9"],"ports":[{"port":80}]}"#);
        assert_eq!(
            (parsed.key().as_str(), parsed.revision, parsed.reach),
            ("service/shop/till", 7, Reach::Everywhere)
        );
        for (keys, reach) in [
            ("openyurt.io/nodepool", Reach::Pool),
            ("kubernetes.io/hostname", Reach::Pool),
            ("kubernetes.io/zone", Reach::Pool),
            ("kubernetes.io/hostname, openyurt.io/nodepool", Reach::Pool),
            ("bogus", Reach::Everywhere),
            ("*", Reach::Everywhere),
            ("openyurt.io/nodepool, *", Reach::Everywhere),
        ] {
            value["metadata"]["annotations"] = json!({TOPOLOGY_KEYS: keys});
            let parsed = ServiceObject::parse(value.to_string().as_bytes()).unwrap();
            assert_eq!(parsed.reach, reach, "{keys}");
        }
    }

    #[test]
    fn what_is_the_clouds_own_is_told_to_nobody() {
        for (kind, discard, reach) in [
            ("LoadBalancer", "true", Reach::Nowhere),
            ("LoadBalancer", "false", Reach::Everywhere),
            ("NodePort", "true", Reach::Everywhere),
        ] {
            let annotations = json!({DISCARD_SERVICE: discard, NODE_PORT_LISTEN: "a,-b"});
            let value = json!({"metadata": {"name": "till", "annotations": annotations}, "spec": {"type": kind}});
            let parsed = ServiceObject::parse(value.to_string().as_bytes()).unwrap();
            assert_eq!(parsed.reach, reach, "{kind} {discard}");
            assert!(parsed.text.contains(r#""listen":"a,-b""#), "{}", parsed.text);
        }
    }

    #[test]
    fn a_slice_is_told_apart_from_its_endpoints() {
        let value = json!({"metadata": {"name": "till-1", "namespace": "shop", "resourceVersion": "9",
                "labels": {LABEL_SERVICE: "till"}},
            "addressType": "IPv4", "ports": [{"name": "", "protocol": "TCP", "port": 8080, "appProtocol": null}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "a", "conditions": {"ready": true, "serving": true, "terminating": false},
                 "targetRef": {"kind": "Pod", "name": "till-xyz"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.3"], "zone": "z", "hints": {"forZones": [{"name": "z"}], "forNodes": null}},
                {"addresses": []}]});
        let parsed = SliceObject::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.text, r#"{"service":"till","family":"IPv4","ports":[{"port":8080}]}"#);
        let told: Vec<(&str, &str)> =
            parsed.endpoints.iter().map(|it| (&*it.address, &*it.text)).collect();
        assert_eq!(
            told,
            [
                ("10.0.0.1", r#"{"node":"a"}"#),
                ("10.0.0.2", r#"{"unready":true,"serving":true,"terminating":true}"#),
                ("10.0.0.3", r#"{"zone":"z","zones":["z"]}"#)
            ]
        );
        assert_eq!(Endpoint::of_record("10.0.0.1", r#"{"node":"a"}"#), parsed.endpoints[0]);
        let empty = json!({"metadata": {"name": "n", "namespace": "s"}, "addressType": "IPv4", "endpoints": null, "ports": null});
        assert!(SliceObject::parse(empty.to_string().as_bytes()).unwrap().endpoints.is_empty());
    }
}
