//! Spreading pods over the values of node labels: constraints that filter, constraints that score,
//! and the defaults for pods that name none.
//!
//! The weight of a constraint that scores grows with the logarithm of the number of its domains.
//! Kubernetes counts domains among the nodes that it sampled for the pod at hand; here nothing is
//! sampled and the number is that of the label's values in the cluster, which is cheap to know.

use toono_openyurt::keys;

use crate::{
    cluster::{Cluster, Seen},
    demand::Kin,
    filter::{Affinity, untolerated},
    ids::{IdMap, IdSet},
    intern::Symbol,
    ledger::{About, Asked},
    pod::{PodView, SpreadConstraint},
    site::{Place, Site, SiteId},
    topology::{Effect, Rule},
};

/// How pods of one owner spread when they ask for nothing: over nodes and over zones, as
/// Kubernetes' system defaults say, and over node pools, which are this system's places. All are
/// preferences. The numbers are the skews.
const DEFAULTS: [(&str, i32); 3] =
    [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5), (keys::NODE_POOL, 5)];

/// Of the sites that a required constraint counts: how many values its label has there, and where
/// each node is a domain of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Eligible {
    values: IdSet<Symbol>,
    own_name: Vec<SiteId>,
}

/// The labels that a pod spreads over.
pub(crate) fn keys(pod: &PodView) -> Vec<&str> {
    if pod.spread.is_empty() && pod.owner.is_some() {
        return DEFAULTS.iter().map(|(key, _)| *key).collect();
    }
    pod.spread.iter().map(|constraint| &*constraint.topology_key).collect()
}

/// What a pod's constraints count, with the rules that they make. [`renew`] says what the counts mean.
pub(crate) fn questions(pod: &PodView) -> Vec<Asked> {
    let rule = |label: &str| (label.into(), Effect::default());
    if pod.spread.is_empty() {
        let defaults = DEFAULTS.iter().map(|(label, _)| rule(label)).collect();
        return pod.owner.iter().map(|_| (About::Owner, Vec::clone(&defaults))).collect();
    }
    let constraints = pod.spread.iter().enumerate();
    constraints.map(|(at, one)| (About::Constraint(at), vec![rule(&one.topology_key)])).collect()
}

/// How much each pod of a demand counts: one or nothing.
pub(crate) fn weight(pod: &PodView, about: About, kin: &Kin, cluster: &Cluster) -> i64 {
    let counts = match about {
        About::Owner => pod.owner.is_some() && kin.demand.owner == pod.owner,
        About::Constraint(at) => {
            let selector = pod.spread.get(at).and_then(|one| one.selector.as_deref());
            kin.demand.namespace == pod.key.namespace
                && selector.is_some_and(|selector| kin.is_selected(selector, &cluster.symbols))
        }
        _ => false,
    };
    i64::from(counts)
}

/// Whether pods on the node count.
pub(crate) fn looks_at(
    pod: &PodView,
    about: About,
    affinity: &Affinity<'_>,
    node: &Seen<'_>,
    cluster: &Cluster,
) -> bool {
    let About::Constraint(at) = about else {
        return affinity.matches(&node.place.site, node.name, &cluster.symbols);
    };
    let Some(constraint) = pod.spread.get(at) else { return false };
    let mut together = pod.spread.iter().filter(|one| one.required == constraint.required);
    let has = |one: &SpreadConstraint| {
        node.place.site.kept(cluster.symbols.lookup(&one.topology_key)).is_some()
    };
    together.all(has) && counts(constraint, pod, affinity, &node.place.site, node.name, cluster)
}

/// Says what the counts mean now. `eligible` belongs to the required constraints that were not asked
/// about yet.
pub(crate) fn renew<'a>(
    pod: &PodView,
    about: About,
    rules: &mut [Rule],
    eligible: &mut impl Iterator<Item = &'a Eligible>,
    cluster: &Cluster,
) {
    let About::Constraint(at) = about else {
        for (rule, (_, max_skew)) in rules.iter_mut().zip(DEFAULTS) {
            rule.effect = crowd(rule.key, max_skew, false, cluster);
        }
        return;
    };
    let Some(constraint) = pod.spread.get(at) else { return };
    for rule in rules {
        rule.effect = if constraint.required {
            let all = eligible.next().map_or(0, |eligible| eligible.domains(cluster));
            limit(constraint, pod, &rule.counts, all)
        } else {
            crowd(rule.key, constraint.max_skew, true, cluster)
        };
    }
}

