//! From the endpoints that should be and the slices that are to the fewest writes: an endpoint
//! stays in its slice, changed slices are filled first, and no slice is written for nothing.
//! Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::kinds::{Endpoint, EndpointPort, EndpointSlice, Identity};

/// Endpoints that go into the same slices.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) address_type: String,
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// What all slices of one owner have in common.
pub(super) struct Frame {
    pub(super) namespace: String,
    /// What generated names begin with.
    pub(super) prefix: String,
    pub(super) owner: OwnerReference,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    /// Most endpoints in one slice.
    pub(super) max: usize,
}

/// What has to be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

type PortKey = (String, Vec<EndpointPort>);

/// Compares what is with what should be.
pub(super) fn plan(frame: &Frame, groups: Vec<Group>, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut by_ports: BTreeMap<PortKey, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        if frame.owns(slice) {
            let key = port_key(&slice.address_type, &slice.ports);
            by_ports.entry(key).or_default().push(Arc::clone(slice));
        } else {
            plan.delete.push(Arc::clone(slice));
        }
    }
    for group in groups {
        let key = port_key(&group.address_type, &group.ports);
        let slices = by_ports.remove(&key).unwrap_or_default();
        Filling::new(frame, group, slices).finish(&mut plan);
    }
    plan.delete.extend(by_ports.into_values().flatten());
    recycle(frame, &mut plan);
    plan
}

fn port_key(address_type: &str, ports: &[EndpointPort]) -> PortKey {
    let mut ports = ports.to_vec();
    ports.sort();
    (address_type.to_owned(), ports)
}

/// A slice that goes takes what a new one would hold.
fn recycle(frame: &Frame, plan: &mut Plan) {
    for mut new in std::mem::take(&mut plan.create) {
        let old = plan
            .delete
            .iter()
            .position(|old| old.address_type == new.address_type && frame.owns(old));
        match old {
            Some(index) => {
                let old = plan.delete.swap_remove(index);
                new.metadata = frame.metadata_on(&old);
                plan.update.push(new);
            }
            None => plan.create.push(new),
        }
    }
}

impl Frame {
    fn owns(&self, slice: &EndpointSlice) -> bool {
        let owners = slice.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|owner| owner.uid == self.owner.uid && owner.kind == self.owner.kind)
    }

    fn new_slice(&self, group: &Group) -> EndpointSlice {
        EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(self.prefix.clone()),
                namespace: Some(self.namespace.clone()),
                owner_references: Some(vec![self.owner.clone()]),
                labels: Some(self.labels.clone()),
                annotations: Some(self.annotations.clone()).filter(|all| !all.is_empty()),
                ..ObjectMeta::default()
            },
            address_type: group.address_type.clone(),
            endpoints: Vec::new(),
            ports: group.ports.clone(),
        }
    }

    /// The metadata of a slice as it should be.
    fn metadata_on(&self, old: &EndpointSlice) -> ObjectMeta {
        ObjectMeta {
            labels: Some(self.labels.clone()),
            annotations: Some(self.annotations.clone()).filter(|all| !all.is_empty()),
            ..old.metadata.clone()
        }
    }

    fn fits(&self, slice: &EndpointSlice) -> bool {
        slice.metadata.labels.as_ref() == Some(&self.labels)
            && slice.metadata.annotations.clone().unwrap_or_default() == self.annotations
    }
}

/// One group being filled into slices.
struct Filling<'a> {
    frame: &'a Frame,
    group: Group,
    /// Not in any slice yet.
    left: BTreeMap<Identity, Endpoint>,
    changed: Vec<EndpointSlice>,
    unchanged: Vec<Arc<EndpointSlice>>,
    emptied: Vec<Arc<EndpointSlice>>,
}

impl<'a> Filling<'a> {
    fn new(frame: &'a Frame, mut group: Group, slices: Vec<Arc<EndpointSlice>>) -> Self {
        let endpoints = std::mem::take(&mut group.endpoints);
        let left = endpoints.into_iter().map(|one| (one.identity(), one)).collect();
        let mut filling = Self {
            frame,
            group,
            left,
            changed: Vec::new(),
            unchanged: Vec::new(),
            emptied: Vec::new(),
        };
        for slice in slices {
            filling.keep(slice);
        }
        filling
    }

    /// What stays of a slice.
    fn keep(&mut self, slice: Arc<EndpointSlice>) {
        let known = slice.endpoints.iter();
        let kept: Vec<_> = known.filter_map(|one| self.left.remove(&one.identity())).collect();
        if kept.is_empty() && !slice.endpoints.is_empty() {
            self.emptied.push(slice);
        } else if kept != slice.endpoints || !self.frame.fits(&slice) {
            let metadata = self.frame.metadata_on(&slice);
            self.changed.push(EndpointSlice { metadata, endpoints: kept, ..(*slice).clone() });
        } else {
            self.unchanged.push(slice);
        }
    }

    fn finish(mut self, plan: &mut Plan) {
        let mut left: Vec<_> = std::mem::take(&mut self.left).into_values().collect();
        self.changed.sort_by_key(|slice| std::cmp::Reverse(slice.endpoints.len()));
        for slice in &mut self.changed {
            let room = self.frame.max.saturating_sub(slice.endpoints.len()).min(left.len());
            slice.endpoints.extend(left.drain(..room));
        }
        while !left.is_empty() {
            let taken: Vec<_> = left.drain(..left.len().min(self.frame.max)).collect();
            let roomiest = if left.is_empty() { self.fullest_with_room(taken.len()) } else { None };
            match roomiest {
                Some(index) => {
                    let old = self.unchanged.swap_remove(index);
                    let metadata = self.frame.metadata_on(&old);
                    let mut slice = EndpointSlice { metadata, ..(*old).clone() };
                    slice.endpoints.extend(taken);
                    self.changed.push(slice);
                }
                None => {
                    let mut slice = self.frame.new_slice(&self.group);
                    slice.endpoints = taken;
                    plan.create.push(slice);
                }
            }
        }
        let none = self.changed.is_empty() && self.unchanged.is_empty() && plan.create.is_empty();
        if none && self.group.ports.is_empty() {
            plan.create.push(self.frame.new_slice(&self.group));
        }
        plan.update.append(&mut self.changed);
        plan.delete.append(&mut self.emptied);
    }

    /// The unchanged slice that so many more endpoints fill best.
    fn fullest_with_room(&self, more: usize) -> Option<usize> {
        let fitting = self.unchanged.iter().enumerate();
        fitting
            .filter(|(_, slice)| slice.endpoints.len() + more <= self.frame.max)
            .max_by_key(|(_, slice)| slice.endpoints.len())
            .map(|(index, _)| index)
    }
}

/// Groups by address type and ports; each address type of `types` without any endpoint has a group
/// without ports, so that one slice says that there is nothing.
pub(super) fn group(
    types: &BTreeSet<&str>,
    members: Vec<(&str, Vec<EndpointPort>, Endpoint)>,
) -> Vec<Group> {
    let mut groups: BTreeMap<PortKey, Group> = BTreeMap::new();
    for (address_type, ports, endpoint) in members {
        let group = groups.entry(port_key(address_type, &ports)).or_insert_with(|| Group {
            address_type: address_type.to_owned(),
            ports,
            endpoints: Vec::new(),
        });
        group.endpoints.push(endpoint);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    for address_type in types {
        if !groups.iter().any(|group| group.address_type == *address_type) {
            let address_type = (*address_type).to_owned();
            groups.push(Group { address_type, ..Group::default() });
        }
    }
    groups
}

#[cfg(test)]
mod tests;
