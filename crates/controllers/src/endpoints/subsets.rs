//! The subsets of the older kind: addresses grouped by their ports, ready ones first, at most a
//! thousand in all. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    kinds::{EndpointAddress, EndpointSubset, IPV6, SubsetPort},
    members,
};
use crate::{
    kinds::{Service, pod::Pod},
    object::Metadata,
    pods::{is_ready, node_name},
};

/// Most addresses of one object: Kubernetes' limit, which keeps it below what a store takes.
pub(super) const MAX_ADDRESSES: usize = 1000;

/// The subsets of a service, and whether addresses were left out.
pub(super) fn subsets<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod>,
) -> (Vec<EndpointSubset>, bool) {
    let mut by_ports: BTreeMap<Vec<SubsetPort>, EndpointSubset> = BTreeMap::new();
    for pod in pods {
        let leaving = pod.metadata.is_leaving();
        if leaving && !service.spec.publish_not_ready_addresses {
            continue;
        }
        let Some(address) = address(service, pod) else { continue };
        let mut ports = ports(service, pod);
        // A service without ports has endpoints only when it is headless.
        if ports.is_empty() && !(service.spec.ports.is_empty() && members::is_headless(service)) {
            continue;
        }
        ports.sort();
        let subset = by_ports
            .entry(ports.clone())
            .or_insert_with(|| EndpointSubset { ports, ..EndpointSubset::default() });
        if service.spec.publish_not_ready_addresses || is_ready(pod) {
            subset.addresses.push(address);
        } else {
            subset.not_ready_addresses.push(address);
        }
    }
    let mut subsets: Vec<_> = by_ports.into_values().collect();
    for subset in &mut subsets {
        subset.addresses.sort_by(|a, b| order(a).cmp(&order(b)));
        subset.not_ready_addresses.sort_by(|a, b| order(a).cmp(&order(b)));
    }
    let truncated = truncate(&mut subsets);
    (subsets, truncated)
}

fn order(address: &EndpointAddress) -> (&str, Option<&str>) {
    let target = address.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    (&address.ip, target)
}

fn ports(service: &Service, pod: &Pod) -> Vec<SubsetPort> {
    let found = members::ports(service, pod).into_iter().filter_map(|port| {
        Some(SubsetPort {
            name: port.name,
            port: port.port?,
            protocol: port.protocol,
            app_protocol: port.app_protocol,
        })
    });
    found.collect()
}

/// The pod's address in the service's first family.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let ipv6 = match service.spec.ip_families.first() {
        Some(family) => family == IPV6,
        None => matches!(service.spec.cluster_ip.parse(), Ok(IpAddr::V6(_))),
    };
    let ip = members::addresses(pod).iter().copied().find(|ip| ip.is_ipv6() == ipv6)?;
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: members::hostname(service, pod).unwrap_or_default(),
        node_name: node_name(pod).map(str::to_owned),
        target_ref: Some(members::reference(pod)),
    })
}

/// Leaves out what is too much, from each subset its share, of the ready ones only if they alone
/// are too many.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let ready: usize = subsets.iter().map(|subset| subset.addresses.len()).sum();
    let not_ready: usize = subsets.iter().map(|subset| subset.not_ready_addresses.len()).sum();
    if ready + not_ready <= MAX_ADDRESSES {
        return false;
    }
    let cut_ready = ready > MAX_ADDRESSES;
    let (room, of) =
        if cut_ready { (MAX_ADDRESSES, ready) } else { (MAX_ADDRESSES - ready, not_ready) };
    let mut left = room;
    for subset in subsets {
        if cut_ready {
            subset.not_ready_addresses.clear();
        }
        let cut = if cut_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let share = (cut.len() * room).div_ceil(of).min(left);
        cut.truncate(share);
        left -= cut.len();
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(number: usize, ready: bool, port: i32) -> Pod {
        let address = format!("10.0.{}.{}", number / 250, number % 250);
        let status = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}"), "uid": format!("u{number}")},
            "spec": {"nodeName": "n", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
            "status": {"podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": status}]},
        }))
        .unwrap()
    }

    fn of(pods: &[Pod]) -> (Vec<EndpointSubset>, bool) {
        let service = serde_json::from_value(json!({"metadata": {"name": "web"},
            "spec": {"clusterIP": "10.1.0.1", "ports": [{"port": 80, "targetPort": "web"}]}}));
        subsets(&service.unwrap(), pods.iter())
    }

    #[test]
    fn addresses_with_the_same_ports_are_together() {
        let (subsets, truncated) =
            of(&[pod(2, true, 80), pod(1, true, 80), pod(3, false, 80), pod(4, true, 81)]);
        assert!(!truncated);
        let ips = |all: &[EndpointAddress]| all.iter().map(|a| a.ip.clone()).collect::<Vec<_>>();
        let found: Vec<_> = subsets
            .iter()
            .map(|s| (s.ports[0].port, ips(&s.addresses), ips(&s.not_ready_addresses)))
            .collect();
        let text = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found,
            [
                (80, text(&["10.0.0.1", "10.0.0.2"]), text(&["10.0.0.3"])),
                (81, text(&["10.0.0.4"]), text(&[]))
            ]
        );
    }

    #[test]
    fn beyond_a_thousand_the_ready_ones_stay() {
        let pods: Vec<_> = (0..1200).map(|number| pod(number, number % 3 != 0, 80)).collect();
        let (subsets, truncated) = of(&pods);
        assert!(truncated);
        assert_eq!((subsets[0].addresses.len(), subsets[0].not_ready_addresses.len()), (800, 200));
        let pods: Vec<_> = (0..1200).map(|n| pod(n, true, 80 + i32::from(n % 3 == 0))).collect();
        let (subsets, _) = of(&pods);
        let sizes: Vec<_> = subsets.iter().map(|subset| subset.addresses.len()).collect();
        assert_eq!(sizes, [667, 333]);
    }
}
