//! The variables by which a container finds Services: those of its pod's namespace, and the API server's
//! (<https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>).

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Pod;
use toono_wire::pool::{Records, ServiceRecord, service_key};

use super::environment::Variables;

/// The Service that every pod is told of: its namespace, and its name.
const SERVER: (&str, &str) = ("default", "kubernetes");

/// The variables for a pod's containers.
pub(crate) fn of_pod(pod: &Pod, records: &Records) -> Variables {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let mut services = BTreeMap::new();
    let mut add = |name: &str, text: &str| {
        if let Ok(record) = serde_json::from_str::<ServiceRecord>(text)
            && let Some(ip) = record.cluster_ips.first().and_then(|ip| ip.parse::<IpAddr>().ok())
        {
            services.insert(name.to_owned(), (ip, record));
        }
    };
    if let Some(text) = records.get(&service_key(SERVER.0, SERVER.1)) {
        add(SERVER.1, text);
    }
    if links {
        // One of the pod's own namespace goes before the API server's.
        let prefix = service_key(namespace, "");
        for (key, text) in records.below(&prefix) {
            add(key.strip_prefix(&prefix).unwrap_or_default(), text);
        }
    }
    let mut variables = Variables::new();
    for (name, (ip, record)) in &services {
        of_service(name, *ip, record, &mut variables);
    }
    variables
}

fn of_service(name: &str, ip: IpAddr, record: &ServiceRecord, variables: &mut Variables) {
    let Some(first) = record.ports.first() else { return };
    let prefix = upper(name);
    let mut set = |name: String, value: String| variables.push((name, value));
    set(format!("{prefix}_SERVICE_HOST"), ip.to_string());
    set(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in record.ports.iter().filter(|port| !port.name.is_empty()) {
        set(format!("{prefix}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string());
    }
    for (index, port) in record.ports.iter().enumerate() {
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        let scheme = protocol.to_lowercase();
        let at = std::net::SocketAddr::new(ip, port.port);
        let url = format!("{scheme}://{at}");
        if index == 0 {
            set(format!("{prefix}_PORT"), url.clone());
        }
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set(link.clone(), url);
        set(format!("{link}_PROTO"), scheme);
        set(format!("{link}_PORT"), port.port.to_string());
        set(format!("{link}_ADDR"), ip.to_string());
    }
}

fn upper(name: &str) -> String {
    name.replace(['.', '-'], "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(namespace: &str, links: Option<bool>) -> Vec<String> {
        let mut records = Records::default();
        for (key, text) in [
            (
                "service/default/kubernetes",
                r#"{"clusterIPs":["10.96.0.1"],"ports":[{"name":"https","port":443}]}"#,
            ),
            (
                "service/shop/redis-primary",
                r#"{"clusterIPs":["10.0.0.11"],"ports":[{"port":6379},{"name":"dns.x","protocol":"UDP","port":53}]}"#,
            ),
            ("service/shop/headless", r#"{"clusterIPs":["None"],"ports":[{"port":1}]}"#),
            ("service/shop/out", r#"{"type":"ExternalName","externalName":"x"}"#),
            ("service/shopping/other", r#"{"clusterIPs":["10.0.0.12"],"ports":[{"port":1}]}"#),
        ] {
            records.put(key, text);
        }
        let pod = serde_json::json!({"metadata": {"namespace": namespace},
            "spec": {"containers": [], "enableServiceLinks": links}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        of_pod(&pod, &records).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    const SERVERS: [&str; 8] = [
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "KUBERNETES_SERVICE_PORT_HTTPS=443",
        "KUBERNETES_PORT=tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO=tcp",
        "KUBERNETES_PORT_443_TCP_PORT=443",
        "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
    ];

    #[test]
    fn services_are_told_as_the_kubelet_tells_them() {
        assert_eq!(variables("default", None), SERVERS);
        assert_eq!(variables("shop", Some(false)), SERVERS);
        let own = [
            "REDIS_PRIMARY_SERVICE_HOST=10.0.0.11",
            "REDIS_PRIMARY_SERVICE_PORT=6379",
            "REDIS_PRIMARY_SERVICE_PORT_DNS_X=53",
            "REDIS_PRIMARY_PORT=tcp://10.0.0.11:6379",
            "REDIS_PRIMARY_PORT_6379_TCP=tcp://10.0.0.11:6379",
            "REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp",
            "REDIS_PRIMARY_PORT_6379_TCP_PORT=6379",
            "REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.0.0.11",
            "REDIS_PRIMARY_PORT_53_UDP=udp://10.0.0.11:53",
            "REDIS_PRIMARY_PORT_53_UDP_PROTO=udp",
            "REDIS_PRIMARY_PORT_53_UDP_PORT=53",
            "REDIS_PRIMARY_PORT_53_UDP_ADDR=10.0.0.11",
        ];
        assert_eq!(variables("shop", Some(true)), [&SERVERS[..], &own[..]].concat());
    }
}
