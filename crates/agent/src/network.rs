//! The pod network of one node: a bridge, a cable to each pod, and a masquerade for what leaves.
//!
//! Everything it makes carries the node's mark, and every operation may be repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use tokio::sync::Mutex;
use toono_net::{
    Cidr, CidrError, LinkName, LinkNameError, Mark, MarkError, NetNs, NetNsError, Netlink,
    NetlinkError, Route, VethPeer, netns,
    nft::{
        Base, Chain, ChainKind, ChainName, Datum, Family, Field, FilledBy, Hook, Key, NameError,
        NftError, Nftables, PRIORITY_SRCNAT, Policy, Register, Rule, Set, SetData, SetName, Source,
        Statement, Step, Table, TableName, Value, Version,
    },
};

use crate::{
    AgentError,
    addresses::{Addresses, Exhausted},
    neighbours,
};

/// What a pod's cable is called inside.
const POD_LINK: &str = "eth0";
/// What a pod's cable is called on the node, before the uid's digits.
const HOST_LINK_PREFIX: &str = "tn";
/// The node's nftables table.
const TABLE: &str = "toono_node";

/// What failed about the pod network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Links, addresses and routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Namespaces and sysctls.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The masquerade.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A name that cannot be a link's.
    #[error(transparent)]
    LinkName(#[from] LinkNameError),
    /// A name that cannot be in a mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// A name that cannot be a table's.
    #[error(transparent)]
    Table(#[from] NameError),
    /// A pod network that is not one.
    #[error(transparent)]
    Cidr(#[from] CidrError),
    /// No address is free.
    #[error("{0}")]
    Exhausted(String),
    /// The addresses cannot be kept.
    #[error(transparent)]
    Disk(#[from] Box<AgentError>),
}

impl From<Exhausted> for NetworkError {
    fn from(error: Exhausted) -> Self {
        Self::Exhausted(error.to_string())
    }
}

impl From<AgentError> for NetworkError {
    fn from(error: AgentError) -> Self {
        Self::Disk(Box::new(error))
    }
}

/// The pod network. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct PodNetwork {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: Netlink,
    bridge: LinkName,
    mark: Mark,
    network: Cidr,
    gateway: Ipv4Addr,
    addresses: Mutex<Addresses>,
    /// The pod networks of others to which pods go under their own addresses.
    spared: Mutex<BTreeSet<Cidr>>,
}

/// The mark of everything that a node of this name makes.
pub(crate) fn mark_of(node: &str) -> Result<Mark, MarkError> {
    Mark::new(format!("toono:node/{node}"))
}

impl PodNetwork {
    /// Makes the bridge and the masquerade.
    pub(crate) async fn set_up(
        bridge: &LinkName,
        node: &str,
        network: Cidr,
        addresses: Addresses,
    ) -> Result<Self, NetworkError> {
        let host = Netlink::current()?;
        let mark = mark_of(node)?;
        let gateway = Cidr::new(addresses.gateway(), addresses.length())?;
        host.ensure_bridge(bridge, &mark).await?;
        for old in host.addresses(bridge).await? {
            // The pod network may have been another one under an earlier identity.
            if old.address().is_ipv4() && old != gateway {
                host.delete_address(bridge, old).await?;
            }
        }
        host.ensure_address(bridge, gateway).await?;
        host.set_up(bridge).await?;
        host.netns().write_sysctl("net/ipv4/ip_forward", "1")?;
        let mut nft = Nftables::current()?;
        if nft.read_frame(Family::Ip, &TableName::new(TABLE)?)?.is_none() {
            // What an earlier agent left knows the neighbours.
            nft.apply(&table(bridge, network, &BTreeSet::new())?)?;
        }
        let (bridge, gateway) = (bridge.clone(), addresses.gateway());
        let (addresses, spared) = (Mutex::new(addresses), Mutex::default());
        let inner = Inner { host, bridge, mark, network, gateway, addresses, spared };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Has pods go to these networks of other pods under their own addresses, and to nobody else.
    pub(crate) async fn spare(&self, networks: BTreeSet<Cidr>) -> Result<(), NetworkError> {
        let mut spared = self.inner.spared.lock().await;
        Nftables::current()?.apply(&table(&self.inner.bridge, self.inner.network, &networks)?)?;
        *spared = networks;
        Ok(())
    }

    /// Makes good what somebody else took from the rules; whether anything was gone.
    pub(crate) async fn mend(&self) -> Result<bool, NetworkError> {
        let spared = self.inner.spared.lock().await;
        let wanted = table(&self.inner.bridge, self.inner.network, &spared)?;
        let mut nft = Nftables::current()?;
        let found = nft.read_frame(wanted.family, &wanted.name)?;
        if found.is_some_and(|found| found.chains == wanted.chains) {
            return Ok(false);
        }
        Ok(nft.apply(&wanted)?)
    }

    /// The node's own network namespace.
    pub(crate) fn host(&self) -> &Netlink {
        &self.inner.host
    }

    /// Plugs the pod whose sandbox is held by this process in, and tells its address.
    pub(crate) async fn attach(&self, uid: &str, keeper: i32) -> Result<IpAddr, NetworkError> {
        let inner = &self.inner;
        let pod_netns = netns::of_pid(keeper)?;
        let (address, gateway) = {
            let mut addresses = inner.addresses.lock().await;
            (addresses.give(uid)??, addresses.gateway())
        };
        let near = host_link(uid)?;
        let far = LinkName::new(POD_LINK)?;
        let mark = Mark::new(format!("{}/{uid}", inner.mark))?;
        inner.host.ensure_veth(&near, &VethPeer { netns: &pod_netns, name: &far }, &mark).await?;
        inner.host.set_master(&near, Some(&inner.bridge)).await?;
        // Where the kernel shows bridged packets to the rules, they are led back inside the bridge.
        inner.host.set_hairpin(&near).await?;
        inner.host.set_up(&near).await?;
        self.configure_inside(&pod_netns, &far, address, gateway).await?;
        Ok(address.into())
    }

    async fn configure_inside(
        &self,
        pod_netns: &NetNs,
        link: &LinkName,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let inside = Netlink::in_namespace(pod_netns)?;
        inside.set_up(&LinkName::loopback()).await?;
        // All goes by way of the node, also to pods beside it: what was translated there on its way must come
        // back there.
        let own = Cidr::host(address);
        for old in inside.addresses(link).await? {
            if old.address().is_ipv4() && old != own {
                inside.delete_address(link, old).await?;
            }
        }
        inside.ensure_address(link, own).await?;
        inside.set_up(link).await?;
        for scope in ["all", POD_LINK] {
            // The node would tell the pod of a shorter way each time it sends a packet back into the bridge.
            pod_netns.write_sysctl(&format!("net/ipv4/conf/{scope}/accept_redirects"), "0")?;
        }
        inside.replace_route(&Route::on_link(Cidr::host(gateway), link.clone())).await?;
        inside.replace_route(&Route::default_via(gateway.into())).await?;
        Ok(())
    }

    /// Unplugs the pod and takes its address back.
    pub(crate) async fn detach(&self, uid: &str) -> Result<(), NetworkError> {
        self.unplug(uid).await?;
        self.inner.addresses.lock().await.free_of(uid)?;
        Ok(())
    }

    /// Unplugs the pod; its address stays its own.
    pub(crate) async fn unplug(&self, uid: &str) -> Result<(), NetworkError> {
        self.inner.host.delete_link(&host_link(uid)?).await?;
        Ok(())
    }

    /// Unplugs every pod but these, and takes back their addresses: what an earlier agent left.
    pub(crate) async fn keep_only(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), NetworkError> {
        let prefix = format!("{}/", self.inner.mark);
        for link in self.inner.host.links_of(&self.inner.mark).await? {
            let uid = link.alias.as_deref().and_then(|alias| alias.strip_prefix(&prefix));
            if uid.is_some_and(|uid| !wanted(uid)) {
                self.inner.host.delete_link(&link.name).await?;
            }
        }
        self.inner.addresses.lock().await.keep_only(wanted)?;
        Ok(())
    }

    /// The bridge that pods are plugged into.
    pub(crate) fn bridge(&self) -> &LinkName {
        &self.inner.bridge
    }

    /// The bridge's own address.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.inner.gateway
    }

    /// The pod network's prefix.
    pub(crate) fn cidr(&self) -> Cidr {
        self.inner.network
    }
}

/// Removes all that nodes of this name have made here.
pub(crate) async fn tear_down(node: &str) -> Result<(), NetworkError> {
    let host = Netlink::current()?;
    for link in host.links_of(&mark_of(node)?).await? {
        host.delete_link(&link.name).await?;
    }
    neighbours::remove(&host).await?;
    Nftables::current()?.delete(Family::Ip, &TableName::new(TABLE)?)?;
    Ok(())
}

/// What leaves the node for elsewhere carries the node's address: nobody outside knows the pods', but for
/// the neighbours.
fn table(bridge: &LinkName, network: Cidr, spared: &BTreeSet<Cidr>) -> Result<Table, NetworkError> {
    let near = SetName::new("neighbours")?;
    let to = Register::new(1);
    let load = Step::Load { source: Source::To(Version::V4), into: to };
    let member = Step::Member { set: near.clone(), key: to, negated: true };
    let masquerade = Rule::new("pods leave with the node's address")
        .when(Field::Source(network.network()))
        .unless(Field::Destination(network.network()))
        .unless(Field::OutputInterface(bridge.clone()))
        .then(Statement::Step(load))
        .then(Statement::Step(member))
        .masquerade();
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, policy: Policy::Accept });
    Ok(Table {
        family: Family::Ip,
        name: TableName::new(TABLE)?,
        sets: vec![Set {
            name: near,
            key: vec![Datum::Ipv4],
            data: SetData::None,
            filled_by: FilledBy::Ranges,
            elements: ranges(spared),
        }],
        chains: vec![Chain {
            name: ChainName::new("postrouting")?,
            base: base(ChainKind::Nat, Hook::Postrouting, PRIORITY_SRCNAT),
            rules: vec![masquerade],
        }],
    })
}

