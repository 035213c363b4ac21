//! Ways to the pods of the pool's other nodes: a route to each pod network by way of its node's address, where
//! that is on one of this node's own wires. What is not is another's to reach, and is said once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::time::timeout;
use toono_net::{Cidr, LinkName, NEIGHBOUR_PROTOCOL, Netlink, NetlinkError, Route};
use toono_wire::pool::{NodeRecord, Records};

use crate::{
    join::chain,
    network::{NetworkError, PodNetwork},
    pool::{Pool, Touch},
};

/// What could not be done, or what a node without its address yet would be reached by, is looked at again after
/// this.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// What the records' keys begin with.
const PREFIX: &str = "node/";

/// Keeps the routes for as long as the agent lives.
pub(crate) async fn keep(node: String, network: PodNetwork, pool: Pool) {
    let follower = pool.follow();
    let mut told = BTreeSet::new();
    loop {
        let done = settle(&node, &network, &pool, &mut told).await;
        let rest = match &done {
            Ok(all) => !*all,
            Err(error) => {
                tracing::warn!(error = chain(error), "pods of neighbours may be out of reach");
                true
            }
        };
        loop {
            let touch = if rest {
                let Ok(touch) = timeout(LOOK_AGAIN, follower.changed()).await else { break };
                touch
            } else {
                follower.changed().await
            };
            match touch {
                Touch::Keys(keys) if !keys.iter().any(|key| key.starts_with(PREFIX)) => {}
                _ => break,
            }
        }
    }
}

/// Makes the routes what the records say. Whether every neighbour can be reached.
async fn settle(
    node: &str,
    network: &PodNetwork,
    pool: &Pool,
    told: &mut BTreeSet<String>,
) -> Result<bool, NetworkError> {
    let wanted = pool.read(|records| ways(records, node));
    let host = network.host();
    let wires = wires(host, network.bridge()).await?;
    let is_near = |via: &IpAddr| wires.iter().any(|wire| wire.contains(*via));
    let (near, far): (BTreeMap<_, _>, BTreeMap<_, _>) =
        wanted.into_iter().partition(|(_, (_, via))| is_near(via));
    for (cidr, (name, via)) in &far {
        if told.insert(name.clone()) {
            tracing::warn!(
                neighbour = name, %via, %cidr,
                "the neighbour is on none of this node's links; its pods are not reached by a route"
            );
        }
    }
    for route in host.routes_of(NEIGHBOUR_PROTOCOL).await? {
        let kept = near.get(&route.destination);
        if kept.is_none_or(|(_, via)| Some(*via) != route.gateway) {
            host.delete_route(&route).await?;
        }
    }
    // What is not translated on its way there must have a way back, which the neighbours have.
    network.spare(near.keys().copied().collect()).await?;
    for (cidr, (name, via)) in &near {
        let route = Route { protocol: NEIGHBOUR_PROTOCOL, ..Route::via(*cidr, *via) };
        if let Err(error) = host.replace_route(&route).await {
            tracing::warn!(neighbour = name, %cidr, error = chain(&error), "no route to its pods");
        }
    }
    Ok(far.is_empty())
}

/// The pod networks of others, and whose they are and by which address.
fn ways(records: &Records, own: &str) -> BTreeMap<Cidr, (String, IpAddr)> {
    let mut ways = BTreeMap::new();
    for (key, text) in records.below(PREFIX) {
        let name = key.strip_prefix(PREFIX).unwrap_or_default();
        let Ok(record) = serde_json::from_str::<NodeRecord>(text) else { continue };
        let addresses: Vec<IpAddr> =
            record.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        for cidr in record.pod_cidrs.iter().filter_map(|cidr| cidr.parse::<Cidr>().ok()) {
            let same = |ip: &&IpAddr| ip.is_ipv4() == cidr.address().is_ipv4();
            if name != own
                && let Some(via) = addresses.iter().find(same)
            {
                ways.insert(cidr.network(), (name.to_owned(), *via));
            }
        }
    }
    ways
}

/// The networks that this node has a link in, but for its own pods'.
async fn wires(host: &Netlink, bridge: &LinkName) -> Result<Vec<Cidr>, NetlinkError> {
    let mut wires = Vec::new();
    for link in host.links().await? {
        if link.name != *bridge && link.name != LinkName::loopback() {
            wires.extend(host.addresses(&link.name).await?.into_iter().map(|it| it.network()));
        }
    }
    Ok(wires)
}

/// Removes the routes of neighbours.
pub(crate) async fn remove(host: &Netlink) -> Result<(), NetlinkError> {
    for route in host.routes_of(NEIGHBOUR_PROTOCOL).await? {
        host.delete_route(&route).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_other_node_with_a_network_has_a_way() {
        let mut records = Records::default();
        for (name, text) in [
            ("own", r#"{"addresses":["10.0.0.1"],"podCIDRs":["10.244.1.0/24"]}"#),
            (
                "b",
                r#"{"addresses":["fd00::2","10.0.0.2"],"podCIDRs":["10.244.2.0/24","fd01::/64"]}"#,
            ),
            ("c", r#"{"podCIDRs":["10.244.3.0/24"]}"#),
            ("d", r#"{"addresses":["x"],"podCIDRs":["y"]}"#),
        ] {
            records.put(&format!("node/{name}"), text);
        }
        let ways: Vec<String> = ways(&records, "own")
            .into_iter()
            .map(|(cidr, (name, via))| format!("{cidr} {name} {via}"))
            .collect();
        assert_eq!(ways, ["10.244.2.0/24 b 10.0.0.2", "fd01::/64 b fd00::2"]);
    }
}
