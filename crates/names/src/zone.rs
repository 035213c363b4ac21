//! The cluster's zone: what each of its names means, read from the pool's records when it is asked for.
//!
//! Texts are not kept in a second form: a question costs the reading of one record, or of one for each endpoint of
//! a headless Service.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use toono_wire::pool::{
    EndpointRecord, Records, ServicePort, ServiceRecord, SliceRecord,
    near::{TopologyKeys, Vantage},
    node_key, service_key,
};

use crate::{
    index::Index,
    message::kind,
    name::{BadName, Name},
};

/// The version of the specification that names follow.
const SCHEMA: &str = "1.1.0";
/// For how long an answer may be kept. Pods move, and the next question costs no network.
const TTL: u32 = 5;
/// The same for what never changes.
const LONG_TTL: u32 = 28_800;
/// All weights of a name's SRV records together; each is at least 1.
const WEIGHT: usize = 100;
/// Endpoints that an answer is made of at most: more do not fit into any message.
const MOST_ENDPOINTS: usize = 2_048;

/// The zone. Its records are handed in.
#[derive(Debug)]
pub struct Zone {
    domain: Name,
    dns: Vec<IpAddr>,
    index: Index,
    serial: u32,
    vantage: Vantage,
}

/// A record to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub owner: Name,
    /// For how many seconds it holds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name that it is an alias of.
    Cname(Name),
    /// A server of the zone.
    Ns(Name),
    /// The name that an address has.
    Ptr(Name),
    /// Where a service is. All have priority 0.
    Srv {
        /// Its share of clients.
        weight: u16,
        /// The port.
        port: u16,
        /// The host.
        target: Name,
    },
    /// Up to 255 bytes of text.
    Txt(&'static str),
    /// The start of authority.
    Soa(Box<Soa>),
}

/// The data of an SOA record (RFC 1035, 3.3.13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    pub(crate) server: Name,
    pub(crate) mailbox: Name,
    pub(crate) serial: u32,
    pub(crate) refresh: u32,
    pub(crate) retry: u32,
    pub(crate) expire: u32,
    pub(crate) minimum: u32,
}

/// What a name of the zone means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is not in the zone.
    Elsewhere,
    /// There is no such name.
    NoName,
    /// The name is there, and has no record of that kind.
    Nothing,
    /// These records, and what helps to use them.
    Records {
        /// What was asked for.
        answers: Vec<Record>,
        /// Addresses of the names in it.
        additional: Vec<Record>,
    },
    /// An alias of a name that may be anywhere.
    Alias(Record, Name),
}

/// An endpoint as an answer needs it.
struct Endpoint {
    address: IpAddr,
    host: String,
    node: String,
}

impl Zone {
    /// A zone without records.
    ///
    /// # Errors
    /// When the domain, such as `cluster.local`, leaves no room for names below it, or is none.
    pub fn new(domain: &str, dns: Vec<IpAddr>) -> Result<Self, BadName> {
        let domain = Name::of(domain)?;
        domain.child("hostmaster")?.child("ns")?;
        let (index, vantage) = (Index::default(), Vantage::default());
        Ok(Self { domain, dns, index, serial: 1, vantage })
    }

    /// The zone's own name.
    #[must_use]
    pub fn domain(&self) -> &Name {
        &self.domain
    }

    /// Where its node is, for Services whose endpoints are to be near.
    pub fn set_vantage(&mut self, vantage: Vantage) {
        self.serial = self.serial.wrapping_add(u32::from(self.vantage != vantage));
        self.vantage = vantage;
    }

    /// A record is there now, or has another text.
    pub fn put(&mut self, key: &Arc<str>, text: &str) {
        self.index.put(key, text);
        self.serial = self.serial.wrapping_add(1);
    }

    /// A record is gone.
    pub fn remove(&mut self, key: &Arc<str>) {
        self.index.remove(key);
        self.serial = self.serial.wrapping_add(1);
    }

    /// All records are others now.
    pub fn replace(&mut self, records: &Records) {
        self.index = Index::default();
        records.iter().for_each(|(key, text)| self.put(key, text));
    }

