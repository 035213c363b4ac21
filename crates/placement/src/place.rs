//! The decision: find the candidates, choose among them, or say why there are none.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
};

use crate::{
    cell::{Cell, CellId},
    cluster::Cluster,
    filter::{self, Affinity, Named, has_room, only_nodes, refusals, shortages, site_refusal},
    intern::Symbol,
    nearness,
    node::NodeIndex,
    pod::{NodeTerm, PodView},
    ranking::{Asker, Group, Ranking, Rankings},
    reasons::{Reason, Tally},
    requirement::{Operator, Requirement},
    score::{self, Candidate, Taste},
    site::SiteId,
    spread::{self, Eligible},
    topology::{Points, Topology},
};

/// With so few sites to choose from, looking at each is cheaper than a ranking of its own for each
/// selector, of which there may be one a pool.
const MAX_SITES_WITHOUT_RANKING: usize = 64;

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// To the node of this name.
    Node(Box<str>),
    /// Nowhere for now.
    NoFit {
        /// Why, in Kubernetes' words: `0/4 nodes are available: 1 Insufficient cpu, …`.
        reasons: String,
    },
}

impl Cluster {
    /// Chooses a node for `pod`. Nothing is counted until [`Cluster::assume`] is called.
    pub fn place(&mut self, pod: &PodView) -> Placement {
        let mut rankings = std::mem::take(&mut self.rankings);
        let placement = self.decide(pod, &mut rankings);
        self.rankings = rankings;
        placement
    }

    fn decide(&self, pod: &PodView, rankings: &mut Rankings) -> Placement {
        let affinity = Affinity::new(pod, &self.symbols);
        let (named, scope) = match only_nodes(pod, self) {
            _ if pod.node_name.is_some() => {
                let name = pod.node_name.as_deref().unwrap_or_default();
                (self.node_named(name).into_iter().collect(), Scope::Named)
            }
            Some(only) => (only, Scope::Prefiltered),
            None => match filter::named(pod, self) {
                Named::Some(named) => (named, Scope::All),
                Named::All => (self.known_nodes().collect(), Scope::Named),
            },
        };
        let names = !named.is_empty();
        let asker = Asker { pod, affinity: &affinity, cluster: self, names };
        let mut search = Search::new(asker, named);
        match scope {
            Scope::Named | Scope::Prefiltered => search.among_the_named(),
            Scope::All => search.among_all(rankings),
        }
        match score::choose(&search.candidates) {
            Some(node) => Placement::Node(self.name_of(node).into()),
            None => Placement::NoFit { reasons: search.reasons(scope) },
        }
    }
}

impl Cluster {
    /// Why the pod cannot go to this node, in the order of filters; empty when it can.
    pub(crate) fn refusals_on(&self, pod: &PodView, node: NodeIndex) -> Vec<Reason> {
        let affinity = Affinity::new(pod, &self.symbols);
        let names = !matches!(filter::named(pod, self), Named::Some(named) if named.is_empty());
        let asker = Asker { pod, affinity: &affinity, cluster: self, names };
        let mut search = Search::new(asker, Vec::new());
        let Some(node) = self.see(node) else { return Vec::new() };
        let mut reasons = refusals(pod, &affinity, &node, &self.symbols);
        if reasons.is_empty() {
            search.count(&search.asker.eligible(None));
            reasons.extend(search.topology.judge(&node.place.site, node.name).err());
        }
        reasons
    }
}

/// Where a pod may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// To the nodes that it names.
    Named,
    /// The same, and the filters need not even be asked about others.
    Prefiltered,
    /// Anywhere.
    All,
}

/// The search for a pod's candidates.
struct Search<'a> {
    asker: Asker<'a>,
    topology: Topology,
    /// Nodes that are judged one by one: the pod names them, or pods there make them special.
    single: BTreeSet<NodeIndex>,
    candidates: Vec<Candidate>,
}

impl<'a> Search<'a> {
    fn new(asker: Asker<'a>, named: Vec<NodeIndex>) -> Self {
        let single = named.into_iter().collect();
        Self { asker, topology: Topology::default(), single, candidates: Vec::new() }
    }

