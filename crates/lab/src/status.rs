//! What there is of a lab, read from the kernel, beside what it should be.

use std::net::Ipv4Addr;

use serde::Serialize;
use toono_net::nft::Nftables;
use toono_net::{LinkName, Netlink, netns};

use crate::config::{NodePlan, PoolPlan};
use crate::site::{LAN, NODE_LINK, WAN};
use crate::{LabError, LabName, cut, state};

/// A lab as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabStatus {
    /// Its name.
    pub name: String,
    /// The network between the cloud and the routers.
    pub subnet: String,
    /// The cloud's address in it.
    pub cloud: Ipv4Addr,
    /// Its sites.
    pub pools: Vec<PoolStatus>,
}

/// A site as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// The pool's name.
    pub name: String,
    /// The router's namespace.
    pub router: String,
    /// The router's address as the cloud sees it.
    pub wan: Ipv4Addr,
    /// Whether the router and its links are there and up.
    pub whole: bool,
    /// Whether the link to the cloud is cut.
    pub cut: bool,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
}

/// A node's host as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// Its address in the LAN.
    pub address: Ipv4Addr,
    /// Whether the namespace and its link are there and up.
    pub whole: bool,
}

/// Reads the lab from the kernel; `None` when there is none of this name.
pub async fn status(name: &LabName) -> Result<Option<LabStatus>, LabError> {
    let Some(config) = state::find(name)? else { return Ok(None) };
    let plan = config.plan()?;
    let mut pools = Vec::new();
    for pool in &plan.pools {
        pools.push(pool_status(pool).await?);
    }
    Ok(Some(LabStatus {
        name: name.to_string(),
        subnet: config.subnet,
        cloud: plan.cloud.0,
        pools,
    }))
}

async fn pool_status(pool: &PoolPlan) -> Result<PoolStatus, LabError> {
    let mut status = PoolStatus {
        name: pool.name.clone(),
        router: pool.router.clone(),
        wan: pool.wan.0,
        whole: all_up(&pool.router, &[WAN, LAN]).await?,
        cut: false,
        nodes: Vec::new(),
    };
    if let Some(netns) = find_namespace(&pool.router)? {
        status.cut = cut::is_cut(&mut Nftables::in_namespace(&netns)?)?;
    }
    for NodePlan { name, netns, address, .. } in &pool.nodes {
        let whole = all_up(netns, &[NODE_LINK]).await?;
        status.nodes.push(NodeStatus {
            name: name.clone(),
            netns: netns.clone(),
            address: *address,
            whole,
        });
    }
    Ok(status)
}

async fn all_up(netns: &str, links: &[&str]) -> Result<bool, LabError> {
    let Some(netns) = find_namespace(netns)? else { return Ok(false) };
    let netlink = Netlink::in_namespace(&netns)?;
    for link in links {
        if !netlink.find_link(&LinkName::new(*link)?).await?.is_some_and(|link| link.up) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn find_namespace(name: &str) -> Result<Option<toono_net::NetNs>, LabError> {
    match netns::open(name) {
        Ok(netns) => Ok(Some(netns)),
        Err(toono_net::NetNsError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
