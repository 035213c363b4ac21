//! All Services together: who wants which front, and what differs after records changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use toono_wire::pool::{
    Records, ServiceRecord, SliceRecord,
    near::{TopologyKeys, Vantage},
    node_key,
};

use crate::{
    front::{Fate, Front, GroupId, Place, Protocol, Treatment},
    groups::Groups,
    plan::{self, Aim, HostPort, Plan, Site, Slice},
    tracked::{Change, Counted, Tracked},
};

/// Which addresses a topology is about: a packet goes to an endpoint of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether the address is of this family.
    #[must_use]
    pub fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }
}

/// What a node must do, and what that was when [`Topology::take_changes`] was called last.
#[derive(Debug)]
pub struct Topology {
    vantage: Vantage,
    family: Family,
    /// Services for which it matters who is in this node's pool.
    near: BTreeSet<Arc<str>>,
    /// Which Service a slice is of.
    slices: HashMap<Arc<str>, Arc<str>>,
    /// Slices of each Service.
    services: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// What each owner got: Services by `namespace/name`, pods by [`pod_owner`].
    installed: HashMap<Arc<str>, Installed>,
    here: BTreeMap<(String, String), SocketAddr>,
    groups: Groups,
    /// Who wants a front. The first one gets it.
    claims: BTreeMap<Front, BTreeMap<Arc<str>, Treatment>>,
    fronts: Tracked<Front, Treatment>,
    cluster_ips: Counted<IpAddr>,
    own: Counted<IpAddr>,
}

#[derive(Debug, Default)]
struct Installed {
    plan: Plan,
    groups: Vec<GroupId>,
}

/// What differs since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Fronts.
    pub fronts: Vec<Change<Front, Treatment>>,
    /// Endpoints at the slots of groups, numbered from 0 without a gap.
    pub slots: Vec<Change<(GroupId, u32), SocketAddr>>,
    /// Endpoints of groups with affinity.
    pub members: Vec<Change<(GroupId, SocketAddr), ()>>,
    /// Addresses at which nothing is served but what fronts say.
    pub cluster_ips: Vec<Change<IpAddr, ()>>,
    /// Addresses of this node's endpoints, which may be led to themselves.
    pub own: Vec<Change<IpAddr, ()>>,
    /// UDP packets of flows that began before may go where they should no longer: see
    /// [`Topology::is_stale`].
    pub disturbs_udp: bool,
}

impl Changes {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fronts.is_empty()
            && self.slots.is_empty()
            && self.members.is_empty()
            && self.cluster_ips.is_empty()
            && self.own.is_empty()
    }
}

/// The owner of a pod's host ports. Sorts after no Service: a pod was there first, and was admitted.
fn pod_owner(uid: &str) -> Arc<str> {
    format!("#pod/{uid}").into()
}

impl Topology {
    /// Of a node that knows no Service yet.
    #[must_use]
    pub fn new(node: impl Into<String>, family: Family) -> Self {
        Self {
            vantage: Vantage { node: node.into(), ..Vantage::default() },
            family,
            near: BTreeSet::new(),
            slices: HashMap::new(),
            services: HashMap::new(),
            installed: HashMap::new(),
            here: BTreeMap::new(),
            groups: Groups::default(),
            claims: BTreeMap::new(),
            fronts: Tracked::default(),
            cluster_ips: Counted::default(),
            own: Counted::default(),
        }
    }

    /// Where the node is now. Whether it was elsewhere: then all records are to be looked at anew.
    pub fn set_vantage(&mut self, vantage: Vantage) -> bool {
        let moves = self.vantage != vantage;
        self.vantage = vantage;
        moves
    }

    /// Looks at all records anew.
    pub fn read_all(&mut self, records: &Records) {
        let mut keys: Vec<Arc<str>> = records.iter().map(|(key, _)| key.clone()).collect();
        let gone = self.slices.keys().map(|slice| Arc::from(format!("slice/{slice}")));
        keys.extend(gone);
        let gone = self.installed.keys().map(|service| Arc::from(format!("service/{service}")));
        keys.extend(gone.filter(|key: &Arc<str>| !key.starts_with("service/#pod/")));
        self.read(records, keys.iter().map(|key| &**key));
    }