    fn among_the_named(&mut self) {
        self.count(&self.asker.eligible(None));
        self.judge_singles();
    }

    fn among_all(&mut self, rankings: &mut Rankings) {
        if let Some(sites) = few_sites(self.asker.pod, self.asker.cluster) {
            self.count(&self.asker.eligible(Some(&sites)));
            self.single.extend(self.topology.deviating_nodes(self.asker.cluster));
            let (pod, cluster) = (self.asker.pod, self.asker.cluster);
            let local = |id| {
                let cell = cluster.cells.get(id)?;
                has_room(pod, &cell.offer, &cell.load).then(|| score::local(pod, cell))
            };
            for site in sites {
                let place = cluster.sites.get(site);
                if let Some(taste) = place.and_then(|place| self.asker.taste(place)) {
                    self.judge_site(site, taste, &local);
                }
            }
        } else {
            let ranking = rankings.take(&self.asker);
            self.count(ranking.eligible());
            self.single.extend(self.topology.deviating_nodes(self.asker.cluster));
            self.judge_groups(&ranking);
            rankings.keep(ranking);
        }
        self.judge_singles();
    }

    /// Counts the pods that the pod's rules ask for.
    fn count(&mut self, eligible: &[Eligible]) {
        let Asker { pod, affinity, cluster, .. } = &self.asker;
        self.topology.rules = spread::rules(pod, affinity, eligible, cluster);
        self.topology.rules.extend(nearness::rules(pod, cluster));
    }

    fn judge_groups(&mut self, ranking: &Ranking) {
        let cluster = self.asker.cluster;
        let deviating: HashSet<_> =
            self.topology.deviating_sites(|key| ranking.holds_apart(key), cluster).collect();
        for group in ranking.groups() {
            self.judge_group(group, &deviating);
        }
        for site in deviating {
            if let Some(taste) = ranking.taste_at(site) {
                let local = |cell| ranking.rank(cell).map(|rank| i64::from(rank.local.0));
                self.judge_site(site, taste, &local);
            }
        }
    }

    /// Finds the best of a group's nodes that are alike to all rules.
    fn judge_group(&mut self, group: &Group, deviating: &HashSet<SiteId>) {
        let cluster = self.asker.cluster;
        let mut best: Option<Candidate> = None;
        for rank in &group.ranks {
            let local = i64::from(rank.local.0);
            // What follows is no better, or comes later.
            if best.as_ref().is_some_and(|best| {
                (best.local, best.pods) != (local, i64::from(rank.pods)) || best.node <= rank.first
            }) {
                break;
            }
            let Some(cell) = cluster.cells.get(rank.cell) else { continue };
            if deviating.contains(&cell.site) {
                continue;
            }
            let points = match best {
                Some(best) => best.points,
                None => match self.judge_place(cell.site) {
                    Some(points) => points,
                    None => return,
                },
            };
            let Some(node) = self.first_alike(cell) else { continue };
            if best.is_none_or(|best| node < best.node) {
                let (pods, taste) = (cell.load.pods, group.taste);
                best = Some(Candidate { node, pods, taste, points, local });
            }
        }
        self.candidates.extend(best);
    }

    /// Finds the best of a site's nodes that are alike to all rules. `local` tells a cell's own
    /// score, if it has room.
    fn judge_site(&mut self, site: SiteId, taste: Taste, local: &dyn Fn(CellId) -> Option<i64>) {
        let cluster = self.asker.cluster;
        let Some(place) = cluster.sites.get(site) else { return };
        let Some(points) = self.judge_place(site) else { return };
        let cells = place.cells.iter().filter_map(|id| {
            let (local, cell) = (local(*id)?, cluster.cells.get(*id)?);
            let node = self.first_alike(cell)?;
            Some(Candidate { node, pods: cell.load.pods, taste, points, local })
        });
        let best = cells.max_by_key(|one| (one.local, Reverse((one.pods, one.node))));
        self.candidates.extend(best);
    }

    fn judge_place(&self, site: SiteId) -> Option<Points> {
        let place = self.asker.cluster.sites.get(site)?;
        self.topology.judge(&place.site, Symbol::NOBODY).ok()
    }

