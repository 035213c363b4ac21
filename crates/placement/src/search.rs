//! The search: a pod's candidates, each the best of nodes that it does not tell apart, or the reasons why there
//! are none.

use std::collections::{BTreeSet, HashMap};

use crate::{
    cell::CellId,
    census::Census,
    few::Few,
    filter::{few_sites, has_room, refusals, shortages, site_refusal},
    ids::IdSet,
    intern::Symbol,
    node::NodeIndex,
    order::{Order, Rank},
    ranking::{Asker, Group, Ranking, Rankings},
    reasons::{Reason, Tally},
    score::{self, Candidate, Taste},
    site::SiteId,
    spot::SpotId,
    spread::Eligible,
    topology::{Points, Topology},
};

/// Where a pod may go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To the nodes that it names.
    Named,
    /// The same, and the filters need not even be asked about others.
    Prefiltered,
    /// Anywhere.
    All,
}

/// The search for a pod's candidates.
pub(crate) struct Search<'a> {
    pub(crate) asker: Asker<'a>,
    census: Option<Box<Census>>,
    pub(crate) topology: Topology,
    /// Nodes that are judged one by one: the pod names them, or they share a label's value with a node of that
    /// name.
    single: BTreeSet<NodeIndex>,
    /// Nodes are judged by families, besides: pods there make them special.
    families: bool,
    /// They were, already.
    families_judged: bool,
    pub(crate) candidates: Vec<Candidate>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        asker: Asker<'a>,
        named: Vec<NodeIndex>,
        census: Option<Box<Census>>,
    ) -> Self {
        let single = named.into_iter().collect();
        let topology = Topology::default();
        Self {
            asker,
            census,
            topology,
            single,
            families: false,
            families_judged: false,
            candidates: Vec::new(),
        }
    }

    /// Gives back the census.
    pub(crate) fn finish(self) -> Option<Box<Census>> {
        let mut census = self.census?;
        if !self.topology.rules.is_empty() {
            census.give_back(self.topology);
        }
        Some(census)
    }

    pub(crate) fn among_the_named(&mut self) {
        self.count(&self.asker.eligible(None));
        self.judge_singles();
    }

    pub(crate) fn among_all(&mut self, rankings: &mut Rankings) {
        if let Some(sites) = few_sites(self.asker.pod, self.asker.cluster) {
            self.count(&self.asker.eligible(Some(&sites)));
            self.part_singles();
            self.judge_few(&sites, rankings);
        } else {
            let (order, ranking) = rankings.take(&self.asker);
            self.count(ranking.eligible());
            self.part_singles();
            self.judge_groups(&ranking, &order);
            self.judge_families(&ranking, &order);
            rankings.keep(order, ranking);
        }
        self.judge_singles();
    }

    fn judge_few(&mut self, sites: &[SiteId], rankings: &mut Rankings) {
        let cluster = self.asker.cluster;
        let places = sites.iter().filter_map(|site| cluster.sites.get(*site));
        let spots = places.flat_map(|place| place.spots.iter());
        let cells = spots.filter_map(|spot| Some(cluster.spots.get(spot)?.cells.len())).sum();
        let order = rankings.orders.take_if_cheap(self.asker.pod, cells, cluster);
        for site in sites {
            let place = cluster.sites.get(*site);
            if let Some(taste) = place.and_then(|place| self.asker.taste(place)) {
                self.judge_site(*site, taste, order.as_deref());
            }
        }
        order.into_iter().for_each(|order| rankings.orders.keep(order));
    }

    /// Counts the pods that the pod's rules ask for.
    pub(crate) fn count(&mut self, eligible: &[Eligible]) {
        if let Some(census) = &mut self.census {
            self.topology = census.topology(eligible, self.asker.cluster);
        }
    }

    /// Finds the nodes that are not alike to all rules.
    fn part_singles(&mut self) {
        if self.topology.names_are_shared(self.asker.cluster) {
            self.single.extend(self.topology.deviating_nodes(self.asker.cluster));
        } else {
            self.families = true;
        }
    }

    /// The families of nodes, each by the first that is not judged by itself.
    fn families(&self) -> impl Iterator<Item = NodeIndex> {
        let census = self.census.iter().filter(|_| self.families);
        let families = census.flat_map(|census| census.ledger.families());
        families.filter_map(|nodes| nodes.iter().find(|node| !self.single.contains(node)))
    }

    fn is_alike(&self, node: NodeIndex) -> bool {
        let apart = |census: &Census| self.families && census.ledger.tells_apart(node);
        !self.single.contains(&node) && !self.census.as_deref().is_some_and(apart)
    }

    fn judge_groups(&mut self, ranking: &Ranking, order: &Order) {
        let cluster = self.asker.cluster;
        let deviating = self.topology.deviating_sites(|key| ranking.holds_apart(key), cluster);
        let of_singles = self.single.iter().copied().chain(self.families());
        let of_singles = of_singles.filter_map(|node| Some(cluster.see(node)?.site));
        let deviating: IdSet<_> = deviating.chain(of_singles).collect();
        for group in ranking.groups() {
            self.judge_group(group, &deviating);
        }
        for site in deviating {
            if let Some(taste) = ranking.taste_at(site) {
                self.judge_site(site, taste, Some(order));
            }
        }
    }

    /// Finds the best of a group's nodes that are alike to all rules.
    fn judge_group(&mut self, group: &Group, deviating: &IdSet<SiteId>) {
        let cluster = self.asker.cluster;
        let best = group.ranks.iter().find_map(|rank| {
            let cell = cluster.cells.get(rank.cell)?;
            (!deviating.contains(&cell.site)).then_some((rank, cell.site))
        });
        let Some((rank, site)) = best else { return };
        let Some(points) = self.judge_place(site) else { return };
        self.candidates.push(Candidate {
            node: rank.first,
            pods: i64::from(rank.pods),
            taste: group.taste,
            points,
            local: i64::from(rank.local.0) + self.asker.locality.points(&group.held),
        });
    }

    /// Finds the best nodes of each of a site's spots that are alike to all rules.
    fn judge_site(&mut self, site: SiteId, taste: Taste, order: Option<&Order>) {
        let cluster = self.asker.cluster;
        let Some(place) = cluster.sites.get(site) else { return };
        let Some(points) = self.judge_place(site) else { return };
        for spot in place.spots.iter() {
            let best = match order {
                Some(order) => self.first_of(order.ranks(spot)),
                None => self.first_of(self.ranks(spot).into_iter()),
            };
            let Some((rank, node)) = best else { continue };
            let local = i64::from(rank.local.0) + self.asker.points_for_images(spot);
            let pods = i64::from(rank.pods);
            self.candidates.push(Candidate { node, pods, taste, points, local });
        }
    }

    /// A spot's cells that have room, the best first, where there is no order that tells.
    fn ranks(&self, spot: SpotId) -> Vec<Rank> {
        let Asker { pod, cluster, .. } = &self.asker;
        let cells = cluster.spots.get(spot).into_iter().flat_map(|spot| spot.cells.iter());
        let rank = |id| Rank::of(id, cluster.cells.get(id)?, pod);
        let mut ranks: Vec<_> = cells.filter_map(rank).collect();
        ranks.sort_unstable();
        ranks
    }

    /// The best node that is alike to all rules, and its cell.
    fn first_of(&self, ranks: impl Iterator<Item = Rank>) -> Option<(Rank, NodeIndex)> {
        let mut best: Option<(Rank, NodeIndex)> = None;
        for rank in ranks {
            // What follows is no better, or comes later.
            if best.is_some_and(|(best, node)| best.with(node) <= rank.with(rank.first)) {
                break;
            }
            let Some(node) = self.first_alike(rank.cell) else {
                continue;
            };
            if best.is_none_or(|(best, known)| rank.with(node) < best.with(known)) {
                best = Some((rank, node));
            }
        }
        best
    }

    fn judge_place(&self, site: SiteId) -> Option<Points> {
        let place = self.asker.cluster.sites.get(site)?;
        self.topology.judge(&place.site, Symbol::NOBODY).ok()
    }

    fn first_alike(&self, id: CellId) -> Option<NodeIndex> {
        let cell = self.asker.cluster.cells.get(id)?;
        let census = self.census.as_ref().filter(|_| self.families);
        // Nodes that pods of one template went to are alike again, and none of them is alike to others.
        if census.is_some_and(|census| census.ledger.apart_in(id) == cell.nodes.len()) {
            return None;
        }
        cell.nodes.iter().find(|node| self.is_alike(*node))
    }

    /// Judges the families by what is known of their sites and cells, unless the pod names nodes.
    fn judge_families(&mut self, ranking: &Ranking, order: &Order) {
        self.families_judged = !self.asker.names;
        if self.asker.names {
            return;
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        for node in self.families().filter_map(|index| self.asker.cluster.see(index)) {
            let (Some(taste), Some(rank)) = (ranking.taste_at(node.site), order.rank(node.cell_id))
            else {
                continue;
            };
            let Ok(points) = self.topology.judge(&node.place.site, node.name) else { continue };
            let images = self.asker.points_for_images(node.cell.spot);
            let local = i64::from(rank.local.0) + images;
            let pods = i64::from(rank.pods);
            candidates.push(Candidate { node: node.index, pods, taste, points, local });
        }
        self.candidates = candidates;
    }

    fn judge_singles(&mut self) {
        let Asker { pod, affinity, cluster, .. } = &self.asker;
        let mut candidates = std::mem::take(&mut self.candidates);
        let families = self.families().filter(|_| !self.families_judged);
        let singles = self.single.iter().copied().chain(families);
        for node in singles.filter_map(|index| cluster.see(index)) {
            let site = &node.place.site;
            if site_refusal(pod, affinity, site, node.name, &cluster.symbols).is_some()
                || !has_room(pod, &node.cell.offer, &node.cell.load)
            {
                continue;
            }
            let Ok(points) = self.topology.judge(site, node.name) else { continue };
            candidates.push(Candidate {
                node: node.index,
                pods: node.cell.load.pods,
                taste: self.asker.taste_of(node.place, node.name),
                points,
                local: score::local(pod, node.cell) + self.asker.points_for_images(node.cell.spot),
            });
        }
        self.candidates = candidates;
    }

    /// All nodes that are judged apart from others of their cells.
    fn all_singles(&self) -> BTreeSet<NodeIndex> {
        let census = self.census.iter().filter(|_| self.families);
        let families = census.flat_map(|census| census.ledger.families()).flat_map(Few::iter);
        self.single.iter().copied().chain(families).collect()
    }

    /// Why no node takes the pod. It looks at each site once, and at the cells of those that the pod
    /// is meant for.
    pub(crate) fn reasons(&self, scope: Scope) -> String {
        let Asker { pod, affinity, cluster, .. } = &self.asker;
        let mut tally = Tally::default();
        let (mut at_site, mut in_cell) = (HashMap::new(), HashMap::new());
        let singles = self.all_singles();
        for node in singles.iter().filter_map(|index| cluster.see(*index)) {
            *at_site.entry(node.site).or_insert(0) += 1;
            *in_cell.entry(node.cell_id).or_insert(0) += 1;
            let mut reasons = refusals(pod, affinity, &node, &cluster.symbols);
            if reasons.is_empty() {
                reasons.extend(self.topology.judge(&node.place.site, node.name).err());
            }
            reasons.into_iter().for_each(|reason| tally.count_many(reason, 1));
        }
        if scope == Scope::Prefiltered {
            tally.count_many(Reason::OutsideNodeAffinity, cluster.node_count() - singles.len());
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
            let spots = place.spots.iter().filter_map(|spot| cluster.spots.get(spot));
            for id in spots.flat_map(|spot| spot.cells.iter()) {
                let Some(cell) = cluster.cells.get(id) else { continue };
                let mut reasons = shortages(pod, cell);
                if reasons.is_empty() {
                    reasons.extend(refusal.clone());
                }
                let nodes = cell.nodes.len() - apart(in_cell.get(&id));
                reasons.into_iter().for_each(|reason| tally.count_many(reason, nodes));
            }
        }
        tally.sentence(cluster.node_count())
    }
}
