//! Preemption: which less important pods have to go so that a pod that fits nowhere fits.
//!
//! As Kubernetes picks them: on each node that would fit without its less important pods, as many
//! of those as possible are spared, the most important first, and pods in whose budgets there is no
//! room before all others; then the node whose victims hurt least is taken. As there, not all
//! nodes of a large cluster are weighed: here the first hundred in the table that could do.
//!
//! It costs O(nodes with less important pods), and one look at every pod for each hundred nodes tried.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use crate::{
    census::Censuses,
    cluster::{Cluster, Resident},
    demand::DemandId,
    filter::has_room,
    node::NodeIndex,
    pod::{PodKey, PodView},
    reasons::Reason,
    requirement::{Compiled, Requirement},
};

/// Nodes weighed at once, Kubernetes' least number of candidates.
const CANDIDATES: usize = 100;
/// When none of so many nodes would do, rules on other nodes' pods stand in the way.
const MAX_TRIED: usize = 1_000;

/// How many of some pods may be disrupted now: a PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Whose pods; an empty one is of all.
    pub selector: Vec<Requirement>,
    /// How many.
    pub allowed: i32,
}

/// What makes room for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// The node.
    pub node: Box<str>,
    /// The pods that have to go, the most important first.
    pub victims: Vec<PodKey>,
}

#[derive(Clone, Debug)]
struct Victim {
    key: PodKey,
    resident: Resident,
    priority: i32,
}

/// A node with its victims, and how many of them their budgets would spare.
struct Room {
    node: NodeIndex,
    victims: Vec<Victim>,
    violations: usize,
}

impl Cluster {
    /// Whether there are pods that this one might push out.
    #[must_use]
    pub fn may_preempt(&self, pod: &PodView) -> bool {
        !pod.never_preempts && self.demands.below(pod.priority).next().is_some()
    }

    /// Chooses pods to push out for one that [`Cluster::place`] found no node for. Nothing is
    /// counted differently afterwards.
    pub fn preempt(&mut self, pod: &PodView, budgets: &[Budget]) -> Option<Preemption> {
        if !self.may_preempt(pod) {
            return None;
        }
        let mut censuses = std::mem::take(&mut self.censuses);
        let preemption = self.least_painful(pod, budgets, &mut censuses);
        self.censuses = censuses;
        preemption
    }

    fn least_painful(
        &mut self,
        pod: &PodView,
        budgets: &[Budget],
        censuses: &mut Censuses,
    ) -> Option<Preemption> {
        let nodes = self.roomy_without(pod, censuses);
        let mut options = Vec::new();
        for some in nodes.chunks(CANDIDATES).take(MAX_TRIED / CANDIDATES) {
            for (node, victims) in self.victims_on(some, pod.priority) {
                options.extend(self.option(pod, node, (victims, budgets), censuses));
            }
            if !options.is_empty() {
                break;
            }
        }
        let best = options.into_iter().min_by_key(Room::pain)?;
        let victims = best.victims.into_iter().map(|victim| victim.key).collect();
        Some(Preemption { node: self.name_of(best.node).into(), victims })
    }

    /// The nodes that would have room without their less important pods, in their order.
    fn roomy_without(&self, pod: &PodView, censuses: &mut Censuses) -> Vec<NodeIndex> {
        let mut below: Vec<(NodeIndex, DemandId, u32)> = Vec::new();
        for (id, kin) in self.demands.below(pod.priority) {
            below.extend(kin.nodes.iter().map(|(node, count)| (*node, id, count.all)));
        }
        below.sort_unstable();
        let on_nodes = below.chunk_by(|(one, ..), (other, ..)| one == other);
        let mut roomy = |on_node: &&[(NodeIndex, DemandId, u32)]| {
            let Some(node) = on_node.first().and_then(|(node, ..)| self.see(*node)) else {
                return false;
            };
            let mut load = (*node.cell.load).clone();
            for (_, id, count) in *on_node {
                let Some(kin) = self.demands.get(*id) else { continue };
                (0..*count).for_each(|_| load.release(&kin.demand));
            }
            has_room(pod, &node.cell.offer, &load)
                && !self.refusals_on(pod, node.index, censuses).first().is_some_and(is_hopeless)
        };
        on_nodes.filter(&mut roomy).filter_map(|on_node| Some(on_node.first()?.0)).collect()
    }