    /// What a name means.
    #[must_use]
    pub fn find(&self, records: &Records, name: &Name, kind: u16) -> Found {
        let Some(labels) = name.below(&self.domain) else {
            return self.reverse(records, name, kind);
        };
        let labels: Result<Vec<&str>, _> =
            labels.iter().map(|label| std::str::from_utf8(label)).collect();
        let Ok(labels) = labels else { return Found::NoName };
        let look = Look { zone: self, records, name, kind };
        match labels.as_slice() {
            [] => look.apex(),
            ["dns-version"] => look.of_kind(kind::TXT, LONG_TTL, Data::Txt(SCHEMA)),
            ["dns"] | ["svc"] | ["pod"] | [_, "pod"] => Found::Nothing,
            ["ns", "dns"] => look.addresses(self.dns.iter().copied()),
            [address, _, "pod"] => match pod_address(address) {
                Some(address) => look.addresses([address].into_iter()),
                None => Found::NoName,
            },
            [namespace, "svc"] => look.namespace(namespace),
            [service, namespace, "svc"] => look.service(namespace, service),
            [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
                look.protocol(namespace, service, protocol)
            }
            [host, service, namespace, "svc"] => look.endpoint(namespace, service, host),
            [port, protocol, service, namespace, "svc"] => {
                look.port(namespace, service, protocol, port)
            }
            _ => Found::NoName,
        }
    }

    /// The start of authority, which says for how long there is nothing.
    #[must_use]
    pub fn soa(&self) -> Record {
        let below = |label: &str| self.domain.child(label).unwrap_or_else(|_| self.domain.clone());
        let soa = Soa {
            server: self.server(),
            mailbox: below("hostmaster"),
            serial: self.serial,
            refresh: 7_200,
            retry: 1_800,
            expire: 86_400,
            minimum: TTL,
        };
        Record { owner: self.domain.clone(), ttl: TTL, data: Data::Soa(Box::new(soa)) }
    }

    fn server(&self) -> Name {
        let server = self.domain.child("dns").and_then(|dns| dns.child("ns"));
        server.unwrap_or_else(|_| self.domain.clone())
    }

    /// Names of addresses: of Services, and of endpoints of headless Services.
    fn reverse(&self, records: &Records, name: &Name, kind: u16) -> Found {
        let Some(address) = reversed(name) else { return Found::Elsewhere };
        let mut names = BTreeSet::new();
        let mut assigned = BTreeSet::new();
        for key in self.index.holders_of(address) {
            match key.split('/').collect::<Vec<_>>().as_slice() {
                ["service", namespace, service] => {
                    names.extend(self.service_name(namespace, service));
                }
                ["endpoint", namespace, slice, address] => {
                    let found = self.endpoint_name(records, key, namespace, slice, address);
                    match found {
                        Some((name, true)) => drop(names.insert(name)),
                        Some((name, false)) => drop(assigned.insert(name)),
                        None => {}
                    }
                }
                _ => {}
            }
        }
        // Names that somebody gave go before those that we made up.
        let names = if names.is_empty() { assigned } else { names };
        if names.is_empty() {
            return Found::Elsewhere;
        }
        if kind != kind::PTR && kind != kind::ANY {
            return Found::Nothing;
        }
        let record = |target| Record { owner: name.clone(), ttl: TTL, data: Data::Ptr(target) };
        Found::Records { answers: names.into_iter().map(record).collect(), additional: Vec::new() }
    }

    fn service_name(&self, namespace: &str, service: &str) -> Option<Name> {
        let svc = self.domain.child("svc").and_then(|svc| svc.child(namespace));
        svc.and_then(|namespace| namespace.child(service)).ok()
    }

    /// The name of a ready endpoint of a headless Service, and whether somebody gave it.
    fn endpoint_name(
        &self,
        records: &Records,
        key: &str,
        namespace: &str,
        slice: &str,
        address: &str,
    ) -> Option<(Name, bool)> {
        let service_key = self.index.service_of(namespace, slice)?;
        let service: ServiceRecord = serde_json::from_str(records.get(service_key)?).ok()?;
        let endpoint: EndpointRecord = serde_json::from_str(records.get(key)?).ok()?;
        if !is_headless(&service) || endpoint.is_unready && !service.publish_not_ready {
            return None;
        }
        let (_, service) = service_key.rsplit_once('/')?;
        let given = !endpoint.hostname.is_empty();
        let host = host(&endpoint, address);
        Some((self.service_name(namespace, service)?.child(&host).ok()?, given))
    }
}

/// One question to the zone.
struct Look<'l> {
    zone: &'l Zone,
    records: &'l Records,
    name: &'l Name,
    kind: u16,
}