    fn first_alike(&self, cell: &Cell) -> Option<NodeIndex> {
        cell.nodes.iter().copied().find(|node| !self.single.contains(node))
    }

    fn judge_singles(&mut self) {
        let Asker { pod, affinity, cluster, .. } = &self.asker;
        for node in self.single.iter().filter_map(|index| cluster.see(*index)) {
            let site = &node.place.site;
            if site_refusal(pod, affinity, site, node.name, &cluster.symbols).is_some()
                || !has_room(pod, &node.cell.offer, &node.cell.load)
            {
                continue;
            }
            let Ok(points) = self.topology.judge(site, node.name) else { continue };
            self.candidates.push(Candidate {
                node: node.index,
                pods: node.cell.load.pods,
                taste: self.asker.taste_of(node.place, node.name),
                points,
                local: score::local(pod, node.cell),
            });
        }
    }

    /// Why no node takes the pod. It looks at each site once, and at the cells of those that the pod
    /// is meant for.
    fn reasons(&self, scope: Scope) -> String {
        let Asker { pod, affinity, cluster, .. } = &self.asker;
        let mut tally = Tally::default();
        let (mut at_site, mut in_cell) = (HashMap::new(), HashMap::new());
        for node in self.single.iter().filter_map(|index| cluster.see(*index)) {
            *at_site.entry(node.site).or_insert(0) += 1;
            *in_cell.entry(node.cell_id).or_insert(0) += 1;
            let mut reasons = refusals(pod, affinity, &node, &cluster.symbols);
            if reasons.is_empty() {
                reasons.extend(self.topology.judge(&node.place.site, node.name).err());
            }
            reasons.into_iter().for_each(|reason| tally.count_many(reason, 1));
        }
        if scope == Scope::Prefiltered {
            tally.count_many(Reason::OutsideNodeAffinity, cluster.node_count() - self.single.len());
            return tally.sentence(cluster.node_count());
        }
        let apart = |of: Option<&usize>| of.copied().unwrap_or(0);
        for (id, place) in cluster.sites.iter() {
            let (site, nobody) = (&place.site, Symbol::NOBODY);
            if let Some(reason) = site_refusal(pod, affinity, site, nobody, &cluster.symbols) {
                tally.count_many(reason, place.nodes - apart(at_site.get(&id)));
                continue;
            }
            let refusal = self.topology.judge(site, nobody).err();
            for id in &place.cells {
                let Some(cell) = cluster.cells.get(*id) else { continue };
                let mut reasons = shortages(pod, cell);
                if reasons.is_empty() {
                    reasons.extend(refusal.clone());
                }
                let nodes = cell.nodes.len() - apart(in_cell.get(id));
                reasons.into_iter().for_each(|reason| tally.count_many(reason, nodes));
            }
        }
        tally.sentence(cluster.node_count())
    }
}

/// All the sites that a pod may go to, if labels tell that they are few. Nodes that it names are not
/// among them.
fn few_sites(pod: &PodView, cluster: &Cluster) -> Option<Vec<SiteId>> {
    let of_label = |label: &Requirement| -> Option<HashSet<SiteId>> {
        (label.operator == Operator::In).then_some(())?;
        let key = cluster.symbols.lookup(&label.key);
        let values = || label.values.iter().map(|value| cluster.symbols.lookup(value));
        let count: usize = values().map(|value| cluster.sites.labelled(key, value).len()).sum();
        (count <= MAX_SITES_WITHOUT_RANKING)
            .then(|| values().flat_map(|value| cluster.sites.labelled(key, value)).collect())
    };
    let of_term = |term: &NodeTerm| term.expressions.iter().find_map(of_label);
    let selected = pod.node_selector.iter().find_map(of_label);
    let sites = selected.or_else(|| {
        let terms = pod.required_affinity.as_ref()?.iter();
        let sites = terms.map(of_term).collect::<Option<Vec<_>>>()?;
        Some(sites.into_iter().flatten().collect())
    })?;
    Some(sites.into_iter().collect())
}
