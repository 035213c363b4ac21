//! Which pods are a service's endpoints, under which addresses and ports. Pure.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::util::intstr::IntOrString};

use super::kinds::EndpointPort;
use crate::{
    informer::{Change, Index, Reader},
    key::Key,
    kinds::{
        Service, ServicePort,
        pod::{Pod, Port},
    },
    object::{Claimable, Metadata},
    pods::{is_finished, is_ready, node_name},
    queue::WorkQueue,
};

const DEFAULT_PROTOCOL: &str = "TCP";

/// Whether a selector selects an object with these labels. An empty one selects nothing: whoever
/// has none keeps the endpoints himself.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty()
        && selector.iter().all(|(key, value)| pod.metadata.label(key) == Some(value))
}

/// Services of this type are names of something elsewhere.
pub(super) fn is_external_name(service: &Service) -> bool {
    service.spec.type_.as_deref() == Some("ExternalName")
}

/// It has no address of its own.
pub(super) fn is_headless(service: &Service) -> bool {
    matches!(service.spec.cluster_ip.as_str(), "" | "None")
}

/// It can be an endpoint: it has an address and has not ended.
pub(super) fn is_candidate(pod: &Pod) -> bool {
    !is_finished(pod) && !addresses(pod).is_empty()
}

/// A pod's addresses.
pub(super) fn addresses(pod: &Pod) -> &[IpAddr] {
    pod.addresses()
}

/// Its name in the service's domain.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let in_domain = pod.template().subdomain.as_deref() == service.metadata.name.as_deref();
    let hostname = pod.hostname().filter(|hostname| in_domain && !hostname.is_empty());
    hostname.map(str::to_owned)
}

pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.metadata.namespace().to_owned()),
        name: Some(pod.metadata.name().to_owned()),
        uid: Some(pod.metadata.uid().to_owned()),
        ..ObjectReference::default()
    }
}

/// The service's ports as this pod has them. One whose name the pod does not know is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let found = service.spec.ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone(),
            port: Some(target_port(port, pod)?),
            protocol: Some(protocol(port).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or(DEFAULT_PROTOCOL)
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        Some(IntOrString::Int(0)) | None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let template = pod.template();
    let all = template.containers.iter().chain(&template.sidecars);
    let mut ports = all.flat_map(|container| &container.ports);
    let fits = |known: &&Port| {
        *known.name == **name
            && known.protocol.as_deref().unwrap_or(DEFAULT_PROTOCOL) == protocol(port)
    };
    ports.find(fits).map(|known| known.number)
}

/// Adds the services whose endpoints a pod's change may change.
pub(super) fn enqueue_services(
    change: &Change<Pod>,
    services: &Reader<Service>,
    queue: &WorkQueue<Key>,
) {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !differs(old, new)
    {
        return;
    }
    let Some(pod) = change.latest() else { return };
    let namespace = pod.metadata.namespace();
    for service in services.by(Index::Namespace, namespace) {
        let both: [&Option<Arc<Pod>>; 2] = [&change.old, &change.new];
        if both.into_iter().flatten().any(|pod| selects(&service, pod)) {
            queue.add(Key::of(&service.metadata));
        }
    }
}

/// Whether anything that endpoints tell of a pod differs.
fn differs(old: &Pod, new: &Pod) -> bool {
    fn name(pod: &Pod) -> (Option<&str>, Option<&str>) {
        (pod.hostname(), pod.template().subdomain.as_deref())
    }
    old.metadata.labels() != new.metadata.labels()
        || old.metadata.uid() != new.metadata.uid()
        || old.metadata.is_leaving() != new.metadata.is_leaving()
        || is_ready(old) != is_ready(new)
        || is_finished(old) != is_finished(new)
        || addresses(old) != addresses(new)
        || node_name(old) != node_name(new)
        || name(old) != name(new)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        let object = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn named_ports_are_those_of_each_pod() {
        let service = service(json!({"selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"},
            {"name": "dns", "port": 53, "targetPort": "web", "protocol": "UDP"},
            {"name": "side", "port": 15, "targetPort": "side", "appProtocol": "h2c"},
            {"name": "plain", "port": 9000}]}));
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "initContainers": [
                {"name": "i", "ports": [{"name": "side", "containerPort": 1}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2}]}],
            "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]}}))
        .unwrap();
        let found: Vec<_> =
            ports(&service, &pod).into_iter().map(|port| (port.name, port.port)).collect();
        assert_eq!(
            found,
            [
                ("http".to_owned(), Some(8080)),
                ("side".to_owned(), Some(2)),
                ("plain".to_owned(), Some(9000))
            ]
        );
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}}})).unwrap();
        assert!(selects(&service(json!({"selector": {"app": "web"}})), &pod));
        assert!(!selects(&service(json!({"selector": {"app": "web", "tier": "1"}})), &pod));
        assert!(!selects(&service(json!({"ports": []})), &pod));
    }
}
