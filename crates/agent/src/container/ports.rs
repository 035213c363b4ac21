//! Ports of the node that a pod wants for its containers. Pure.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::services::{Claim, HostPort, Protocol};

/// Where the node's ports lead that a pod with this address has.
pub(crate) fn of(pod: &Pod, ip: IpAddr) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    // As Kubernetes has it, containers that end before the others start have none, unless they go on.
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let containers = sidecars.chain(&spec.containers);
    containers
        .flat_map(|it| it.ports.iter().flatten())
        .filter_map(|port| of_port(port, ip))
        .collect()
}

/// The ports of the node that the pod wants, in the node's own network or in one of its own.
pub(crate) fn wanted(pod: &Pod) -> Vec<Claim> {
    // The address makes no difference to what is wanted.
    let any = IpAddr::from([0, 0, 0, 0]);
    let claim = |port: HostPort| {
        let host_ip = port.host_ip.filter(|ip| !ip.is_unspecified());
        Claim { host_ip, protocol: port.protocol, port: port.port }
    };
    of(pod, any).into_iter().map(claim).collect()
}

fn of_port(port: &ContainerPort, ip: IpAddr) -> Option<HostPort> {
    let number = |number: i32| u16::try_from(number).ok().filter(|number| *number != 0);
    let host_ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty());
    Some(HostPort {
        host_ip: host_ip.map(str::parse).transpose().ok()?,
        protocol: Protocol::parse(port.protocol.as_deref().unwrap_or_default())?,
        port: number(port.host_port?)?,
        target: SocketAddr::new(ip, number(port.container_port)?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_of_the_node_lead_to_those_of_containers() {
        let pod = json!({"spec": {
            "initContainers": [
                {"name": "first", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": "side", "restartPolicy": "Always", "ports": [{"containerPort": 2, "hostPort": 8002}]},
            ],
            "containers": [{"name": "web", "ports": [
                {"containerPort": 80},
                {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "192.0.2.1"},
                {"containerPort": 54, "hostPort": 5454, "hostIP": "0.0.0.0"},
            ]}],
        }});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let found = of(&pod, [10, 244, 0, 5].into());
        let text =
            |it: &HostPort| format!("{:?} {:?} {} {}", it.host_ip, it.protocol, it.port, it.target);
        assert_eq!(
            found.iter().map(text).collect::<Vec<_>>(),
            [
                "None Tcp 8002 10.244.0.5:2",
                "Some(192.0.2.1) Udp 5353 10.244.0.5:53",
                "Some(0.0.0.0) Tcp 5454 10.244.0.5:54",
            ]
        );
    }
}
