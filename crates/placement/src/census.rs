//! Censuses: for all pods of one template, the pods that its rules count, by domain.
//!
//! Thousands of pods of a template are placed one after the other, and each finds one more of them
//! than the one before. So what was counted is kept between placements and catches up with the pods that came
//! and went, and with the nodes that moved to another site, by a log; only the first pod of a template counts
//! all that are there.

use std::hash::{BuildHasher, RandomState};

use crate::{
    cluster::Cluster,
    demand::{DemandId, Kin},
    filter::Affinity,
    ids::IdMap,
    ledger::{About, Ledger, Question},
    nearness,
    node::NodeIndex,
    pod::PodView,
    spread::{self, Eligible},
    topology::{Effect, Topology},
};

/// Censuses kept, the least recently used given up first.
const MAX_CENSUSES: usize = 256;
/// Nodes that all censuses may count together: some 100 bytes each.
const MAX_COUNTED_NODES: usize = 4_000_000;

/// Something happened that censuses catch up with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stir {
    /// A pod of a demand came to a node, or went.
    Pod { demand: DemandId, node: NodeIndex, terminating: bool, more: bool },
    /// A node is at another site.
    Node(NodeIndex),
    /// A demand is gone: its identifier may come to mean another.
    Gone(DemandId),
}

/// How much a pod of some demand counts for a question.
#[derive(Clone, Copy, Debug)]
struct Weight {
    question: usize,
    weight: i64,
}

/// The census for one template.
#[derive(Debug)]
pub(crate) struct Census {
    template: PodView,
    hash: u64,
    pub(crate) ledger: Ledger,
    weights: IdMap<DemandId, Box<[Weight]>>,
    /// What it knows of; `None` before it was taken.
    seen: Option<Seen>,
}

/// How far a census has caught up.
#[derive(Debug)]
struct Seen {
    stirs: u64,
    sites: u64,
    namespaces: u64,
}

/// The censuses that are kept, the most recently used last.
#[derive(Debug, Default)]
pub(crate) struct Censuses {
    #[expect(clippy::vec_box, reason = "each placement moves one to the end")]
    kept: Vec<Box<Census>>,
    hasher: RandomState,
}

impl Censuses {
    /// Takes out the census for the pod, up to date; `None` when nothing counts for it.
    /// [`Censuses::keep`] brings it back.
    pub(crate) fn take(
        &mut self,
        pod: &PodView,
        affinity: &Affinity<'_>,
        cluster: &Cluster,
    ) -> Option<Box<Census>> {
        if pod.spread.is_empty()
            && pod.owner.is_none()
            && pod.company.is_none()
            && !cluster.demands.hold_terms()
        {
            return None;
        }
        let hash = self.hasher.hash_one((&pod.key.namespace, &pod.labels, &pod.owner));
        let is_it = |census: &Census| census.hash == hash && census.is_for(pod);
        let known = self.kept.iter().rposition(|one| is_it(one)).map(|at| self.kept.remove(at));
        let mut census = known.unwrap_or_else(|| Box::new(Census::new(pod, hash)));
        census.update(affinity, cluster);
        Some(census)
    }

    /// Keeps a census for the next pod of its template.
    pub(crate) fn keep(&mut self, census: Box<Census>) {
        self.kept.push(census);
        let nodes = |all: &[Box<Census>]| all.iter().map(|one| one.ledger.nodes()).sum::<usize>();
        while self.kept.len() > MAX_CENSUSES
            || (self.kept.len() > 1 && nodes(&self.kept) > MAX_COUNTED_NODES)
        {
            self.kept.remove(0);
        }
    }
}

impl Census {
    fn new(pod: &PodView, hash: u64) -> Self {
        Self {
            template: pod.clone(),
            hash,
            ledger: Ledger::default(),
            weights: IdMap::default(),
            seen: None,
        }
    }

    /// Whether the pod's rules are this template's: all that is read of a pod here, in `spread` and in
    /// `nearness` is compared.
    fn is_for(&self, pod: &PodView) -> bool {
        let known = &self.template;
        known.key.namespace == pod.key.namespace
            && known.labels == pod.labels
            && known.owner == pod.owner
            && known.spread == pod.spread
            && known.company == pod.company
            && known.node_selector == pod.node_selector
            && known.required_affinity == pod.required_affinity
            && known.tolerations == pod.tolerations
    }

    /// Takes out the rules with their counts. `eligible` belongs to the pod's required constraints,
    /// in order. [`Census::give_back`] brings them back.
    pub(crate) fn topology(&mut self, eligible: &[Eligible], cluster: &Cluster) -> Topology {
        let mut topology = std::mem::take(&mut self.ledger.topology);
        let mut eligible = eligible.iter();
        for question in &self.ledger.questions {
            let rules = topology.rules.get_mut(question.rules.clone()).unwrap_or_default();
            match question.about {
                About::Constraint(_) | About::Owner => {
                    spread::renew(&self.template, question.about, rules, &mut eligible, cluster);
                }
                About::Near => nearness::renew(&self.template, rules, cluster),
                About::Apart(_) | About::Liking(_) | About::Shunning | About::Fond => {}
            }
        }
        topology
    }

