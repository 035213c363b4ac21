//! One Service: from its records to what it wants of the node. Pure functions; nothing is remembered here.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use toono_wire::pool::{
    EndpointRecord, ServicePort, ServiceRecord, SliceRecord,
    near::{TopologyKeys, Vantage, listens},
};

use crate::{
    front::{Front, Place, Protocol},
    state::Family,
};

/// A port of the node that leads to a pod: `v1.ContainerPort` with a `hostPort`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// The node's address that it is on; `None` for all of them.
    pub host_ip: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The node's port.
    pub port: u16,
    /// The pod's address and the container's port.
    pub target: SocketAddr,
}

/// What something wants of the node. Equal things want equal plans.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
    pub(crate) fronts: Vec<(Front, Aims)>,
    /// Addresses at which nothing else is served than what the fronts say.
    pub(crate) cluster_ips: BTreeSet<IpAddr>,
    /// Addresses of endpoints of this node, which may reach themselves.
    pub(crate) own: BTreeSet<IpAddr>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// What it is called among those of the same Service.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) endpoints: BTreeSet<SocketAddr>,
    pub(crate) affinity_seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aims {
    pub(crate) aim: Aim,
    pub(crate) outside: Option<Aim>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// One of the plan's groups, by its place.
    Group(usize),
    Refuse,
    Drop,
}

/// The endpoints of one slice, by their addresses.
pub(crate) struct Slice {
    pub(crate) record: SliceRecord,
    pub(crate) endpoints: Vec<(IpAddr, EndpointRecord)>,
}

/// What a plan is made of, beside the Service itself.
pub(crate) struct Site<'a> {
    pub(crate) vantage: &'a Vantage,
    pub(crate) family: Family,
    pub(crate) slices: &'a [Slice],
    /// Whether a node is in this one's pool, for Services whose endpoints are in all of them.
    pub(crate) is_neighbour: &'a dyn Fn(&str) -> bool,
}

/// An endpoint that a port of a Service may lead to.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    address: SocketAddr,
    node: &'a str,
    is_own: bool,
    is_ready: bool,
    /// It ends, and still answers.
    still_answers: bool,
    /// Its node's agent does not answer; the endpoint itself might.
    is_silent: bool,
    hints: Hints,
}

/// Whether those are named who should prefer an endpoint, and this node is one of them.
#[derive(Debug, Clone, Copy, Default)]
struct Hints {
    names_nodes: bool,
    names_this: bool,
    names_zones: bool,
    names_this_zone: bool,
}

impl Hints {
    fn of(endpoint: &EndpointRecord, vantage: &Vantage) -> Self {
        Self {
            names_nodes: !endpoint.nodes.is_empty(),
            names_this: endpoint.nodes.contains(&vantage.node),
            names_zones: !endpoint.zones.is_empty(),
            names_this_zone: endpoint.zones.contains(&vantage.zone) && !vantage.zone.is_empty(),
        }
    }
}

/// The plan of a Service. `here` says which of its ports the node itself serves.
pub(crate) fn of_service(
    service: &ServiceRecord,
    site: &Site<'_>,
    here: impl Fn(&str) -> Option<SocketAddr>,
) -> Plan {
    let mut plan = Plan::default();
    let family = |text: &String| text.parse().ok().filter(|ip| site.family.has(*ip));
    plan.cluster_ips = service.cluster_ips.iter().filter_map(family).collect();
    let external: BTreeSet<IpAddr> =
        service.external_ips.iter().chain(&service.ingress).filter_map(family).collect();
    let listens = service.listen.as_ref().is_none_or(|list| listens(list, &site.vantage.pool));
    let has_node_ports = listens && matches!(&*service.r#type, "NodePort" | "LoadBalancer");
    for port in &service.ports {
        let Some(protocol) = Protocol::parse(&port.protocol) else { continue };
        let candidates = match here(&port.name) {
            Some(address) => vec![served_here(address)],
            None => candidates(service, port, protocol, site),
        };
        let targets = Targets::of(&candidates, &format!("{}/{protocol:?}", port.name));
        plan.own.extend(candidates.iter().filter(|it| it.is_own).map(|it| it.address.ip()));
        let front = |place, port| Front { place, protocol, port };
        let internal = targets.internal(&mut plan, service, protocol);
        for ip in plan.cluster_ips.clone() {
            plan.fronts.push((front(Place::Address(ip), port.port), internal));
        }
        let outer = external.iter().map(|ip| front(Place::Address(*ip), port.port));
        let node_port = has_node_ports && port.node_port != 0;
        let node_port = node_port.then(|| front(Place::Node, port.node_port));
        let fronts: Vec<Front> = outer.chain(node_port).collect();
        if !fronts.is_empty() {
            let aims = targets.external(&mut plan, service, protocol);
            plan.fronts.extend(fronts.into_iter().map(|front| (front, aims)));
        }
    }
    plan
}

/// The plan of a pod's ports on the node.
pub(crate) fn of_pod(ports: &[HostPort], family: Family) -> Plan {
    let mut plan = Plan::default();
    for port in ports.iter().filter(|port| family.has(port.target.ip())) {
        let place = port.host_ip.filter(|ip| !ip.is_unspecified());
        let place = place.map_or(Place::Node, Place::Address);
        if matches!(place, Place::Address(ip) if !family.has(ip)) {
            continue;
        }
        let front = Front { place, protocol: port.protocol, port: port.port };
        plan.own.insert(port.target.ip());
        plan.groups.push(Group {
            name: format!("{place:?}/{:?}/{}", port.protocol, port.port),
            protocol: port.protocol,
            endpoints: BTreeSet::from([port.target]),
            affinity_seconds: 0,
        });
        let aim = Aim::Group(plan.groups.len().saturating_sub(1));
        plan.fronts.push((front, Aims { aim, outside: None }));
    }
    plan
}

fn served_here(address: SocketAddr) -> Candidate<'static> {
    let hints = Hints::default();
    Candidate {
        address,
        node: "",
        is_own: true,
        is_ready: true,
        still_answers: false,
        is_silent: false,
        hints,
    }
}

