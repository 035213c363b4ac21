//! What a plan makes of slices, applied to a pretended API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use proptest::prelude::*;

use super::*;
use crate::endpoints::kinds::IPV4;

const MAX: usize = 4;

fn frame() -> Frame {
    Frame {
        namespace: "shop".to_owned(),
        prefix: "web-".to_owned(),
        owner: OwnerReference {
            kind: "Service".to_owned(),
            uid: "service".to_owned(),
            ..OwnerReference::default()
        },
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        annotations: BTreeMap::new(),
        max: MAX,
    }
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint {
        addresses: vec![format!("10.0.0.{number}")],
        target_ref: Some(ObjectReference {
            uid: Some(format!("pod-{number}")),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn port(number: i32) -> Vec<EndpointPort> {
    vec![EndpointPort { port: Some(number), ..EndpointPort::default() }]
}

/// Endpoint numbers by their port.
fn groups(desired: &BTreeMap<u8, i32>) -> Vec<Group> {
    let members = desired.iter().map(|(pod, number)| (IPV4, port(*number), endpoint(*pod)));
    group(&[IPV4].into(), members.collect())
}

#[derive(Default)]
struct Slices {
    stored: BTreeMap<String, Arc<EndpointSlice>>,
    named: usize,
}

impl Slices {
    /// Applies a plan; how many writes it took.
    fn apply(&mut self, groups: Vec<Group>) -> usize {
        let existing: Vec<_> = self.stored.values().cloned().collect();
        let plan = plan(&frame(), groups, &existing);
        let writes = plan.create.len() + plan.update.len() + plan.delete.len();
        for slice in plan.delete {
            self.stored.remove(slice.metadata.name.as_deref().unwrap()).unwrap();
        }
        for slice in plan.update {
            let name = slice.metadata.name.clone().unwrap();
            let old = self.stored.insert(name, Arc::new(slice.clone())).unwrap();
            assert_eq!(old.address_type, slice.address_type, "it is immutable");
        }
        for mut slice in plan.create {
            self.named += 1;
            let name = format!("web-{}", self.named);
            slice.metadata.name = Some(name.clone());
            self.stored.insert(name, Arc::new(slice));
        }
        writes
    }

    fn contents(&self) -> BTreeMap<u8, i32> {
        let mut all = BTreeMap::new();
        for slice in self.stored.values() {
            assert!(slice.endpoints.len() <= MAX);
            for endpoint in &slice.endpoints {
                let pod = endpoint.addresses[0].rsplit_once('.').unwrap().1.parse().unwrap();
                assert_eq!(all.insert(pod, slice.ports[0].port.unwrap()), None, "twice");
            }
        }
        all
    }
}

proptest! {
    #[test]
    fn slices_hold_each_endpoint_once_and_rest_when_nothing_changes(
        states in prop::collection::vec(prop::collection::btree_map(0_u8..20, 80_i32..82, 0..20), 1..8)
    ) {
        let mut slices = Slices::default();
        for desired in states {
            slices.apply(groups(&desired));
            prop_assert_eq!(slices.contents(), desired.clone());
            prop_assert!(!slices.stored.is_empty(), "one says that there is nothing");
            prop_assert_eq!(slices.apply(groups(&desired)), 0);
        }
    }
}

#[test]
fn one_change_is_one_write() {
    let all: BTreeMap<u8, i32> = (0..10).map(|pod| (pod, 80)).collect();
    let mut slices = Slices::default();
    assert_eq!(slices.apply(groups(&all)), 3);
    let mut without = all.clone();
    without.remove(&5);
    assert_eq!(slices.apply(groups(&without)), 1, "one goes");
    assert_eq!(slices.apply(groups(&all)), 1, "one comes where room is");
    let mut changed = groups(&all);
    changed[0].endpoints[9].conditions.ready = Some(true);
    assert_eq!(slices.apply(changed), 1, "one is ready");
    let names: Vec<_> = slices.stored.keys().cloned().collect();
    assert_eq!(slices.apply(groups(&BTreeMap::new())), 3, "all go");
    assert_eq!(slices.stored.len(), 1);
    assert!(names.contains(slices.stored.keys().next().unwrap()), "the last one is used again");
}

#[test]
fn slices_of_an_owner_of_the_same_name_before_are_not_taken_over() {
    let mut slices = Slices::default();
    slices.apply(groups(&BTreeMap::from([(1, 80)])));
    let mut old = (**slices.stored.values().next().unwrap()).clone();
    old.metadata.owner_references.as_mut().unwrap()[0].uid = "before".to_owned();
    slices.stored = BTreeMap::from([("web-1".to_owned(), Arc::new(old))]);
    slices.apply(groups(&BTreeMap::from([(1, 80)])));
    assert_eq!(slices.stored.keys().collect::<Vec<_>>(), ["web-2"]);
}