/// The networks as ranges; those that touch are one.
fn ranges(networks: &BTreeSet<Cidr>) -> BTreeMap<Key, Value> {
    let mut ranges: BTreeMap<u32, u32> = BTreeMap::new();
    let mut last: Option<(u32, u32)> = None;
    for network in networks {
        let IpAddr::V4(first) = network.network().address() else { continue };
        let hosts = u32::MAX.checked_shr(u32::from(network.length())).unwrap_or(0);
        let (start, end) = (first.to_bits(), first.to_bits().saturating_add(hosts));
        let joined = match last {
            Some((before, until)) if start <= until.saturating_add(1) => (before, until.max(end)),
            _ => (start, end),
        };
        ranges.insert(joined.0, joined.1);
        last = Some(joined);
    }
    let key = |bits: u32| Key::new().address(Ipv4Addr::from_bits(bits).into());
    let elements = ranges.into_iter().flat_map(|(start, end)| {
        let after = end.checked_add(1).map(|after| (key(after).ending_range(), Value::None));
        [Some((key(start), Value::None)), after].into_iter().flatten()
    });
    elements.collect()
}

/// A link's name holds 15 bytes: the prefix and twelve digits of the uid, which is random.
fn host_link(uid: &str) -> Result<LinkName, LinkNameError> {
    let digits: String = uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    LinkName::new(format!("{HOST_LINK_PREFIX}{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_touch_are_one_range() {
        let all = ["10.244.1.0/24", "10.244.2.0/24", "10.244.4.0/24", "10.244.0.0/16", "fd00::/64"];
        let networks = |which: &[usize]| which.iter().map(|at| all[*at].parse().unwrap()).collect();
        assert_eq!(ranges(&networks(&[0, 1])).len(), 2);
        assert_eq!(ranges(&networks(&[0, 1, 2])).len(), 4);
        assert_eq!(ranges(&networks(&[0, 1, 2, 3, 4])).len(), 2);
        let last = Cidr::new([255, 255, 255, 0], 24).unwrap();
        assert_eq!(ranges(&[last].into()).len(), 1, "nothing comes after it");
    }

    #[test]
    fn a_uid_makes_a_link_name() {
        let name = host_link("0e984725-c51c-4bf4-9960-e1c80e27aba0").unwrap();
        assert_eq!(name.as_str(), "tn0e984725c51c");
        assert!(name.as_str().len() <= 15);
    }
}
