//! Sites, made and removed: the bridge on the host, and for each pool a router with NAT, a LAN and its nodes.
//! Every step compares with what the kernel has, so a whole lab is left alone and a broken one is mended.

use std::net::Ipv4Addr;

use toono_net::nft::{
    Base, Chain, ChainKind, ChainName, Family, Field, Hook, Nftables, PRIORITY_FILTER,
    PRIORITY_SRCNAT, Policy, Rule, States, Table, TableName,
};
use toono_net::{Cidr, LinkName, Mark, NetNs, NetNsError, Netlink, Route, VethPeer, netns};

use crate::config::{NodePlan, Plan, PoolPlan};
use crate::{LabConfig, LabError, LabName, state};

/// The length of the prefix of a LAN.
const LAN_LENGTH: u8 = 24;

/// The names of links inside the namespaces.
pub(crate) const WAN: &str = "wan";
pub(crate) const LAN: &str = "lan";
pub(crate) const NODE_LINK: &str = "eth0";

/// The table of a router.
pub(crate) const ROUTER_TABLE: &str = "toono_router";

/// Makes the lab so, whatever there is of it. Nothing is changed that is right already. A new lab that cannot
/// be made whole is removed again; of one that was there, what could be mended stays.
pub async fn up(config: &LabConfig) -> Result<(), LabError> {
    let new = state::find(&config.name)?.is_none();
    let made = make(config).await;
    if made.is_err() && new {
        // Best effort: the first failure is the one to tell.
        let _ = down(&config.name).await;
    }
    made
}

async fn make(config: &LabConfig) -> Result<(), LabError> {
    let plan = config.plan()?;
    let host = Netlink::current()?;
    let bridge = config.name.bridge()?;
    check_subnet(&host, config, &bridge).await?;
    // First of all, so that `down` finds the lab whatever happens from here on.
    state::save(config)?;
    remove_surplus(&host, config, &plan).await?;

    let mark = config.name.mark()?;
    host.ensure_bridge(&bridge, &mark).await?;
    without_ipv6(host.netns(), bridge.as_str())?;
    exact_address(&host, &bridge, Cidr::new(plan.cloud.0, plan.cloud.1)?).await?;
    host.set_up(&bridge).await?;
    for pool in &plan.pools {
        let router = ensure_router(&host, &bridge, pool, plan.cloud.0, &mark).await?;
        for node in &pool.nodes {
            ensure_node(&router, pool, node, &mark).await?;
        }
    }
    Ok(())
}

/// Removes everything that carries the lab's names and marks, also what is half-made. No error when there is
/// nothing. Processes in the namespaces are the caller's to stop first.
pub async fn down(name: &LabName) -> Result<(), LabError> {
    let host = Netlink::current()?;
    // The host's cable ends first: a namespace is freed by the kernel some time after its name.
    for link in host.links_of(&name.mark()?).await? {
        host.delete_link(&link.name).await?;
    }
    for netns in netns::list(&name.netns_prefix())? {
        netns::delete(&netns)?;
    }
    state::remove(name)
}

/// A network in use elsewhere on this machine would swallow the lab's packets, or the lab its.
async fn check_subnet(
    host: &Netlink,
    config: &LabConfig,
    bridge: &LinkName,
) -> Result<(), LabError> {
    let subnet: Cidr = config.subnet.parse()?;
    let taken = |found| LabError::SubnetTaken { subnet: config.subnet.clone(), found };
    let own = host.find_link(bridge).await?.map(|link| link.index);
    for (index, address) in host.all_addresses().await? {
        if Some(index) != own && subnet.overlaps(&address) {
            return Err(taken(format!("the address {address}")));
        }
    }
    for route in host.routes().await? {
        let default = route.destination.length() == 0;
        if !default && route.link.as_ref() != Some(bridge) && subnet.overlaps(&route.destination) {
            return Err(taken(format!("the route to {}", route.destination)));
        }
    }
    Ok(())
}

/// What an earlier, larger lab of this name has left.
async fn remove_surplus(host: &Netlink, config: &LabConfig, plan: &Plan) -> Result<(), LabError> {
    let bridge = config.name.bridge()?;
    for link in host.links_of(&config.name.mark()?).await? {
        let wanted =
            link.name == bridge || plan.pools.iter().any(|pool| pool.uplink == link.name.as_str());
        if !wanted {
            host.delete_link(&link.name).await?;
        }
    }
    for netns in netns::list(&config.name.netns_prefix())? {
        if !plan.namespaces().any(|wanted| wanted == netns) {
            netns::delete(&netns)?;
        }
    }
    Ok(())
}

