//! The index against a naive model: whatever happens, in whatever order, each pool's readers end with exactly
//! the records that concern their pool, whether they follow closely, seldom, or come from another server.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use toono_wire::pool::{NodeRecord, Part, Version, frame::Frame, node_key};

use super::{
    index::{Kind, MOST_NEIGHBOURS, Parts},
    objects::{ServiceObject, SliceObject},
};

const POOLS: [&str; 3] = ["", "north", "south"];
const NODES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Service {
        name: u8,
        near: bool,
        port: u16,
    },
    NoService {
        name: u8,
    },
    /// A slice of a service, with endpoints: the last digit of an address, and the node.
    Slice {
        name: u8,
        service: u8,
        endpoints: Vec<(u8, u8)>,
    },
    NoSlice {
        name: u8,
    },
    /// A node is in a pool.
    Node {
        node: u8,
        pool: u8,
    },
    /// Everything is listed anew, some of it having gone unseen.
    List {
        lost_service: u8,
        lost_slice: u8,
    },
    /// A reader asks.
    Ask {
        reader: u8,
    },
    /// A reader's part is damaged.
    Damage {
        reader: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let few = 0..3u8;
    prop_oneof![
        2 => (few.clone(), any::<bool>(), 1..3u16).prop_map(|(name, near, port)| Step::Service { name, near, port }),
        1 => few.clone().prop_map(|name| Step::NoService { name }),
        4 => (few.clone(), few.clone(), prop::collection::vec((0..5u8, few.clone()), 0..4))
            .prop_map(|(name, service, endpoints)| Step::Slice { name, service, endpoints }),
        1 => few.clone().prop_map(|name| Step::NoSlice { name }),
        2 => (few.clone(), few.clone()).prop_map(|(node, pool)| Step::Node { node, pool }),
        1 => (few.clone(), few.clone()).prop_map(|(lost_service, lost_slice)| Step::List { lost_service, lost_slice }),
        4 => (0..6u8).prop_map(|reader| Step::Ask { reader }),
        1 => (0..6u8).prop_map(|reader| Step::Damage { reader }),
    ]
}

/// What there is, as it was written.
#[derive(Default, Clone)]
struct Model {
    services: BTreeMap<u8, (bool, u16)>,
    slices: BTreeMap<u8, (u8, Vec<(u8, u8)>)>,
    pools: HashMap<String, Arc<str>>,
    revision: u64,
}

impl Model {
    fn service(&mut self, name: u8) -> ServiceObject {
        self.revision += 1;
        let (near, port) = self.services[&name];
        let annotations = if near {
            json!({"openyurt.io/topologyKeys": "openyurt.io/nodepool"})
        } else {
            json!({})
        };
        let object = json!({"metadata": {"namespace": "n", "name": name.to_string(), "annotations": annotations,
                "resourceVersion": self.revision.to_string()}, "spec": {"ports": [{"port": port}]}});
        ServiceObject::parse(object.to_string().as_bytes()).unwrap()
    }

