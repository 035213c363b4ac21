//! What a node does with Services, by tables; and that it does not depend on the way there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, with the error that it met")]

mod changes;
mod policies;

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::{Value, json};
use toono_topology::{Family, Fate, Front, Place, Protocol, Topology};
use toono_wire::pool::Records;

/// What becomes of a connection: to these endpoints, or a word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    To(BTreeSet<String>, u32),
    Refused,
    Dropped,
    /// Nothing is done about it.
    Unknown,
}

/// The node `here`, and the records that it has.
struct Node {
    records: Records,
    topology: Topology,
}

impl Node {
    fn new() -> Self {
        Self { records: Records::default(), topology: Topology::new("here", Family::V4) }
    }

    fn set(&mut self, key: &str, value: &Value) {
        self.records.put(key, &value.to_string());
        self.topology.read(&self.records, [key].into_iter());
    }

    fn remove(&mut self, key: &str) {
        self.records.remove(key);
        self.topology.read(&self.records, [key].into_iter());
    }

    /// A Service `shop/web` with these fields, at port 80, whose endpoints listen at 8080.
    fn service(&mut self, fields: Value) {
        let mut service = json!({
            "clusterIPs": ["10.96.0.7"], "type": "NodePort", "externalIPs": ["192.0.2.1"],
            "ports": [{"name": "web", "port": 80, "nodePort": 30080}],
        });
        let fields = fields.as_object().unwrap().clone();
        service.as_object_mut().unwrap().extend(fields);
        self.set("service/shop/web", &service);
        let ports = json!([{"name": "web", "port": 8080}]);
        let slice = json!({"service": "web", "family": "IPv4", "ports": ports});
        self.set("slice/shop/web-1", &slice);
    }

    fn endpoint(&mut self, last: u8, fields: Value) {
        self.set(&format!("endpoint/shop/web-1/10.244.0.{last}"), &fields);
    }

    fn at(&self, place: &str, port: u16, protocol: Protocol, outside: bool) -> Outcome {
        let place = place.parse().map_or(Place::Node, Place::Address);
        let front = Front { place, protocol, port };
        let everything = self.topology.everything();
        let found = everything.fronts.iter().find(|change| change.key == front);
        let Some(treatment) = found.and_then(|change| change.after) else {
            return Outcome::Unknown;
        };
        let special = treatment.outside.filter(|_| outside);
        match special.unwrap_or(treatment.fate) {
            Fate::Refuse => Outcome::Refused,
            Fate::Drop => Outcome::Dropped,
            Fate::Group { id, size, affinity_seconds } => {
                let endpoints: Vec<SocketAddr> = self.topology.endpoints(id).collect();
                assert_eq!(endpoints.len(), usize::try_from(size).unwrap());
                let texts = endpoints.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
                assert_eq!(texts.len(), endpoints.len(), "each once");
                Outcome::To(texts, affinity_seconds)
            }
        }
    }

    /// By the cluster IP, by the node's port from inside, and from outside.
    fn web(&self) -> [Outcome; 3] {
        [
            self.at("10.96.0.7", 80, Protocol::Tcp, false),
            self.at("node", 30080, Protocol::Tcp, false),
            self.at("node", 30080, Protocol::Tcp, true),
        ]
    }
}

fn to(lasts: &[u8]) -> Outcome {
    Outcome::To(lasts.iter().map(|last| format!("10.244.0.{last}:8080")).collect(), 0)
}
