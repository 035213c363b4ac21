//! Whatever happens, and however it is told: the outcome is that of starting anew, and the changes lead to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use proptest::prelude::*;
use serde_json::json;
use toono_topology::{
    Change, Changes, Family, Fate, Front, GroupId, HostPort, Protocol, Topology, Treatment,
};
use toono_wire::pool::{Records, near::Vantage};

use crate::Node;

/// What happens to the records.
#[derive(Debug, Clone)]
enum Step {
    Service {
        service: u8,
        form: u8,
    },
    NoService {
        service: u8,
    },
    Slice {
        slice: u8,
        service: u8,
        port: u16,
    },
    NoSlice {
        slice: u8,
    },
    Endpoint {
        slice: u8,
        last: u8,
        form: u8,
    },
    NoEndpoint {
        slice: u8,
        last: u8,
    },
    HostPorts {
        pod: u8,
        port: u16,
    },
    Here {
        service: u8,
        on: bool,
    },
    /// The neighbour comes to this node's pool, or leaves it.
    Neighbour {
        on: bool,
    },
    /// The records are read as a whole.
    All,
}

fn step() -> impl Strategy<Value = Step> {
    let (service, slice, last) = (0..4_u8, 0..6_u8, 1..8_u8);
    prop_oneof![
        3 => (service.clone(), 0..16_u8).prop_map(|(service, form)| Step::Service { service, form }),
        1 => service.clone().prop_map(|service| Step::NoService { service }),
        3 => (slice.clone(), service.clone(), 80..82_u16)
            .prop_map(|(slice, service, port)| Step::Slice { slice, service, port }),
        1 => slice.clone().prop_map(|slice| Step::NoSlice { slice }),
        8 => (slice.clone(), last.clone(), 0..8_u8)
            .prop_map(|(slice, last, form)| Step::Endpoint { slice, last, form }),
        4 => (slice, last).prop_map(|(slice, last)| Step::NoEndpoint { slice, last }),
        1 => (0..3_u8, 0..4_u16).prop_map(|(pod, port)| Step::HostPorts { pod, port }),
        1 => (service, any::<bool>()).prop_map(|(service, on)| Step::Here { service, on }),
        1 => any::<bool>().prop_map(|on| Step::Neighbour { on }),
        1 => Just(Step::All),
    ]
}

/// A node of a pool.
fn pooled() -> Topology {
    let mut topology = Topology::new("here", Family::V4);
    let (node, pool) = ("here".into(), "shop".into());
    topology.set_vantage(Vantage { node, pool, zone: String::new() });
    topology
}

/// The records, and what was said beside them.
#[derive(Default)]
struct World {
    records: Records,
    pods: BTreeMap<u8, u16>,
    here: BTreeSet<u8>,
}

fn service(form: u8) -> String {
    let bit = |bit: u8| form & (1 << bit) != 0;
    json!({
        "clusterIPs": [format!("10.96.0.{}", form & 3)],
        "type": "NodePort",
        "externalIPs": if bit(3) { vec!["192.0.2.1"] } else { vec![] },
        "ports": [{"name": "a", "port": 80, "nodePort": 30000 + u16::from(form & 1)}],
        "affinitySeconds": if bit(2) { 60 } else { 0 },
        "externalLocal": bit(1),
        "internalLocal": bit(0) && bit(3),
        "topologyKeys": if bit(2) && bit(1) { "openyurt.io/nodepool, *" } else { "" },
    })
    .to_string()
}

fn endpoint(form: u8) -> String {
    let bit = |bit: u8| form & (1 << bit) != 0;
    let node = if bit(0) { "here" } else { "there" };
    json!({"node": node, "unready": bit(1), "serving": bit(2), "terminating": bit(2),
        "silent": bit(1) && bit(3)})
    .to_string()
}

fn here() -> SocketAddr {
    "10.244.0.254:53".parse().unwrap()
}

fn ports(port: u16) -> Vec<HostPort> {
    let target = "10.244.0.250:80".parse().unwrap();
    let port = HostPort { host_ip: None, protocol: Protocol::Tcp, port: 29_999 + port, target };
    if port.port == 29_999 { vec![] } else { vec![port] }
}

impl World {
    /// Does the step; the key of the record that it is about.
    fn take(&mut self, step: &Step, topology: &mut Topology) -> Option<String> {
        let (key, text) = match *step {
            Step::Service { service: name, form } => {
                (format!("service/n/{name}"), Some(service(form)))
            }
            Step::NoService { service } => (format!("service/n/{service}"), None),
            Step::Slice { slice, service, port } => {
                let ports = json!([{"name": "a", "port": port}]);
                let record =
                    json!({"service": service.to_string(), "family": "IPv4", "ports": ports});
                (format!("slice/n/s{slice}"), Some(record.to_string()))
            }
            Step::NoSlice { slice } => (format!("slice/n/s{slice}"), None),
            Step::Endpoint { slice, last, form } => {
                (format!("endpoint/n/s{slice}/10.244.0.{last}"), Some(endpoint(form)))
            }
            Step::NoEndpoint { slice, last } => {
                (format!("endpoint/n/s{slice}/10.244.0.{last}"), None)
            }
            Step::HostPorts { pod, port } => {
                self.pods.insert(pod, port);
                topology.set_host_ports(&pod.to_string(), &ports(port));
                return None;
            }
            Step::Here { service, on } => {
                if on {
                    self.here.insert(service)
                } else {
                    self.here.remove(&service)
                };
                let at = on.then(here);
                topology.serve_here(&self.records, &format!("n/{service}"), "a", at);
                return None;
            }
            Step::Neighbour { on } => ("node/there".to_owned(), on.then(|| "{}".to_owned())),
            Step::All => {
                topology.read_all(&self.records);
                return None;
            }
        };
        match text {
            Some(text) => drop(self.records.put(&key, &text)),
            None => drop(self.records.remove(&key)),
        }
        Some(key)
    }