impl Look<'_> {
    fn record(&self, ttl: u32, data: Data) -> Record {
        Record { owner: self.name.clone(), ttl, data }
    }

    fn of_kind(&self, kind: u16, ttl: u32, data: Data) -> Found {
        if self.kind != kind && self.kind != kind::ANY {
            return Found::Nothing;
        }
        Found::Records { answers: vec![self.record(ttl, data)], additional: Vec::new() }
    }

    fn apex(&self) -> Found {
        match self.kind {
            kind::NS => self.of_kind(kind::NS, TTL, Data::Ns(self.zone.server())),
            kind::SOA | kind::ANY => {
                Found::Records { answers: vec![self.zone.soa()], additional: Vec::new() }
            }
            _ => Found::Nothing,
        }
    }

    /// Those addresses that are of the kind that is asked for.
    fn addresses(&self, all: impl Iterator<Item = IpAddr>) -> Found {
        let wanted = |data: &Data| self.kind == data.kind() || self.kind == kind::ANY;
        let answers = all.map(Data::address).filter(wanted).map(|data| self.record(TTL, data));
        let answers: Vec<Record> = answers.collect();
        if answers.is_empty() {
            return Found::Nothing;
        }
        Found::Records { answers, additional: Vec::new() }
    }

    fn namespace(&self, namespace: &str) -> Found {
        let prefix = format!("service/{namespace}/");
        let has_any = self.records.below(&prefix).next().is_some();
        if has_any { Found::Nothing } else { Found::NoName }
    }

    fn read(&self, namespace: &str, service: &str) -> Option<(String, ServiceRecord)> {
        let key = service_key(namespace, service);
        let record = serde_json::from_str(self.records.get(&key)?).ok()?;
        Some((key, record))
    }

    fn service(&self, namespace: &str, service: &str) -> Found {
        let Some((key, record)) = self.read(namespace, service) else { return Found::NoName };
        if record.r#type == "ExternalName" {
            return match Name::of(&record.external_name) {
                Ok(target) => Found::Alias(self.record(TTL, Data::Cname(target.clone())), target),
                Err(_) => Found::Nothing,
            };
        }
        if !is_headless(&record) {
            return self.addresses(record.cluster_ips.iter().filter_map(|ip| ip.parse().ok()));
        }
        let endpoints: BTreeSet<IpAddr> =
            self.endpoints(namespace, &key, &record).map(|(it, _)| it.address).collect();
        // So says the specification (2.4.1).
        if endpoints.is_empty() { Found::NoName } else { self.addresses(endpoints.into_iter()) }
    }

    fn endpoint(&self, namespace: &str, service: &str, host: &str) -> Found {
        let Some((key, record)) = self.read(namespace, service) else { return Found::NoName };
        let endpoints = self.endpoints(namespace, &key, &record);
        let addresses: BTreeSet<IpAddr> = endpoints
            .filter_map(|(endpoint, _)| (endpoint.host == host).then_some(endpoint.address))
            .collect();
        if addresses.is_empty() { Found::NoName } else { self.addresses(addresses.into_iter()) }
    }

    /// A name between those of a Service and of its ports.
    fn protocol(&self, namespace: &str, service: &str, protocol: &str) -> Found {
        let Some((_, record)) = self.read(namespace, service) else { return Found::NoName };
        let there = |port: &ServicePort| !port.name.is_empty() && is_protocol(port, protocol);
        if record.ports.iter().any(there) { Found::Nothing } else { Found::NoName }
    }

    fn port(&self, namespace: &str, service: &str, protocol: &str, port: &str) -> Found {
        let Some((key, record)) = self.read(namespace, service) else { return Found::NoName };
        let Some(port) = port.strip_prefix('_').filter(|port| !port.is_empty()) else {
            return Found::NoName;
        };
        let mut ports = record.ports.iter();
        let named = |it: &&ServicePort| it.name == port && is_protocol(it, protocol);
        let Some(found) = ports.find(named) else { return Found::NoName };
        let Some(name) = self.zone.service_name(namespace, service) else { return Found::NoName };
        let targets: Vec<(Name, u16, IpAddr)> = if is_headless(&record) {
            self.endpoints(namespace, &key, &record)
                .filter_map(|(endpoint, slice)| {
                    let mut ports = slice.ports.iter();
                    let its = ports.find(|it| it.name == port && is_same(&it.protocol, found))?;
                    Some((name.child(&endpoint.host).ok()?, its.port, endpoint.address))
                })
                .collect()
        } else {
            let ips = record.cluster_ips.iter().filter_map(|ip| ip.parse().ok());
            ips.map(|ip| (name.clone(), found.port, ip)).collect()
        };
        self.targets(&targets)
    }

    fn targets(&self, targets: &[(Name, u16, IpAddr)]) -> Found {
        if targets.is_empty() {
            return Found::NoName;
        }
        if self.kind != kind::SRV && self.kind != kind::ANY {
            return Found::Nothing;
        }
        let distinct: BTreeSet<(&Name, u16)> =
            targets.iter().map(|(name, port, _)| (name, *port)).collect();
        let weight = u16::try_from((WEIGHT / distinct.len()).max(1)).unwrap_or(1);
        let answers = distinct.into_iter().map(|(target, port)| {
            self.record(TTL, Data::Srv { weight, port, target: target.clone() })
        });
        let additional = targets.iter().map(|(name, _, address)| Record {
            owner: name.clone(),
            ttl: TTL,
            data: Data::address(*address),
        });
        Found::Records { answers: answers.collect(), additional: additional.collect() }
    }

    /// The endpoints of a Service that are to be found here, each with its slice.
    fn endpoints(
        &self,
        namespace: &str,
        service_key: &str,
        service: &ServiceRecord,
    ) -> impl Iterator<Item = (Endpoint, Arc<SliceRecord>)> {
        let all = self.all_endpoints(namespace, service_key, service).collect();
        let keys = TopologyKeys::parse(&service.topology_keys);
        let is_neighbour = |node: &str| self.records.get(&node_key(node)).is_some();
        keys.select(&self.zone.vantage, all, node_of, |_| true, is_neighbour).into_iter()
    }

    /// Those of all nodes.
    fn all_endpoints<'s>(
        &'s self,
        namespace: &'s str,
        service_key: &'s str,
        service: &'s ServiceRecord,
    ) -> impl Iterator<Item = (Endpoint, Arc<SliceRecord>)> + 's {
        let slices = self.zone.index.slices_of(service_key).filter_map(move |key| {
            let record: SliceRecord = serde_json::from_str(self.records.get(key)?).ok()?;
            let (_, name) = key.rsplit_once('/')?;
            Some((format!("endpoint/{namespace}/{name}/"), Arc::new(record)))
        });
        let all = slices.flat_map(move |(prefix, slice)| {
            let found: Vec<(Endpoint, Arc<SliceRecord>)> = self
                .records
                .below(&prefix)
                .take(MOST_ENDPOINTS)
                .filter_map(|(key, text)| {
                    let address = key.strip_prefix(&prefix)?;
                    let record: EndpointRecord = serde_json::from_str(text).ok()?;
                    if record.is_unready && !service.publish_not_ready {
                        return None;
                    }
                    let host = host(&record, address);
                    let (address, node) = (address.parse().ok()?, record.node);
                    Some((Endpoint { address, host, node }, slice.clone()))
                })
                .collect();
            found
        });
        all.take(MOST_ENDPOINTS)
    }
}

