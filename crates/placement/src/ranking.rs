//! Rankings: for all pods of one shape, the spots that can take them, the best first.
//!
//! Spots are *grouped* by what the pod thinks of their sites and by which of its images they have, so that
//! within a group only the orders of their cells decide. A ranking is kept between placements and catches
//! up with the spots whose best cell changed meanwhile; pods made from one template share it, and so do
//! templates that ask for the same.

use std::collections::{BTreeSet, HashMap};

use crate::{
    cluster::Cluster,
    filter::{Affinity, site_refusal},
    images::Locality,
    intern::Symbol,
    nearness,
    order::{Order, Orders, Rank},
    pod::PodView,
    score::{self, Taste},
    site::{Place, SiteId},
    spot::{Spot, SpotId},
    spread::{self, Eligible},
};

/// Rankings kept, the least recently used given up first. Each placement costs each of them two
/// small updates, when it is next asked.
const MAX_RANKINGS: usize = 64;
/// Spots that all rankings may list together: some 60 bytes each.
const MAX_RANKED_SPOTS: usize = 4_000_000;
/// A label with at most so many values holds groups apart, so that its domains need not be
/// looked at one by one: zones, not pools.
const MAX_COARSE_VALUES: usize = 16;

/// Spots that a pod does not tell apart, but for domains of labels with many values.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) taste: Taste,
    /// Which of the pod's images are there.
    pub(crate) held: Box<[Symbol]>,
    /// The best cell of each spot.
    pub(crate) ranks: BTreeSet<Rank>,
}

/// What sites have alike: the taste, and for each label that the pod spreads over whether it is
/// there, and its value when there are few.
type Alike = (Taste, Vec<Option<Symbol>>);

/// Sites that are alike, and the groups of their spots.
#[derive(Debug)]
struct Kind {
    taste: Taste,
    groups: Vec<u32>,
}

/// A site's kind, as found out when the site had this serial.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    serial: u64,
    kind: Option<u32>,
}

/// The ranking for one shape of pods.
#[derive(Debug)]
pub(crate) struct Ranking {
    shape: PodView,
    keys: Vec<Symbol>,
    coarse: Vec<Symbol>,
    images: Vec<Symbol>,
    groups: Vec<Group>,
    kinds: Vec<Kind>,
    alike: HashMap<Alike, u32>,
    verdicts: Vec<Option<Verdict>>,
    spots: Vec<Option<(u32, Rank)>>,
    /// Which order it follows, and how many of its changes it knows of; `None` before it was built.
    seen: Option<(u64, u64)>,
    eligible: Vec<Eligible>,
    eligible_serial: Option<u64>,
}

/// The rankings that are kept, the most recently used last.
#[derive(Debug, Default)]
pub(crate) struct Rankings {
    #[expect(clippy::vec_box, reason = "each placement moves one to the end")]
    kept: Vec<Box<Ranking>>,
    pub(crate) orders: Orders,
}

/// A pod with what was resolved of it, to rank spots for.
pub(crate) struct Asker<'a> {
    pub(crate) pod: &'a PodView,
    pub(crate) affinity: &'a Affinity<'a>,
    pub(crate) locality: Locality,
    pub(crate) cluster: &'a Cluster,
    /// The pod tells some nodes apart by name.
    pub(crate) names: bool,
}

impl Rankings {
    /// Takes out the ranking for the pod, up to date, with the order that it follows.
    /// [`Rankings::keep`] brings both back.
    pub(crate) fn take(&mut self, asker: &Asker<'_>) -> (Box<Order>, Box<Ranking>) {
        let order = self.orders.take(asker.pod, asker.cluster);
        let (keys, images) = (keys(asker), asker.locality.names());
        let is_it =
            |one: &Ranking| one.keys == keys && one.images == images && one.is_for(asker.pod);
        let known = self.kept.iter().rposition(|one| is_it(one)).map(|at| self.kept.remove(at));
        let mut ranking = match known.filter(|known| known.is_apt(asker)) {
            Some(ranking) => ranking,
            None => Box::new(Ranking::new(asker, keys, images)),
        };
        if ranking.catch_up(&order, asker).is_none() {
            ranking.build(&order, asker);
        }
        if ranking.eligible_serial != Some(asker.cluster.sites.serial()) {
            ranking.eligible_serial = Some(asker.cluster.sites.serial());
            ranking.eligible = asker.eligible(None);
        }
        (order, ranking)
    }