    /// A topology that starts now.
    fn anew(&self) -> Topology {
        let mut topology = pooled();
        topology.read_all(&self.records);
        for (pod, port) in &self.pods {
            topology.set_host_ports(&pod.to_string(), &ports(*port));
        }
        for service in &self.here {
            topology.serve_here(&self.records, &format!("n/{service}"), "a", Some(here()));
        }
        topology
    }
}

/// What there is, told without numbers of groups and slots.
fn meaning(topology: &Topology) -> impl PartialEq + std::fmt::Debug + use<> {
    let everything = topology.everything();
    let fate = |fate: Fate| match fate {
        Fate::Group { id, affinity_seconds, .. } => {
            let endpoints: BTreeSet<SocketAddr> = topology.endpoints(id).collect();
            let members = everything.members.iter().filter(|it| it.key.0 == id);
            let members: BTreeSet<SocketAddr> = members.map(|it| it.key.1).collect();
            (None, endpoints, members, affinity_seconds)
        }
        other => (Some(other), BTreeSet::new(), BTreeSet::new(), 0),
    };
    let fronts: BTreeMap<Front, _> = everything
        .fronts
        .iter()
        .filter_map(|it| Some((it.key, it.after?)))
        .map(|(front, it)| (front, (fate(it.fate), it.outside.map(fate))))
        .collect();
    let slots = everything.slots.len();
    let ips: Vec<_> = everything.cluster_ips.iter().map(|it| it.key).collect();
    let own: Vec<_> = everything.own.iter().map(|it| it.key).collect();
    (fronts, slots, ips, own)
}

/// Whoever applies changes, and finds what each says was before.
#[derive(Debug, Default, PartialEq)]
struct Kernel {
    fronts: BTreeMap<Front, Treatment>,
    slots: BTreeMap<(GroupId, u32), SocketAddr>,
    members: BTreeMap<(GroupId, SocketAddr), ()>,
    ips: BTreeMap<std::net::IpAddr, ()>,
    own: BTreeMap<std::net::IpAddr, ()>,
}

fn apply<K, V>(map: &mut BTreeMap<K, V>, changes: Vec<Change<K, V>>)
where
    K: Ord + std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
{
    for change in changes {
        assert_ne!(change.before, change.after, "{:?} is no change", change.key);
        let had = map.remove(&change.key);
        assert_eq!(had, change.before, "{:?}", change.key);
        if let Some(after) = change.after {
            map.insert(change.key, after);
        }
    }
}

impl Kernel {
    fn apply(&mut self, changes: Changes) {
        apply(&mut self.fronts, changes.fronts);
        apply(&mut self.slots, changes.slots);
        apply(&mut self.members, changes.members);
        apply(&mut self.ips, changes.cluster_ips);
        apply(&mut self.own, changes.own);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_way_makes_no_difference(batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12)) {
        let (mut world, mut topology) = (World::default(), pooled());
        let mut kernel = Kernel::default();
        for batch in batches {
            let keys: Vec<String> =
                batch.iter().filter_map(|step| world.take(step, &mut topology)).collect();
            topology.read(&world.records, keys.iter().map(|key| &**key));
            kernel.apply(topology.take_changes());
            prop_assert_eq!(meaning(&topology), meaning(&world.anew()));
            let mut all = Kernel::default();
            all.apply(topology.everything());
            prop_assert_eq!(&kernel, &all);
        }
    }
}

#[test]
fn an_endpoint_that_moves_is_one_slot() {
    let mut node = Node::new();
    node.service(json!({}));
    for last in 0..100 {
        node.endpoint(last, json!({}));
    }
    node.topology.take_changes();
    let [gone, new] = ["50", "200"].map(|last| format!("endpoint/shop/web-1/10.244.0.{last}"));
    node.records.remove(&gone);
    node.records.put(&new, "{}");
    node.topology.read(&node.records, [&*gone, &*new].into_iter());
    let changes = node.topology.take_changes();
    assert_eq!((changes.slots.len(), changes.fronts.len()), (1, 0), "{changes:?}");
    node.remove("endpoint/shop/web-1/10.244.0.7");
    let changes = node.topology.take_changes();
    assert_eq!((changes.slots.len(), changes.fronts.len()), (2, 3), "{changes:?}");
    assert!(node.topology.take_changes().is_empty());
}

#[test]
fn numbers_of_groups_are_the_same_after_a_restart() {
    let mut node = Node::new();
    node.service(json!({}));
    node.endpoint(1, json!({}));
    let mut again = Topology::new("here", Family::V4);
    again.read_all(&node.records);
    assert_eq!(again.everything(), node.topology.everything());
}