    pub(crate) fn give_back(&mut self, topology: Topology) {
        self.ledger.topology = topology;
    }

    /// Catches up with the cluster, or begins anew.
    pub(crate) fn update(&mut self, affinity: &Affinity<'_>, cluster: &Cluster) {
        if self.catch_up(cluster).is_none() {
            self.begin(cluster);
        }
        self.seen = Some(Seen {
            stirs: cluster.stirs.changes(),
            sites: cluster.sites.serial(),
            namespaces: cluster.namespaces.serial(),
        });
        self.ledger.settle(&self.template, affinity, cluster);
    }

    fn begin(&mut self, cluster: &Cluster) {
        self.ledger = Ledger::default();
        self.weights.clear();
        let template = self.template.clone();
        let asked = spread::questions(&template).into_iter();
        for asked in asked.chain(nearness::questions(&template)) {
            self.ledger.ask(asked, cluster);
        }
        for id in cluster.demands.candidates(&template, &cluster.symbols) {
            let Some(kin) = cluster.demands.get(id) else { continue };
            let weights = self.weigh(kin, cluster);
            for (node, count) in &kin.nodes {
                for Weight { question, weight } in &*weights {
                    let stays =
                        self.ledger.questions.get(*question).is_some_and(|one| one.about.stays());
                    let pods = i64::from(if stays { count.staying } else { count.all });
                    self.ledger.add(*node, *question, weight * pods);
                }
            }
            self.weights.insert(id, weights);
        }
    }

    /// How much a pod of a demand counts, and for which questions.
    fn weigh(&mut self, kin: &Kin, cluster: &Cluster) -> Box<[Weight]> {
        let mut weights = Vec::new();
        for (at, question) in self.ledger.questions.iter().enumerate() {
            let weight = match question.about {
                About::Constraint(_) | About::Owner => {
                    spread::weight(&self.template, question.about, kin, cluster)
                }
                _ => nearness::weight(&self.template, question.about, kin, cluster),
            };
            if weight != 0 {
                weights.push(Weight { question: at, weight });
            }
        }
        for (about, label, weight) in nearness::others(&self.template, kin, cluster) {
            let is_it = |one: &Question| {
                let rule = self.ledger.topology.rules.get(one.rules.start);
                one.about == about && rule.is_some_and(|rule| *rule.label == *label)
            };
            let question = match self.ledger.questions.iter().position(is_it) {
                Some(question) => question,
                None => {
                    let effect =
                        if about == About::Shunning { Effect::Shunned } else { Effect::Liked };
                    self.ledger.ask((about, vec![(label, effect)]), cluster)
                }
            };
            weights.push(Weight { question, weight });
        }
        weights.into()
    }

    fn catch_up(&mut self, cluster: &Cluster) -> Option<()> {
        let Seen { stirs, sites, namespaces } = self.seen.as_ref()?;
        let still = *namespaces == cluster.namespaces.serial()
            && (*sites == cluster.sites.serial() || self.ledger.means_the_same(cluster));
        let stirs: Vec<_> = cluster.stirs.since(*stirs).filter(|_| still)?.collect();
        // What an unknown demand did that is gone by now adds up to nothing.
        let mut going: IdMap<DemandId, usize> = IdMap::default();
        for stir in &stirs {
            if let Stir::Gone(demand) = stir {
                *going.entry(*demand).or_default() += 1;
            }
        }
        for stir in stirs {
            match stir {
                Stir::Gone(demand) => {
                    self.weights.remove(&demand);
                    going.entry(demand).and_modify(|times| *times -= 1);
                }
                Stir::Node(node) => self.ledger.moved(node),
                Stir::Pod { demand, node, terminating, more } => {
                    self.ledger.loaded(node);
                    if !self.weights.contains_key(&demand) {
                        if going.get(&demand).is_some_and(|times| *times > 0) {
                            continue;
                        }
                        let Some(kin) = cluster.demands.get(demand) else { continue };
                        let weights = self.weigh(kin, cluster);
                        self.weights.insert(demand, weights);
                    }
                    self.count(demand, node, terminating, more);
                }
            }
        }
        Some(())
    }

    fn count(&mut self, demand: DemandId, node: NodeIndex, terminating: bool, more: bool) {
        let weights = self.weights.remove(&demand).unwrap_or_default();
        for Weight { question, weight } in &*weights {
            let stays = self.ledger.questions.get(*question).is_some_and(|one| one.about.stays());
            if !(stays && terminating) {
                self.ledger.add(node, *question, if more { *weight } else { -weight });
            }
        }
        self.weights.insert(demand, weights);
    }
}