    /// Looks at records that came, changed or went, by their keys.
    pub fn read<'k>(&mut self, records: &Records, touched: impl Iterator<Item = &'k str> + Clone) {
        let mut dirty: BTreeSet<Arc<str>> = BTreeSet::new();
        // Slices first: they say whose the endpoints are.
        for slice in touched.clone().filter_map(|key| key.strip_prefix("slice/")) {
            self.read_slice(records, slice, &mut dirty);
        }
        for key in touched {
            if let Some(service) = key.strip_prefix("service/") {
                dirty.insert(service.into());
            } else if let Some(endpoint) = key.strip_prefix("endpoint/") {
                let slice = endpoint.rsplit_once('/').map(|(slice, _)| slice);
                dirty.extend(slice.and_then(|slice| self.slices.get(slice)).cloned());
            } else if key.starts_with("node/") {
                dirty.extend(self.near.iter().cloned());
            }
        }
        for service in dirty {
            self.plan_service(records, &service);
        }
    }

    /// Has a port of a Service, by its name, lead to this address of the node itself, whatever endpoints the
    /// records have; or no longer.
    pub fn serve_here(
        &mut self,
        records: &Records,
        service: &str,
        port: &str,
        at: Option<SocketAddr>,
    ) {
        let key = (service.to_owned(), port.to_owned());
        match at {
            Some(at) => drop(self.here.insert(key, at)),
            None => drop(self.here.remove(&key)),
        }
        self.plan_service(records, &service.into());
    }

    /// Has a pod have these ports of the node.
    pub fn set_host_ports(&mut self, uid: &str, ports: &[HostPort]) {
        self.install(pod_owner(uid), plan::of_pod(ports, self.family));
    }

    /// What differs since this was called last.
    pub fn take_changes(&mut self) -> Changes {
        let fronts = self.fronts.take_changes();
        Changes {
            disturbs_udp: self.groups.take_disturbed()
                || fronts.iter().any(|change| change.key.protocol == Protocol::Udp),
            fronts,
            slots: self.groups.take_slots(),
            members: self.groups.take_members(),
            cluster_ips: self.cluster_ips.take_changes(),
            own: self.own.take_changes(),
        }
    }

    /// Everything, as changes from nothing.
    #[must_use]
    pub fn everything(&self) -> Changes {
        fn new<K: Copy, V: Copy>((key, value): (&K, &V)) -> Change<K, V> {
            Change { key: *key, before: None, after: Some(*value) }
        }
        let there = |ip: &IpAddr| Change { key: *ip, before: None, after: Some(()) };
        let member = |key: &(GroupId, SocketAddr)| new((key, &()));
        Changes {
            fronts: self.fronts.all().iter().map(new).collect(),
            slots: self.groups.slots().iter().map(new).collect(),
            members: self.groups.members().map(member).collect(),
            cluster_ips: self.cluster_ips.keys().map(there).collect(),
            own: self.own.keys().map(there).collect(),
            disturbs_udp: true,
        }
    }

    /// The endpoints of a group, in the order of their slots.
    pub fn endpoints(&self, group: GroupId) -> impl Iterator<Item = SocketAddr> {
        self.groups.endpoints(group)
    }

    /// Whether a flow to `original` that goes to `actual` would be sent elsewhere if it began now.
    #[must_use]
    pub fn is_stale(&self, protocol: Protocol, original: SocketAddr, actual: SocketAddr) -> bool {
        let at = |place| self.fronts.get(&Front { place, protocol, port: original.port() });
        let treatment = at(Place::Address(original.ip())).or_else(|| {
            // What was not translated may be to the same port of anybody.
            at(Place::Node).filter(|_| original != actual)
        });
        let Some(treatment) = treatment else { return false };
        let leads = |fate: Fate| match fate {
            Fate::Group { id, .. } => self.groups.endpoints(id).any(|it| it == actual),
            Fate::Refuse | Fate::Drop => false,
        };
        !leads(treatment.fate) && !treatment.outside.is_some_and(leads)
    }

    fn read_slice(&mut self, records: &Records, slice: &str, dirty: &mut BTreeSet<Arc<str>>) {
        let record = records.get(&format!("slice/{slice}"));
        let record = record.and_then(|text| serde_json::from_str::<SliceRecord>(text).ok());
        let namespace = slice.split_once('/').map_or("", |(namespace, _)| namespace);
        let owner = record.map(|record| Arc::from(format!("{namespace}/{}", record.service)));
        let slice: Arc<str> = slice.into();
        let old = match &owner {
            Some(owner) => self.slices.insert(slice.clone(), Arc::clone(owner)),
            None => self.slices.remove(&slice),
        };
        if let Some(old) = old.filter(|old| Some(old) != owner.as_ref()) {
            if let Some(slices) = self.services.get_mut(&old) {
                slices.remove(&slice);
                if slices.is_empty() {
                    self.services.remove(&old);
                }
            }
            dirty.insert(old);
        }
        if let Some(owner) = owner {
            self.services.entry(owner.clone()).or_default().insert(slice);
            dirty.insert(owner);
        }
    }

    fn plan_service(&mut self, records: &Records, service: &Arc<str>) {
        let record = records.get(&format!("service/{service}"));
        let record = record.and_then(|text| serde_json::from_str::<ServiceRecord>(text).ok());
        let asks = |record: &ServiceRecord| {
            TopologyKeys::parse(&record.topology_keys).asks_for_neighbours()
        };
        if record.as_ref().is_some_and(asks) {
            self.near.insert(service.clone());
        } else {
            self.near.remove(service);
        }
        let plan = record.map(|record| {
            let slices: Vec<Slice> = self
                .services
                .get(service)
                .into_iter()
                .flatten()
                .filter_map(|slice| read_endpoints(records, slice))
                .collect();
            let is_neighbour = |node: &str| records.get(&node_key(node)).is_some();
            let (vantage, family) = (&self.vantage, self.family);
            let site = Site { vantage, family, slices: &slices, is_neighbour: &is_neighbour };
            let here = |port: &str| {
                self.here
                    .get(&(service.to_string(), port.to_owned()))
                    .copied()
                    .filter(|at| self.family.has(at.ip()))
            };
            plan::of_service(&record, &site, here)
        });
        self.install(service.clone(), plan.unwrap_or_default());
    }

    /// Puts a plan in the place of its owner's last one.
    fn install(&mut self, owner: Arc<str>, plan: Plan) {
        let old = self.installed.remove(&owner).unwrap_or_default();
        if old.plan == plan {
            if plan != Plan::default() {
                self.installed.insert(owner, old);
            }
            return;
        }
        let mut put =
            |group: &plan::Group| self.groups.put(format!("{owner}/{}", group.name), group);
        let groups: Vec<GroupId> = plan.groups.iter().map(&mut put).collect();
        for group in old.groups.iter().filter(|group| !groups.contains(group)) {
            self.groups.remove(*group);
        }
        for (front, aims) in &plan.fronts {
            let fate = |aim| match aim {
                Aim::Group(at) => groups.get(at).and_then(|id| self.groups.fate(*id)),
                Aim::Refuse => Some(Fate::Refuse),
                Aim::Drop => Some(Fate::Drop),
            };
            let Some(inside) = fate(aims.aim) else { continue };
            let treatment = Treatment { fate: inside, outside: aims.outside.and_then(fate) };
            self.claims.entry(*front).or_default().insert(owner.clone(), treatment);
            self.settle(*front);
        }
        let kept: BTreeSet<Front> = plan.fronts.iter().map(|(front, _)| *front).collect();
        for (front, _) in old.plan.fronts.iter().filter(|(front, _)| !kept.contains(front)) {
            if let Some(claims) = self.claims.get_mut(front) {
                claims.remove(&owner);
                if claims.is_empty() {
                    self.claims.remove(front);
                }
            }
            self.settle(*front);
        }
        plan.cluster_ips.iter().for_each(|ip| self.cluster_ips.add(*ip));
        old.plan.cluster_ips.iter().for_each(|ip| self.cluster_ips.remove(*ip));
        plan.own.iter().for_each(|ip| self.own.add(*ip));
        old.plan.own.iter().for_each(|ip| self.own.remove(*ip));
        if plan != Plan::default() {
            self.installed.insert(owner, Installed { plan, groups });
        }
    }

    fn settle(&mut self, front: Front) {
        let claims = self.claims.get(&front);
        let winner = claims.and_then(|claims| claims.first_key_value()).map(|(_, it)| *it);
        self.fronts.set(front, winner);
    }
}

fn read_endpoints(records: &Records, slice: &str) -> Option<Slice> {
    let record = records.get(&format!("slice/{slice}"))?;
    let record: SliceRecord = serde_json::from_str(record).ok()?;
    let prefix = format!("endpoint/{slice}/");
    let endpoints = records.below(&prefix).filter_map(|(key, text)| {
        let ip = key.strip_prefix(&prefix)?.parse().ok()?;
        Some((ip, serde_json::from_str(text).ok()?))
    });
    Some(Slice { record, endpoints: endpoints.collect() })
}
