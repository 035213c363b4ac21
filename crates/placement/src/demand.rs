//! Demands: what pods made from one template have alike, each once, with the nodes where such pods
//! are.
//!
//! Rules that count pods (spreading, inter-pod affinity) find the demands that they mean by label, and
//! their nodes from there: thousands of demands stand for a million pods.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;

use crate::{
    company::{Company, PodTerm},
    ids::{IdMap, IdSet},
    intern::{Interner, Symbol},
    node::NodeIndex,
    pod::{HostPort, PodView},
    requirement::{Compiled, Operator, Requirement},
    resources::Resources,
};

/// The place of a demand in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DemandId(u32);

/// What pods of one template have alike.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Demand {
    pub(crate) namespace: Box<str>,
    pub(crate) priority: i32,
    pub(crate) requests: Resources,
    pub(crate) weight: Resources,
    pub(crate) host_ports: Box<[HostPort]>,
    /// Sorted by key.
    labels: Box<[(Symbol, Symbol)]>,
    pub(crate) owner: Option<Box<str>>,
    pub(crate) company: Option<Arc<Company>>,
}

/// How many pods of a demand are on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) all: u32,
    /// Without those being deleted.
    pub(crate) staying: u32,
}

/// A demand in use.
#[derive(Debug)]
pub(crate) struct Kin {
    pub(crate) demand: Demand,
    pub(crate) nodes: IdMap<NodeIndex, Count>,
}

type Index<K> = HashMap<K, IdSet<DemandId>>;

/// The demands of the pods that there are.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    slots: Vec<Option<Kin>>,
    vacant: Vec<DemandId>,
    ids: HashTable<DemandId>,
    hasher: RandomState,
    by_label: Index<(Symbol, Symbol)>,
    by_owner: Index<Box<str>>,
    by_namespace: Index<Box<str>>,
    /// Demands with a term that selects pods of this label, or pods of any label.
    held: Index<Option<(Symbol, Symbol)>>,
}

impl Demands {
    /// The demand of a pod; made if it is new.
    pub(crate) fn of(&mut self, pod: &PodView, symbols: &mut Interner) -> DemandId {
        self.id_of(Demand::of(pod, symbols), symbols)
    }

    /// Counts one pod more or less on a node. A demand without pods stays until
    /// [`Demands::drop_if_unused`].
    pub(crate) fn count(&mut self, id: DemandId, node: NodeIndex, terminating: bool, more: bool) {
        let Some(Some(kin)) = self.slots.get_mut(id.0 as usize) else { return };
        let by = if more { 1 } else { -1 };
        let count = kin.nodes.entry(node).or_default();
        count.all = count.all.saturating_add_signed(by);
        if !terminating {
            count.staying = count.staying.saturating_add_signed(by);
        }
        if count.all == 0 {
            kin.nodes.remove(&node);
        }
    }