fn crowd(key: Symbol, max_skew: i32, demanded: bool, cluster: &Cluster) -> Effect {
    // The logarithm keeps a label with few values from being drowned by one with many.
    let size = match cluster.sites.is_own_name(key) {
        true => cluster.node_count(),
        false => cluster.sites.values(key),
    };
    Effect::Crowd { weight: (size as f64 + 2.0).ln(), max_skew, demanded }
}

fn limit(
    constraint: &SpreadConstraint,
    pod: &PodView,
    counts: &IdMap<Symbol, i64>,
    domains: usize,
) -> Effect {
    let too_few = constraint.min_domains.is_some_and(|least| (domains as i64) < i64::from(least));
    let emptiest = match too_few || domains > counts.len() {
        true => 0,
        false => counts.values().copied().min().unwrap_or(0),
    };
    let itself = i64::from(constraint.selects(&pod.labels));
    Effect::Limit { most: i64::from(constraint.max_skew) + emptiest - itself }
}

fn counts(
    constraint: &SpreadConstraint,
    pod: &PodView,
    affinity: &Affinity<'_>,
    site: &Site,
    name: Symbol,
    cluster: &Cluster,
) -> bool {
    (!constraint.honor_affinity || affinity.matches(site, name, &cluster.symbols))
        && (!constraint.honor_taints || untolerated(pod, site).is_none())
}

/// For each required constraint, the domains that it finds at `sites`.
///
/// A pod that tells nodes apart by name (`named`) makes each node eligible or not on its own, so
/// then all are looked at.
pub(crate) fn eligible(
    pod: &PodView,
    affinity: &Affinity<'_>,
    sites: &[SiteId],
    named: bool,
    cluster: &Cluster,
) -> Vec<Eligible> {
    let required: Vec<_> = pod
        .spread
        .iter()
        .filter(|constraint| constraint.required)
        .map(|constraint| (constraint, cluster.symbols.lookup(&constraint.topology_key)))
        .collect();
    let mut all = vec![Eligible::default(); required.len()];
    if required.is_empty() {
        return all;
    }
    let mut look = |id: SiteId, place: &Place, name: Symbol| {
        if required.iter().any(|(_, key)| place.site.kept(*key).is_none()) {
            return;
        }
        for ((constraint, key), eligible) in required.iter().zip(&mut all) {
            if counts(constraint, pod, affinity, &place.site, name, cluster) {
                match place.site.label(*key, name) {
                    Some(Symbol::NOBODY) => eligible.own_name.push(id),
                    Some(value) => drop(eligible.values.insert(value)),
                    None => {}
                }
            }
        }
    };
    if named {
        let nodes = cluster.known_nodes().filter_map(|index| cluster.see(index));
        nodes.for_each(|node| look(node.site, node.place, node.name));
    } else {
        let places = sites.iter().filter_map(|id| Some((*id, cluster.sites.get(*id)?)));
        places.for_each(|(id, place)| look(id, place, Symbol::NOBODY));
    }
    all
}

impl Eligible {
    /// How many domains there are now.
    fn domains(&self, cluster: &Cluster) -> usize {
        let nodes = |id: &SiteId| cluster.sites.get(*id).map_or(0, |place| place.nodes);
        // A node may be labelled with the name of another.
        let is_shared = |value: &&Symbol| {
            let node = cluster.node_of_name(**value).and_then(|node| cluster.see(node));
            node.is_some_and(|node| self.own_name.contains(&node.site))
        };
        let shared = match self.own_name.is_empty() {
            true => 0,
            false => self.values.iter().filter(is_shared).count(),
        };
        self.values.len() - shared + self.own_name.iter().map(nodes).sum::<usize>()
    }
}