impl Data {
    /// An address as a record says it.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }

    /// The number of its kind.
    #[must_use]
    pub fn kind(&self) -> u16 {
        match self {
            Self::A(_) => kind::A,
            Self::Aaaa(_) => kind::AAAA,
            Self::Cname(_) => kind::CNAME,
            Self::Ns(_) => kind::NS,
            Self::Ptr(_) => kind::PTR,
            Self::Srv { .. } => kind::SRV,
            Self::Txt(_) => kind::TXT,
            Self::Soa(_) => kind::SOA,
        }
    }
}

fn node_of(found: &(Endpoint, Arc<SliceRecord>)) -> &str {
    &found.0.node
}

fn is_headless(service: &ServiceRecord) -> bool {
    service.cluster_ips.first().is_some_and(|ip| ip == "None")
}

/// The label of an endpoint: the name it was given, or its address.
fn host(endpoint: &EndpointRecord, address: &str) -> String {
    if endpoint.hostname.is_empty() {
        address.replace(['.', ':'], "-")
    } else {
        endpoint.hostname.to_ascii_lowercase()
    }
}

/// Whether a port has the protocol of a label such as `_tcp`.
fn is_protocol(port: &ServicePort, label: &str) -> bool {
    let own = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
    label.strip_prefix('_').is_some_and(|label| label.eq_ignore_ascii_case(own))
}

fn is_same(protocol: &str, port: &ServicePort) -> bool {
    let or_tcp = |text: &str| if text.is_empty() { "TCP".to_owned() } else { text.to_owned() };
    or_tcp(protocol) == or_tcp(&port.protocol)
}

/// The address in a pod's label, such as `10-244-3-7`.
fn pod_address(label: &str) -> Option<IpAddr> {
    let dotted: Option<Ipv4Addr> = label.replace('-', ".").parse().ok();
    let colons = || label.replace('-', ":").parse().ok().map(IpAddr::V6);
    dotted.map(IpAddr::V4).or_else(colons)
}

/// The address whose name is asked for (RFC 1035, 3.5; RFC 3596, 2.5).
fn reversed(name: &Name) -> Option<IpAddr> {
    let labels: Option<Vec<&str>> = name.labels().map(|it| std::str::from_utf8(it).ok()).collect();
    let labels = labels?;
    let (digits, ending) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    match (ending, digits.len()) {
        (["in-addr", "arpa"], 4) => {
            let text: Vec<&str> = digits.iter().rev().copied().collect();
            text.join(".").parse().ok().map(IpAddr::V4)
        }
        (["ip6", "arpa"], 32) => {
            let mut bits = 0_u128;
            for digit in digits.iter().rev() {
                let [byte] = digit.as_bytes() else { return None };
                bits = bits << 4 | u128::from(char::from(*byte).to_digit(16)?);
            }
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}