    fn slice(&mut self, name: u8) -> SliceObject {
        self.revision += 1;
        let (service, endpoints) = &self.slices[&name];
        let endpoint = |(address, node): &(u8, u8)| {
            json!({"addresses": [format!("10.0.0.{address}")],
            "nodeName": NODES[usize::from(*node)]})
        };
        let object = json!({"metadata": {"namespace": "n", "name": name.to_string(),
                "labels": {"kubernetes.io/service-name": service.to_string()},
                "resourceVersion": self.revision.to_string()},
            "addressType": "IPv4", "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>()});
        SliceObject::parse(object.to_string().as_bytes()).unwrap()
    }

    /// What a pool must have, made anew from all there is.
    fn expected(&self, pool: &str) -> BTreeMap<String, String> {
        let mut model = self.clone();
        let mut records = BTreeMap::new();
        for name in self.services.keys() {
            let service = model.service(*name);
            records.insert(service.key(), service.text);
        }
        for (name, (service, _)) in &self.slices {
            let slice = model.slice(*name);
            records.insert(slice.key(), slice.text.clone());
            let near = self.services.get(service).is_some_and(|(near, _)| *near);
            for endpoint in slice.endpoints {
                if !near || self.pools.get(&*endpoint.node).is_some_and(|its| **its == *pool) {
                    let key =
                        format!("{}{}", SliceObject::prefix("n", &slice.name), endpoint.address);
                    records.insert(key, endpoint.text.into());
                }
            }
        }
        for (node, _) in self.pools.iter().filter(|(_, its)| !its.is_empty() && &***its == pool) {
            let text = serde_json::to_string(&NodeRecord::default()).unwrap();
            records.insert(node_key(node), text);
        }
        records
    }
}

/// The cloud and its readers: two of each pool.
struct World {
    model: Model,
    parts: Parts,
    readers: Vec<Part>,
}

impl World {
    fn new() -> Self {
        let mut parts = Parts::default();
        for kind in [Kind::Service, Kind::Slice] {
            assert_eq!(parts.version("north"), None, "not all is known yet");
            parts.list(kind);
            parts.list_ended(kind, 7, &|_| None);
        }
        assert_eq!(parts.version("north"), None, "the nodes are not known yet");
        parts.nodes_listed();
        Self { model: Model::default(), parts, readers: vec![Part::default(); 6] }
    }

    fn take(&mut self, step: Step) {
        let Self { model, parts, readers } = self;
        let pools = model.pools.clone();
        let pool_of = |node: &str| pools.get(node).cloned();
        match step {
            Step::Service { name, near, port } => {
                model.services.insert(name, (near, port));
                parts.put_service(&model.service(name), &pool_of);
            }
            Step::NoService { name } => {
                model.services.remove(&name);
                model.revision += 1;
                parts.delete_service("n", &name.to_string(), model.revision, &pool_of);
            }
            Step::Slice { name, service, endpoints } => {
                model.slices.insert(name, (service, endpoints));
                parts.put_slice(model.slice(name), &pool_of);
            }
            Step::NoSlice { name } => {
                model.slices.remove(&name);
                model.revision += 1;
                parts.delete_slice("n", &name.to_string(), model.revision);
            }
            Step::Node { node, pool } => {
                let node = NODES[usize::from(node)];
                model.pools.insert(node.to_owned(), POOLS[usize::from(pool)].into());
                let pools = model.pools.clone();
                parts.node_moved(node, &|node| pools.get(node).cloned());
                let text = NodeRecord::default();
                let text = serde_json::to_string(&text).unwrap();
                parts.put_node(node, Some((POOLS[usize::from(pool)], &text)));
            }
            Step::List { lost_service, lost_slice } => {
                model.services.remove(&lost_service);
                model.slices.remove(&lost_slice);
                parts.list(Kind::Slice);
                for name in model.slices.clone().keys() {
                    parts.put_slice(model.slice(*name), &pool_of);
                }
                parts.list_ended(Kind::Slice, model.revision, &pool_of);
                parts.list(Kind::Service);
                for name in model.services.clone().keys() {
                    parts.put_service(&model.service(*name), &pool_of);
                }
                parts.list_ended(Kind::Service, model.revision, &pool_of);
            }
            Step::Ask { reader } => ask(parts, readers, reader.into()),
            Step::Damage { reader } => readers[usize::from(reader)] = Part::default(),
        }
    }

    fn check(&mut self) {
        for reader in 0..self.readers.len() {
            ask(&self.parts, &mut self.readers, reader);
            let part = &self.readers[reader];
            let pool = POOLS[reader % POOLS.len()];
            let told = part.records().iter();
            let told: BTreeMap<String, String> =
                told.map(|(k, t)| (k.to_string(), t.to_string())).collect();
            assert_eq!(told, self.model.expected(pool), "pool {pool:?}");
            assert_eq!(self.parts.version(pool), Some(part.version()));
        }
    }
}

fn ask(parts: &Parts, readers: &mut [Part], reader: usize) {
    let part = &mut readers[reader];
    let before = part.version();
    let plan = parts.plan(POOLS[reader % POOLS.len()], before).unwrap();
    if plan.now == before && before != Version::NONE {
        return;
    }
    assert!(plan.since == before || plan.since == Version::NONE);
    let frame = Frame::of(&plan.scope, plan.since, plan.now, &parts.changes(&plan)).unwrap();
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let frames = Frame::decode_all(Bytes::from(bytes)).unwrap();
    for frame in &frames {
        part.apply(frame).unwrap();
    }
}

proptest! {
    #[test]
    fn every_reader_ends_with_what_concerns_its_pool(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.check();
    }

    #[test]
    fn a_reader_of_another_server_gets_what_this_one_has(
        before in prop::collection::vec(step(), 1..30), after in prop::collection::vec(step(), 1..30),
    ) {
        let (mut first, mut second) = (World::new(), World::new());
        before.into_iter().for_each(|step| first.take(step));
        first.check();
        after.into_iter().for_each(|step| second.take(step));
        // Whatever the numbers say.
        second.readers = first.readers;
        second.check();
    }
}

#[test]
fn one_endpoint_that_moves_is_two_records_and_moves_only_whom_it_concerns() {
    let mut world = World::new();
    for node in 0..2 {
        world.take(Step::Node { node, pool: node + 1 });
    }
    world.take(Step::Service { name: 0, near: true, port: 1 });
    world.take(Step::Slice { name: 0, service: 0, endpoints: vec![(1, 0), (2, 1)] });
    world.check();
    world.parts.take_moved();
    let before = world.readers[1].version();
    world.take(Step::Slice { name: 0, service: 0, endpoints: vec![(3, 0), (2, 1)] });
    let moved = world.parts.take_moved();
    assert!(moved.concerns("north") && !moved.concerns("south") && !moved.all);
    let plan = world.parts.plan("north", before).unwrap();
    let changes = world.parts.changes(&plan);
    assert_eq!((&*plan.scope, plan.since), ("north", before));
    assert_eq!((changes.changed.len(), changes.gone.len()), (1, 1));
    world.take(Step::Slice { name: 0, service: 0, endpoints: vec![(3, 0), (2, 1)] });
    assert!(world.parts.take_moved().is_nothing(), "nothing new");
    world.check();
}

#[test]
fn only_so_many_nodes_of_a_pool_are_neighbours() {
    let mut parts = World::new().parts;
    for node in 0..MOST_NEIGHBOURS + 2 {
        parts.put_node(&node.to_string(), Some(("north", "{}")));
    }
    let told = |parts: &Parts| {
        let plan = parts.plan("north", Version::NONE).unwrap();
        parts.changes(&plan).changed.len()
    };
    assert_eq!(told(&parts), MOST_NEIGHBOURS);
    parts.put_node("1", Some(("south", "{}")));
    parts.put_node("2", None);
    assert_eq!(told(&parts), MOST_NEIGHBOURS - 2);
    parts.put_node(&MOST_NEIGHBOURS.to_string(), Some(("north", "{}")));
    assert_eq!(told(&parts), MOST_NEIGHBOURS - 1, "when it is told again");
}