async fn ensure_router(
    host: &Netlink,
    bridge: &LinkName,
    pool: &PoolPlan,
    cloud: Ipv4Addr,
    mark: &Mark,
) -> Result<Netlink, LabError> {
    let netlink = ensure_namespace(&pool.router).await?;
    let netns = netlink.netns();
    netns.write_sysctl("net/ipv4/ip_forward", "1")?;
    // Closed before it is connected.
    Nftables::in_namespace(netns)?.apply(&router_table()?)?;

    let (uplink, wan, lan) =
        (LinkName::new(&*pool.uplink)?, LinkName::new(WAN)?, LinkName::new(LAN)?);
    host.ensure_veth(&uplink, &VethPeer { netns, name: &wan }, mark).await?;
    without_ipv6(host.netns(), &pool.uplink)?;
    host.set_master(&uplink, Some(bridge)).await?;
    host.set_up(&uplink).await?;
    exact_address(&netlink, &wan, Cidr::new(pool.wan.0, pool.wan.1)?).await?;
    netlink.set_up(&wan).await?;
    netlink.replace_route(&Route::default_via(cloud.into())).await?;

    netlink.ensure_bridge(&lan, mark).await?;
    exact_address(&netlink, &lan, Cidr::new(pool.lan, LAN_LENGTH)?).await?;
    netlink.set_up(&lan).await?;
    Ok(netlink)
}

async fn ensure_node(
    router: &Netlink,
    pool: &PoolPlan,
    node: &NodePlan,
    mark: &Mark,
) -> Result<(), LabError> {
    let netlink = ensure_namespace(&node.netns).await?;
    let (port, eth0, lan) =
        (LinkName::new(&*node.port)?, LinkName::new(NODE_LINK)?, LinkName::new(LAN)?);
    router.ensure_veth(&port, &VethPeer { netns: netlink.netns(), name: &eth0 }, mark).await?;
    router.set_master(&port, Some(&lan)).await?;
    router.set_up(&port).await?;
    exact_address(&netlink, &eth0, Cidr::new(node.address, LAN_LENGTH)?).await?;
    netlink.set_up(&eth0).await?;
    netlink.replace_route(&Route::default_via(pool.lan.into())).await?;
    Ok(())
}

/// A namespace whose loopback is up and whose links speak IPv4 only.
async fn ensure_namespace(name: &str) -> Result<Netlink, LabError> {
    let (netns, _) = netns::ensure(name)?;
    for scope in ["all", "default"] {
        without_ipv6(&netns, scope)?;
    }
    let netlink = Netlink::in_namespace(&netns)?;
    netlink.set_up(&LinkName::loopback()).await?;
    Ok(netlink)
}

/// Keeps IPv6 off a link: its router and group solicitations would never let a link be idle.
fn without_ipv6(netns: &NetNs, scope: &str) -> Result<(), LabError> {
    match netns.write_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1") {
        // A kernel without IPv6 has nothing to keep off.
        Err(NetNsError::Sysctl { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        other => Ok(other?),
    }
}

/// The link has this address and no other.
async fn exact_address(netlink: &Netlink, link: &LinkName, address: Cidr) -> Result<(), LabError> {
    for other in netlink.addresses(link).await? {
        if other != address {
            netlink.delete_address(link, other).await?;
        }
    }
    Ok(netlink.ensure_address(link, address).await?)
}

/// What the router of a home or a shop does: everything out with its own address, answers in, nothing else.
fn router_table() -> Result<Table, LabError> {
    let wan = LinkName::new(WAN)?;
    let guard = |comment: &str| {
        vec![
            Rule::new("answers")
                .when(Field::State(States::ESTABLISHED.or(States::RELATED)))
                .accept(),
            Rule::new(comment).when(Field::InputInterface(wan.clone())).counted().drop(),
        ]
    };
    let filter = |hook| Base {
        kind: ChainKind::Filter,
        hook,
        priority: PRIORITY_FILTER,
        policy: Policy::Accept,
    };
    let nat = Base {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: PRIORITY_SRCNAT,
        policy: Policy::Accept,
    };
    let masquerade = Rule::new("NAT").when(Field::OutputInterface(wan.clone())).masquerade();
    let chain = |name: &str, base, rules| {
        Ok::<_, LabError>(Chain { name: ChainName::new(name)?, base: Some(base), rules })
    };
    Ok(Table {
        family: Family::Inet,
        name: TableName::new(ROUTER_TABLE)?,
        sets: Vec::new(),
        chains: vec![
            chain("input", filter(Hook::Input), guard("nobody reaches the router"))?,
            chain("forward", filter(Hook::Forward), guard("nobody reaches through"))?,
            chain("postrouting", nat, vec![masquerade])?,
        ],
    })
}
