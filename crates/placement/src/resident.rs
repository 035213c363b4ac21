//! Pods that take room on a node, in the least memory, and their numbers per owner and selector.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use crate::{
    intern::{Interner, Symbol},
    node::NodeIndex,
    pod::{HostPort, PodView},
    requirement::{Compiled, Requirement},
    resources::Resources,
    shared::Shared,
};

/// Selector groups kept for one namespace. Each distinct spread selector makes one; beyond this
/// all are dropped and made anew when asked for, so that churning selectors cannot fill memory.
const MAX_SELECTOR_GROUPS_PER_NAMESPACE: usize = 256;

/// How many pods of a group are on each node; nodes without any are not listed.
pub(crate) type NodeCounts = HashMap<NodeIndex, u32>;

/// A pod on a node.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) node: NodeIndex,
    terminating: bool,
    pub(crate) demand: Arc<Demand>,
}

/// What the pods of one owner have alike.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Demand {
    pub(crate) requests: Resources,
    pub(crate) weight: Resources,
    pub(crate) host_ports: Box<[HostPort]>,
    /// Sorted by key.
    labels: Box<[(Symbol, Symbol)]>,
    owner: Option<Box<str>>,
}

/// The demands of the pods that there are, each once.
pub(crate) type Demands = Shared<Demand>;

impl Deref for Resident {
    type Target = Demand;

    fn deref(&self) -> &Demand {
        &self.demand
    }
}

impl Resident {
    pub(crate) fn new(
        pod: &PodView,
        node: NodeIndex,
        symbols: &mut Interner,
        demands: &mut Demands,
    ) -> Self {
        let mut labels: Vec<_> = pod
            .labels
            .iter()
            .map(|(key, value)| (symbols.intern(key), symbols.intern(value)))
            .collect();
        labels.sort_unstable();
        let demand = Demand {
            requests: pod.requests.clone(),
            weight: pod.weight.clone(),
            host_ports: pod.host_ports.clone().into(),
            labels: labels.into(),
            owner: pod.owner.clone(),
        };
        Self { node, terminating: pod.terminating, demand: demands.share(demand) }
    }
}

#[derive(Debug)]
struct SelectorGroup {
    selector: Vec<Requirement>,
    counts: NodeCounts,
}

/// Numbers of pods per node, by owner and by spread selector. Pods being deleted do not count.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_owner: HashMap<Box<str>, NodeCounts>,
    by_selector: HashMap<Box<str>, Vec<SelectorGroup>>,
}

impl Groups {
    pub(crate) fn of_owner(&self, owner: &str) -> Option<&NodeCounts> {
        self.by_owner.get(owner)
    }

    pub(crate) fn of_selector(
        &self,
        namespace: &str,
        selector: &[Requirement],
    ) -> Option<&NodeCounts> {
        let groups = self.by_selector.get(namespace)?;
        groups.iter().find(|group| group.selector == selector).map(|group| &group.counts)
    }

    /// Starts to count a selector's pods; `residents` are those of the namespace.
    pub(crate) fn ensure_selector<'a>(
        &mut self,
        namespace: &str,
        selector: &[Requirement],
        residents: impl Iterator<Item = &'a Resident>,
        symbols: &Interner,
    ) {
        if self.of_selector(namespace, selector).is_some() {
            return;
        }
        let mut group = SelectorGroup { selector: selector.to_vec(), counts: NodeCounts::new() };
        for resident in residents {
            group.count(resident, 1, symbols);
        }
        let groups = self.by_selector.entry(namespace.into()).or_default();
        if groups.len() >= MAX_SELECTOR_GROUPS_PER_NAMESPACE {
            groups.clear();
        }
        groups.push(group);
    }

    pub(crate) fn add(&mut self, namespace: &str, resident: &Resident, symbols: &Interner) {
        self.count(namespace, resident, 1, symbols);
    }

    pub(crate) fn remove(&mut self, namespace: &str, resident: &Resident, symbols: &Interner) {
        self.count(namespace, resident, -1, symbols);
    }

    fn count(&mut self, namespace: &str, resident: &Resident, by: i32, symbols: &Interner) {
        if resident.terminating {
            return;
        }
        if let Some(owner) = &resident.owner {
            let counts = self.by_owner.entry(owner.clone()).or_default();
            change(counts, resident.node, by);
            if counts.is_empty() {
                self.by_owner.remove(owner);
            }
        }
        for group in self.by_selector.get_mut(namespace).into_iter().flatten() {
            group.count(resident, by, symbols);
        }
    }
}

impl SelectorGroup {
    fn count(&mut self, resident: &Resident, by: i32, symbols: &Interner) {
        let matches =
            |requirement| Compiled::new(requirement, symbols).matches(&resident.labels, symbols);
        if !resident.terminating && self.selector.iter().all(matches) {
            change(&mut self.counts, resident.node, by);
        }
    }
}

fn change(counts: &mut NodeCounts, node: NodeIndex, by: i32) {
    let count = counts.entry(node).or_default();
    *count = count.saturating_add_signed(by);
    if *count == 0 {
        counts.remove(&node);
    }
}