    /// Keeps a ranking for the next pod of its shape.
    pub(crate) fn keep(&mut self, order: Box<Order>, ranking: Box<Ranking>) {
        self.orders.keep(order);
        self.kept.push(ranking);
        let spots = |all: &[Box<Ranking>]| all.iter().map(|one| one.spots.len()).sum::<usize>();
        while self.kept.len() > MAX_RANKINGS
            || (self.kept.len() > 1 && spots(&self.kept) > MAX_RANKED_SPOTS)
        {
            self.kept.remove(0);
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
    fn new(asker: &Asker<'_>, keys: Vec<Symbol>, images: Vec<Symbol>) -> Self {
        let sites = &asker.cluster.sites;
        let coarse = keys.iter().copied().filter(|key| sites.values(*key) <= MAX_COARSE_VALUES);
        Self {
            shape: asker.pod.clone(),
            coarse: coarse.collect(),
            keys,
            images,
            groups: Vec::new(),
            kinds: Vec::new(),
            alike: HashMap::new(),
            verdicts: Vec::new(),
            spots: Vec::new(),
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

    /// What the pod thinks of a site with room; `None` when it may not go there.
    pub(crate) fn taste_at(&self, site: SiteId) -> Option<Taste> {
        let kind = self.verdicts.get(site.0 as usize)?.as_ref()?.kind?;
        self.kinds.get(kind as usize).map(|kind| kind.taste)
    }

    /// Whether the pod is of this ranking's shape: all that this file and `order` read of a pod is
    /// compared.
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

    fn build(&mut self, order: &Order, asker: &Asker<'_>) {
        self.groups.clear();
        self.kinds.clear();
        self.alike.clear();
        self.verdicts.clear();
        self.spots.clear();
        self.seen = Some((order.serial(), order.log().changes()));
        order.spots().for_each(|spot| self.refresh(spot, order, asker));
    }

    fn catch_up(&mut self, order: &Order, asker: &Asker<'_>) -> Option<()> {
        let (serial, seen) = self.seen.filter(|(serial, _)| *serial == order.serial())?;
        let mut changed: Vec<_> = order.log().since(seen)?.collect();
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().for_each(|spot| self.refresh(spot, order, asker));
        self.seen = Some((serial, order.log().changes()));
        Some(())
    }

    fn refresh(&mut self, id: SpotId, order: &Order, asker: &Asker<'_>) {
        let best = order.best(id);
        let now = best.and_then(|rank| {
            let spot = asker.cluster.spots.get(id)?;
            Some((self.group_of(spot, asker)?, rank))
        });
        let at = id.0 as usize;
        let before = self.spots.get(at).copied().flatten();
        if before == now {
            return;
        }
        if at >= self.spots.len() {
            self.spots.resize(at + 1, None);
        }
        if let Some(slot) = self.spots.get_mut(at) {
            *slot = now;
        }
        if let Some((group, rank)) = before
            && let Some(group) = self.groups.get_mut(group as usize)
        {
            group.ranks.remove(&rank);
        }
        if let Some((group, rank)) = now
            && let Some(group) = self.groups.get_mut(group as usize)
        {
            group.ranks.insert(rank);
        }
    }

    fn group_of(&mut self, spot: &Spot, asker: &Asker<'_>) -> Option<u32> {
        let place = asker.cluster.sites.get(spot.site)?;
        let kind = self.kind_of(spot.site, place, asker)?;
        let kind = self.kinds.get_mut(kind as usize)?;
        let held = asker.locality.held(spot.images, &asker.cluster.images);
        let is_it = |group: &&u32| {
            self.groups.get(**group as usize).is_some_and(|group| group.held == held)
        };
        if let Some(group) = kind.groups.iter().find(is_it) {
            return Some(*group);
        }
        let group = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        self.groups.push(Group { taste: kind.taste, held, ranks: BTreeSet::new() });
        kind.groups.push(group);
        Some(group)
    }

    fn kind_of(&mut self, id: SiteId, place: &Place, asker: &Asker<'_>) -> Option<u32> {
        let at = id.0 as usize;
        if let Some(Some(verdict)) = self.verdicts.get(at)
            && verdict.serial == place.serial
        {
            return verdict.kind;
        }
        let kind = asker.taste(place).map(|taste| {
            let label = |key: &Symbol| {
                let value = place.site.kept(*key)?;
                Some(if self.coarse.contains(key) { value } else { Symbol::NOBODY })
            };
            let alike = (taste, self.keys.iter().map(label).collect());
            let next = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
            *self.alike.entry(alike).or_insert_with(|| {
                self.kinds.push(Kind { taste, groups: Vec::new() });
                next
            })
        });
        if at >= self.verdicts.len() {
            self.verdicts.resize(at + 1, None);
        }
        if let Some(slot) = self.verdicts.get_mut(at) {
            *slot = Some(Verdict { serial: place.serial, kind });
        }
        kind
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

    /// The points of a spot's nodes for the images that they have.
    pub(crate) fn points_for_images(&self, spot: SpotId) -> i64 {
        let spot = self.cluster.spots.get(spot);
        spot.map_or(0, |spot| self.locality.points_of(spot.images, &self.cluster.images))
    }
}