    /// Forgets a demand that has no pods any more, and says whether it did.
    pub(crate) fn drop_if_unused(&mut self, id: DemandId, symbols: &mut Interner) -> bool {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return false };
        let Some(kin) = slot.take_if(|kin| kin.nodes.is_empty()) else { return false };
        let hash = self.hasher.hash_one(&kin.demand);
        if let Ok(entry) = self.ids.find_entry(hash, |known| *known == id) {
            entry.remove();
        }
        self.index(id, &kin.demand, symbols, false);
        kin.demand.release(symbols);
        self.vacant.push(id);
        true
    }

    /// The demands whose pods are of a lower priority.
    pub(crate) fn below(&self, priority: i32) -> impl Iterator<Item = (DemandId, &Kin)> {
        let all = (0..).map(DemandId).zip(&self.slots);
        let used = all.filter_map(|(id, kin)| Some((id, kin.as_ref()?)));
        used.filter(move |(_, kin)| kin.demand.priority < priority)
    }

    pub(crate) fn get(&self, id: DemandId) -> Option<&Kin> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    fn id_of(&mut self, demand: Demand, symbols: &mut Interner) -> DemandId {
        let hash = self.hasher.hash_one(&demand);
        let is_it = |id: &DemandId| self.get(*id).is_some_and(|kin| kin.demand == demand);
        if let Some(id) = self.ids.find(hash, is_it).copied() {
            demand.release(symbols);
            return id;
        }
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            DemandId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        self.index(id, &demand, symbols, true);
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            *slot = Some(Kin { demand, nodes: IdMap::default() });
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.ids.insert_unique(hash, id, |id| {
            let kin = slots.get(id.0 as usize).and_then(Option::as_ref);
            kin.map_or(0, |kin| hasher.hash_one(&kin.demand))
        });
        id
    }

    /// Enters a demand into the indexes, or takes it out.
    fn index(&mut self, id: DemandId, demand: &Demand, symbols: &mut Interner, enters: bool) {
        for label in &*demand.labels {
            change(&mut self.by_label, *label, id, enters);
        }
        if let Some(owner) = &demand.owner {
            change(&mut self.by_owner, owner.clone(), id, enters);
        }
        change(&mut self.by_namespace, demand.namespace.clone(), id, enters);
        let terms = demand.company.iter().flat_map(|company| company.terms());
        for selector in terms.filter_map(|term| term.selector.as_ref()) {
            match selector.iter().find(|one| one.operator == Operator::In) {
                None => change(&mut self.held, None, id, enters),
                Some(Requirement { key, values, .. }) => {
                    for value in values {
                        let label = (symbols.intern(key), symbols.intern(value));
                        change(&mut self.held, Some(label), id, enters);
                        // The index keeps what it interned for as long as the demand is there.
                        for _ in 0..if enters { 0 } else { 2 } {
                            symbols.release(label.0);
                            symbols.release(label.1);
                        }
                    }
                }
            }
        }
    }

    /// The demands that may count for the pod, or hold terms that select it: some more than do.
    pub(crate) fn candidates(&self, pod: &PodView, symbols: &Interner) -> IdSet<DemandId> {
        let owner = pod.owner.iter().filter(|_| pod.spread.is_empty());
        let mut all: IdSet<_> =
            owner.filter_map(|owner| self.by_owner.get(owner)).flatten().copied().collect();
        for selector in pod.spread.iter().filter_map(|one| one.selector.as_deref()) {
            all.extend(self.with_labels(Some(&pod.key.namespace), selector, symbols));
        }
        for term in pod.company.iter().flat_map(|company| company.terms()) {
            let namespace = match (&*term.namespaces, &term.namespace_selector) {
                ([only], None) => Some(&**only),
                _ => None,
            };
            let Some(selector) = &term.selector else { continue };
            all.extend(self.with_labels(namespace, selector, symbols));
        }
        let label =
            |(key, value): (&String, &String)| Some((symbols.lookup(key), symbols.lookup(value)));
        let held = pod.labels.iter().map(label).chain([None]);
        all.extend(held.filter_map(|label| self.held.get(&label)).flatten());
        all
    }

    /// The demands whose pods may have labels that a selector selects; those of other namespaces
    /// than the one given, if any, may be left out.
    fn with_labels(
        &self,
        namespace: Option<&str>,
        selector: &[Requirement],
        symbols: &Interner,
    ) -> Vec<DemandId> {
        match (selector.iter().find(|one| one.operator == Operator::In), namespace) {
            (Some(label), _) => self.labelled(label, symbols),
            (None, Some(namespace)) => {
                self.by_namespace.get(namespace).into_iter().flatten().copied().collect()
            }
            (None, None) => self.by_namespace.values().flatten().copied().collect(),
        }
    }

    fn labelled(&self, label: &Requirement, symbols: &Interner) -> Vec<DemandId> {
        let key = symbols.lookup(&label.key);
        let values: HashSet<_> = label.values.iter().map(|value| symbols.lookup(value)).collect();
        let ids = values.into_iter().filter_map(|value| self.by_label.get(&(key, value)));
        ids.flatten().copied().collect()
    }

    /// Whether any pod wants others near or far.
    pub(crate) fn hold_terms(&self) -> bool {
        !self.held.is_empty()
    }
}

impl Demand {
    fn of(pod: &PodView, symbols: &mut Interner) -> Self {
        let mut labels: Vec<_> = pod
            .labels
            .iter()
            .map(|(key, value)| (symbols.intern(key), symbols.intern(value)))
            .collect();
        labels.sort_unstable();
        Self {
            namespace: pod.key.namespace.clone(),
            priority: pod.priority,
            requests: pod.requests.clone(),
            weight: pod.weight.clone(),
            host_ports: pod.host_ports.clone().into(),
            labels: labels.into(),
            owner: pod.owner.clone(),
            company: pod.company.clone(),
        }
    }
}

impl Demand {
    /// Sorted by key.
    pub(crate) fn labels(&self) -> &[(Symbol, Symbol)] {
        &self.labels
    }

    /// Gives back the symbols that were made for it.
    fn release(&self, symbols: &mut Interner) {
        for (key, value) in &*self.labels {
            symbols.release(*key);
            symbols.release(*value);
        }
    }
}

impl Kin {
    /// Whether a term selects these pods.
    pub(crate) fn is_selected_by(&self, term: &PodTerm, symbols: &Interner) -> bool {
        term.selector.as_ref().is_some_and(|selector| self.is_selected(selector, symbols))
    }

    pub(crate) fn is_selected(&self, selector: &[Requirement], symbols: &Interner) -> bool {
        let meets = |one| Compiled::new(one, symbols).matches(&self.demand.labels, symbols);
        selector.iter().all(meets)
    }
}

fn change<K: Eq + Hash>(index: &mut Index<K>, key: K, id: DemandId, enters: bool) {
    if enters {
        index.entry(key).or_default().insert(id);
    } else if let Some(ids) = index.get_mut(&key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(&key);
        }
    }
}