/// The endpoints that this node may use.
fn candidates<'a>(
    service: &ServiceRecord,
    port: &ServicePort,
    protocol: Protocol,
    site: &Site<'a>,
) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    for slice in site.slices {
        let leads = slice.record.ports.iter().find(|candidate| {
            candidate.name == port.name && Protocol::parse(&candidate.protocol) == Some(protocol)
        });
        // A slice of endpoints without a port number is for those who choose ports themselves.
        let Some(target) = leads.map(|port| port.port).filter(|port| *port != 0) else { continue };
        for (ip, endpoint) in &slice.endpoints {
            if !site.family.has(*ip) {
                continue;
            }
            found.push(Candidate {
                address: SocketAddr::new(*ip, target),
                node: &endpoint.node,
                is_own: endpoint.node == site.vantage.node,
                hints: Hints::of(endpoint, site.vantage),
                is_ready: !endpoint.is_unready || service.publish_not_ready,
                still_answers: endpoint.still_serves && endpoint.is_terminating,
                is_silent: endpoint.is_silent,
            });
        }
    }
    let keys = TopologyKeys::parse(&service.topology_keys);
    let is_neighbour = site.is_neighbour;
    keys.select(site.vantage, found, |it| it.node, |it| it.is_ready, is_neighbour)
}

/// The endpoints of one port of a Service.
struct Targets {
    all: BTreeSet<SocketAddr>,
    own: BTreeSet<SocketAddr>,
    /// What their groups' names begin with.
    name: String,
}

impl Targets {
    fn of(candidates: &[Candidate<'_>], name: &str) -> Self {
        let preferred = preferred(candidates);
        let all = if preferred.is_empty() { usable(candidates.iter()) } else { preferred };
        let own = usable(candidates.iter().filter(|candidate| candidate.is_own));
        Self { all, own, name: name.to_owned() }
    }

    fn internal(&self, plan: &mut Plan, service: &ServiceRecord, protocol: Protocol) -> Aims {
        // Where there is no endpoint at all, no policy makes a difference.
        let is_local = service.internal_local && !self.all.is_empty();
        Aims { aim: self.aim(plan, service, protocol, is_local), outside: None }
    }

    fn external(&self, plan: &mut Plan, service: &ServiceRecord, protocol: Protocol) -> Aims {
        let is_local = service.external_local && !self.all.is_empty();
        let outside = is_local.then(|| self.aim(plan, service, protocol, true));
        // What comes from inside has no source address to lose, and may go anywhere.
        Aims { aim: self.aim(plan, service, protocol, false), outside }
    }

    fn aim(
        &self,
        plan: &mut Plan,
        service: &ServiceRecord,
        protocol: Protocol,
        is_local: bool,
    ) -> Aim {
        let (endpoints, policy, otherwise) = match is_local {
            true => (&self.own, "Local", Aim::Drop),
            false => (&self.all, "Cluster", Aim::Refuse),
        };
        if endpoints.is_empty() {
            return otherwise;
        }
        let name = format!("{}/{policy}", self.name);
        let known = plan.groups.iter().position(|group| group.name == name);
        Aim::Group(known.unwrap_or_else(|| {
            let (endpoints, affinity_seconds) = (endpoints.clone(), service.affinity_seconds);
            plan.groups.push(Group { name, protocol, endpoints, affinity_seconds });
            plan.groups.len().saturating_sub(1)
        }))
    }
}

/// Those that are ready and that this node, or else its zone, should prefer. None where any that is ready does not
/// say who should prefer it: somebody does not know all of them yet.
fn preferred(candidates: &[Candidate<'_>]) -> BTreeSet<SocketAddr> {
    type Says = fn(&Hints) -> bool;
    let ways: [(Says, Says); 2] = [
        (|hints| hints.names_nodes, |hints| hints.names_this),
        (|hints| hints.names_zones, |hints| hints.names_this_zone),
    ];
    let ready = candidates.iter().filter(|it| it.is_ready);
    for (names_any, names_us) in ways {
        let ours = ready.clone().filter(|it| names_us(&it.hints)).map(|it| it.address);
        let ours: BTreeSet<SocketAddr> = ours.collect();
        if !ours.is_empty() && ready.clone().all(|it| names_any(&it.hints)) {
            return ours;
        }
    }
    BTreeSet::new()
}

/// Those that are ready; where none is, those that end and still answer; where none does, those whose nodes are
/// silent: an agent may be dead and its pods well, and who would be refused loses nothing by trying.
fn usable<'a>(candidates: impl Iterator<Item = &'a Candidate<'a>> + Clone) -> BTreeSet<SocketAddr> {
    let tiers: [fn(&Candidate<'_>) -> bool; 3] =
        [|it| it.is_ready, |it| it.still_answers, |it| it.is_silent];
    let of = |tier: fn(&Candidate<'_>) -> bool| -> BTreeSet<SocketAddr> {
        candidates.clone().filter(|it| tier(it)).map(|it| it.address).collect()
    };
    tiers.into_iter().map(of).find(|found| !found.is_empty()).unwrap_or_default()
}
