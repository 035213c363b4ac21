//! Rankings: for all pods of one shape, the cells that can take them, the best first.
//!
//! Cells are *grouped* by what the pod thinks of their sites, so that within a group only the
//! cells' own scores decide. A ranking is kept between placements and catches up with the cells that
//! changed meanwhile, some two for each pod placed; pods made from one template share it, and so do
//! templates that ask for the same.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use crate::{
    cell::{Cell, CellId},
    cluster::Cluster,
    filter::{Affinity, has_room, site_refusal},
    intern::Symbol,
    nearness,
    node::NodeIndex,
    pod::PodView,
    score::{self, Taste},
    site::{Place, SiteId},
    spread::{self, Eligible},
};

/// Rankings kept, the least recently used given up first. Each placement costs each of them two
/// small updates, when it is next asked.
const MAX_RANKINGS: usize = 64;
/// Cells that all rankings may list together: some 60 bytes each.
const MAX_RANKED_CELLS: usize = 4_000_000;
/// A label with at most so many values holds groups apart, so that its domains need not be
/// looked at one by one: zones, not pools.
const MAX_COARSE_VALUES: usize = 16;

/// A cell's rank within its group, best first: the highest score, then the fewest pods, then the
/// first node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) local: Reverse<i16>,
    pub(crate) pods: u32,
    pub(crate) first: NodeIndex,
    pub(crate) cell: CellId,
}

/// Sites that a pod does not tell apart, but for domains of labels with many values.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) taste: Taste,
    pub(crate) ranks: BTreeSet<Rank>,
}

/// What a group's sites have alike: the taste, and for each label that the pod spreads over whether
/// it is there, and its value when there are few.
type Alike = (Taste, Vec<Option<Symbol>>);

/// A site's group, as found out when the site had this serial.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    serial: u64,
    group: Option<u32>,
}

/// The ranking for one shape of pods.
#[derive(Debug)]
pub(crate) struct Ranking {
    shape: PodView,
    keys: Vec<Symbol>,
    coarse: Vec<Symbol>,
    groups: Vec<Group>,
    alike: HashMap<Alike, u32>,
    verdicts: Vec<Option<Verdict>>,
    leaves: Vec<Option<(u32, Rank)>>,
    /// How many changes of cells it knows of; `None` before it was built.
    seen: Option<u64>,
    eligible: Vec<Eligible>,
    eligible_serial: Option<u64>,
}

/// The rankings that are kept, the most recently used last.
#[derive(Debug, Default)]
pub(crate) struct Rankings(Vec<Ranking>);

/// A pod with what was resolved of it, to rank cells for.
pub(crate) struct Asker<'a> {
    pub(crate) pod: &'a PodView,
    pub(crate) affinity: &'a Affinity<'a>,
    pub(crate) cluster: &'a Cluster,
    /// The pod tells some nodes apart by name.
    pub(crate) names: bool,
}

impl Rankings {
    /// Takes out the ranking for the pod, up to date. [`Rankings::keep`] brings it back.
    pub(crate) fn take(&mut self, asker: &Asker<'_>) -> Ranking {
        let keys = keys(asker);
        let known = self.0.iter().position(|one| one.keys == keys && one.is_for(asker.pod));
        let known = known.map(|at| self.0.remove(at)).filter(|known| known.is_apt(asker));
        let mut ranking = match known {
            Some(ranking) => ranking,
            None => Ranking::new(asker, keys),
        };
        if !ranking.catch_up(asker) {
            ranking.build(asker);
        }
        if ranking.eligible_serial != Some(asker.cluster.sites.serial()) {
            ranking.eligible_serial = Some(asker.cluster.sites.serial());
            ranking.eligible = asker.eligible(None);
        }
        ranking
    }