    /// The less important pods on some nodes, the most important first.
    fn victims_on(&self, nodes: &[NodeIndex], priority: i32) -> BTreeMap<NodeIndex, Vec<Victim>> {
        let mut victims: BTreeMap<_, Vec<_>> =
            nodes.iter().map(|node| (*node, Vec::new())).collect();
        for (namespace, name, resident) in self.residents() {
            let (Some(kin), Some(here)) =
                (self.demands.get(resident.demand), victims.get_mut(&resident.node))
            else {
                continue;
            };
            if kin.demand.priority < priority {
                let key = PodKey { namespace: namespace.into(), name: name.into() };
                here.push(Victim { key, resident: *resident, priority: kin.demand.priority });
            }
        }
        for here in victims.values_mut() {
            here.sort_by(|one, other| one.importance().cmp(&other.importance()));
        }
        victims
    }

    /// The victims that this node needs, if it helps at all.
    fn option(
        &mut self,
        pod: &PodView,
        node: NodeIndex,
        (all, budgets): (Vec<Victim>, &[Budget]),
        censuses: &mut Censuses,
    ) -> Option<Room> {
        all.iter().for_each(|victim| self.count(&victim.resident, false));
        if !self.refusals_on(pod, node, censuses).is_empty() {
            all.iter().for_each(|victim| self.count(&victim.resident, true));
            return None;
        }
        let (violating, other) = self.by_budgets(all, budgets);
        let (mut victims, mut violations) = (Vec::new(), 0);
        for (victim, violates) in violating
            .into_iter()
            .map(|one| (one, true))
            .chain(other.into_iter().map(|one| (one, false)))
        {
            self.count(&victim.resident, true);
            if !self.refusals_on(pod, node, censuses).is_empty() {
                self.count(&victim.resident, false);
                violations += usize::from(violates);
                victims.push(victim);
            }
        }
        victims.iter().for_each(|victim| self.count(&victim.resident, true));
        victims.sort_by(|one, other| one.importance().cmp(&other.importance()));
        Some(Room { node, victims, violations })
    }

    /// Parts pods in whose budgets there is no room from the others.
    fn by_budgets(&self, all: Vec<Victim>, budgets: &[Budget]) -> (Vec<Victim>, Vec<Victim>) {
        let mut left: HashMap<usize, i32> = HashMap::new();
        all.into_iter().partition(|victim| {
            let Some(kin) = self.demands.get(victim.resident.demand) else { return false };
            let mut violates = false;
            for (at, budget) in budgets.iter().enumerate() {
                let selects = |one: &Requirement| {
                    Compiled::new(one, &self.symbols).matches(kin.demand.labels(), &self.symbols)
                };
                if budget.namespace == victim.key.namespace && budget.selector.iter().all(selects) {
                    let left = left.entry(at).or_insert(budget.allowed);
                    *left -= 1;
                    violates |= *left < 0;
                }
            }
            violates
        })
    }
}

/// Whether taking pods away cannot help: Kubernetes' "unresolvable".
fn is_hopeless(reason: &Reason) -> bool {
    match reason {
        Reason::Unschedulable
        | Reason::NodeName
        | Reason::UntoleratedTaint { .. }
        | Reason::NodeAffinity
        | Reason::OutsideNodeAffinity
        | Reason::SpreadMissingLabel
        | Reason::PodAffinity => true,
        Reason::HostPorts
        | Reason::TooManyPods
        | Reason::Insufficient(_)
        | Reason::Spread
        | Reason::PodAntiAffinity
        | Reason::ExistingAntiAffinity => false,
    }
}

impl Victim {
    /// The more important first: by priority, then the older.
    fn importance(&self) -> (Reverse<i32>, i64, &PodKey) {
        (Reverse(self.priority), self.resident.created, &self.key)
    }
}

impl Room {
    /// How much it hurts, in the order of what Kubernetes looks at.
    fn pain(&self) -> (usize, i32, i64, usize, Reverse<i64>, NodeIndex) {
        // Shifted so that more victims are never better because their priorities are below zero.
        let shifted = |victim: &Victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1;
        let highest = self.victims.first().map_or(i32::MIN, |victim| victim.priority);
        let oldest = self.victims.first().map_or(i64::MAX, |victim| victim.resident.created);
        (
            self.violations,
            highest,
            self.victims.iter().map(shifted).sum(),
            self.victims.len(),
            Reverse(oldest),
            self.node,
        )
    }
}