    /// Keeps a ranking for the next pod of its shape.
    pub(crate) fn keep(&mut self, ranking: Ranking) {
        self.0.push(ranking);
        let cells = |all: &[Ranking]| all.iter().map(|one| one.leaves.len()).sum::<usize>();
        while self.0.len() > MAX_RANKINGS || (self.0.len() > 1 && cells(&self.0) > MAX_RANKED_CELLS)
        {
            self.0.remove(0);
        }
    }
}

/// The labels whose values matter to the pod beyond its filters, each once.
fn keys(asker: &Asker<'_>) -> Vec<Symbol> {
    let keys = spread::keys(asker.pod).into_iter().chain(nearness::keys(asker.pod));
    let mut keys: Vec<_> = keys.map(|key| asker.cluster.symbols.lookup(key)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

impl Ranking {
    fn new(asker: &Asker<'_>, keys: Vec<Symbol>) -> Self {
        let sites = &asker.cluster.sites;
        let coarse = keys.iter().copied().filter(|key| sites.values(*key) <= MAX_COARSE_VALUES);
        Self {
            shape: asker.pod.clone(),
            coarse: coarse.collect(),
            keys,
            groups: Vec::new(),
            alike: HashMap::new(),
            verdicts: Vec::new(),
            leaves: Vec::new(),
            seen: None,
            eligible: Vec::new(),
            eligible_serial: None,
        }
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The domains that the pod's required constraints count, in order.
    pub(crate) fn eligible(&self) -> &[Eligible] {
        &self.eligible
    }

    /// Whether all sites of a group have the same value of this label, if any.
    pub(crate) fn holds_apart(&self, key: Symbol) -> bool {
        self.coarse.contains(&key)
    }

    /// What the pod thinks of a site with cells; `None` when it may not go there.
    pub(crate) fn taste_at(&self, site: SiteId) -> Option<Taste> {
        let group = self.verdicts.get(site.0 as usize)?.as_ref()?.group?;
        self.groups.get(group as usize).map(|group| group.taste)
    }

    /// A cell's rank; `None` when it cannot take such a pod.
    pub(crate) fn rank(&self, cell: CellId) -> Option<Rank> {
        let leaf = self.leaves.get(cell.0 as usize)?;
        leaf.map(|(_, rank)| rank)
    }

    /// Whether the pod is of this ranking's shape: all that this file reads of a pod is compared.
    fn is_for(&self, pod: &PodView) -> bool {
        let known = &self.shape;
        known.requests == pod.requests
            && known.weight == pod.weight
            && known.host_ports == pod.host_ports
            && known.node_selector == pod.node_selector
            && known.required_affinity == pod.required_affinity
            && known.preferred_affinity == pod.preferred_affinity
            && known.tolerations == pod.tolerations
            && known.node_name == pod.node_name
            && known.spread.len() == pod.spread.len()
            && known.spread.iter().zip(&pod.spread).all(|(one, other)| one.looks_as(other))
    }

    /// Whether the labels that were found to have few values still do.
    fn is_apt(&self, asker: &Asker<'_>) -> bool {
        self.coarse.iter().all(|key| asker.cluster.sites.values(*key) <= 2 * MAX_COARSE_VALUES)
    }

    fn build(&mut self, asker: &Asker<'_>) {
        self.groups.clear();
        self.alike.clear();
        self.verdicts.clear();
        self.leaves.clear();
        self.seen = Some(asker.cluster.cells.changes());
        for (cell, _) in asker.cluster.cells.iter() {
            self.refresh(cell, asker);
        }
    }

    fn catch_up(&mut self, asker: &Asker<'_>) -> bool {
        let cells = &asker.cluster.cells;
        let Some(changed) = self.seen.and_then(|seen| cells.changed_since(seen)) else {
            return false;
        };
        // A cell that many pods went to changed as often, and is looked at once.
        let mut changed: Vec<_> = changed.collect();
        changed.sort_unstable();
        changed.dedup();
        for cell in changed {
            self.refresh(cell, asker);
        }
        self.seen = Some(cells.changes());
        true
    }

    fn refresh(&mut self, id: CellId, asker: &Asker<'_>) {
        let leaf = asker.cluster.cells.get(id).and_then(|cell| self.leaf(id, cell, asker));
        let at = id.0 as usize;
        let before = self.leaves.get(at).copied().flatten();
        if before == leaf {
            return;
        }
        if at >= self.leaves.len() {
            self.leaves.resize(at + 1, None);
        }
        if let Some(slot) = self.leaves.get_mut(at) {
            *slot = leaf;
        }
        if let Some((group, rank)) = before
            && let Some(group) = self.groups.get_mut(group as usize)
        {
            group.ranks.remove(&rank);
        }
        if let Some((group, rank)) = leaf
            && let Some(group) = self.groups.get_mut(group as usize)
        {
            group.ranks.insert(rank);
        }
    }

    fn leaf(&mut self, id: CellId, cell: &Cell, asker: &Asker<'_>) -> Option<(u32, Rank)> {
        let place = asker.cluster.sites.get(cell.site)?;
        let group = self.group_of(cell.site, place, asker)?;
        let first = *cell.nodes.first()?;
        has_room(asker.pod, &cell.offer, &cell.load).then(|| {
            let local = Reverse(score::local(asker.pod, cell) as i16);
            let pods = u32::try_from(cell.load.pods).unwrap_or(0);
            (group, Rank { local, pods, first, cell: id })
        })
    }

    fn group_of(&mut self, id: SiteId, place: &Place, asker: &Asker<'_>) -> Option<u32> {
        let at = id.0 as usize;
        if let Some(Some(verdict)) = self.verdicts.get(at)
            && verdict.serial == place.serial
        {
            return verdict.group;
        }
        let group = asker.taste(place).map(|taste| {
            let label = |key: &Symbol| {
                let value = place.site.kept(*key)?;
                Some(if self.coarse.contains(key) { value } else { Symbol::NOBODY })
            };
            let alike = (taste, self.keys.iter().map(label).collect());
            let next = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
            *self.alike.entry(alike).or_insert_with(|| {
                self.groups.push(Group { taste, ranks: BTreeSet::new() });
                next
            })
        });
        if at >= self.verdicts.len() {
            self.verdicts.resize(at + 1, None);
        }
        if let Some(slot) = self.verdicts.get_mut(at) {
            *slot = Some(Verdict { serial: place.serial, group });
        }
        group
    }
}

impl Asker<'_> {
    /// The domains that the pod's required constraints count, in order; `few` are the sites with
    /// nodes that it may go to, when they are known.
    pub(crate) fn eligible(&self, few: Option<&[SiteId]>) -> Vec<Eligible> {
        let mut required = self.pod.spread.iter().filter(|constraint| constraint.required);
        let look = |sites: &[SiteId]| {
            spread::eligible(self.pod, self.affinity, sites, self.names, self.cluster)
        };
        match few {
            Some(few) if required.clone().all(|constraint| constraint.honor_affinity) => look(few),
            _ if required.next().is_none() => Vec::new(),
            _ => look(&self.cluster.sites.iter().map(|(id, _)| id).collect::<Vec<_>>()),
        }
    }

    /// What the pod thinks of a site's nodes that it does not name; `None` when it may not go
    /// there.
    pub(crate) fn taste(&self, place: &Place) -> Option<Taste> {
        let (pod, affinity, symbols) = (self.pod, self.affinity, &self.cluster.symbols);
        let refusal = site_refusal(pod, affinity, &place.site, Symbol::NOBODY, symbols);
        refusal.is_none().then(|| self.taste_of(place, Symbol::NOBODY))
    }

    /// What the pod thinks of the site's node of this name.
    pub(crate) fn taste_of(&self, place: &Place, name: Symbol) -> Taste {
        Taste {
            unwelcome: score::unwelcome(self.pod, &place.site),
            preference: self.affinity.preference(&place.site, name, &self.cluster.symbols),
        }
    }
}
