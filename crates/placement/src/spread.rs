//! Spreading pods over the values of node labels: constraints that filter, constraints that score,
//! and the defaults for pods that name none.
//!
//! The weight of a constraint that scores grows with the logarithm of the number of its domains.
//! Kubernetes counts domains among the nodes that it sampled for the pod at hand; here nothing is
//! sampled and the number is that of the label's values in the cluster, which is cheap to know.

use std::collections::{HashMap, HashSet};

use crate::{
    cluster::{Cluster, Seen},
    demand::{Count, Kin},
    filter::{Affinity, untolerated},
    intern::Symbol,
    node::NodeIndex,
    pod::{PodView, SpreadConstraint},
    site::{Place, Site, SiteId},
    topology::{Effect, Rule},
};

/// How pods of one owner spread when they ask for nothing: over nodes and over zones, as
/// Kubernetes' system defaults say, and over node pools, which are this system's places. All are
/// preferences. The numbers are the skews.
const DEFAULTS: [(&str, i32); 3] = [
    ("kubernetes.io/hostname", 3),
    ("topology.kubernetes.io/zone", 5),
    ("apps.openyurt.io/nodepool", 5),
];

/// Of the sites that a required constraint counts: how many values its label has there, and where
/// each node is a domain of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Eligible {
    values: HashSet<Symbol>,
    own_name: Vec<SiteId>,
}

/// The labels that a pod spreads over.
pub(crate) fn keys(pod: &PodView) -> Vec<&str> {
    if pod.spread.is_empty() && pod.owner.is_some() {
        return DEFAULTS.iter().map(|(key, _)| *key).collect();
    }
    pod.spread.iter().map(|constraint| &*constraint.topology_key).collect()
}

/// The rules that a pod's constraints make. `eligible` belongs to its required ones, in order.
pub(crate) fn rules(
    pod: &PodView,
    affinity: &Affinity<'_>,
    eligible: &[Eligible],
    cluster: &Cluster,
) -> Vec<Rule> {
    if pod.spread.is_empty() {
        return defaults(pod, affinity, cluster);
    }
    let keys_of = |required: bool| -> Vec<Symbol> {
        let constraints = pod.spread.iter().filter(|one| one.required == required);
        constraints.map(|one| cluster.symbols.lookup(&one.topology_key)).collect()
    };
    let (required_keys, preferred_keys) = (keys_of(true), keys_of(false));
    let mut eligible = eligible.iter();
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    for constraint in &pod.spread {
        let key = cluster.symbols.lookup(&constraint.topology_key);
        let together = if constraint.required { &required_keys } else { &preferred_keys };
        let counted = |node: &Seen<'_>| {
            together.iter().all(|key| node.place.site.kept(*key).is_some())
                && counts(constraint, pod, affinity, &node.place.site, node.name, cluster)
        };
        let selector = constraint.selector.iter();
        let kin = selector.flat_map(|selector| {
            cluster.demands.selected(&pod.key.namespace, selector, &cluster.symbols)
        });
        let counts = domains(&nodes_of(kin, counted, cluster), key);
        if constraint.required {
            let all = eligible.next().map_or(0, |eligible| eligible.domains(cluster));
            let effect = limit(constraint, pod, &counts, all);
            required.push(Rule { key, counts, effect });
        } else {
            let effect = crowd(key, constraint.max_skew, true, cluster);
            preferred.push(Rule { key, counts, effect });
        }
    }
    required.append(&mut preferred);
    required
}

fn defaults(pod: &PodView, affinity: &Affinity<'_>, cluster: &Cluster) -> Vec<Rule> {
    let Some(owner) = &pod.owner else { return Vec::new() };
    let counted = |node: &Seen<'_>| affinity.matches(&node.place.site, node.name, &cluster.symbols);
    let nodes = nodes_of(cluster.demands.of_owner(owner), counted, cluster);
    let rule = |(key, max_skew): &(&str, i32)| {
        let key = cluster.symbols.lookup(key);
        let counts = domains(&nodes, key);
        Rule { key, counts, effect: crowd(key, *max_skew, false, cluster) }
    };
    DEFAULTS.iter().map(rule).collect()
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
    counts: &HashMap<Symbol, i64>,
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

/// The nodes that count and where pods are that stay, and how many.
fn nodes_of<'a>(
    kin: impl Iterator<Item = &'a Kin>,
    counted: impl Fn(&Seen<'_>) -> bool,
    cluster: &'a Cluster,
) -> Vec<(Seen<'a>, i64)> {
    let nodes = kin.flat_map(|kin| &kin.nodes).filter(|(_, count)| count.staying > 0);
    let seen = |(index, count): (&NodeIndex, &Count)| {
        Some((cluster.see(*index)?, i64::from(count.staying)))
    };
    nodes.filter_map(seen).filter(|(node, _)| counted(node)).collect()
}

/// The pods in each domain.
fn domains(nodes: &[(Seen<'_>, i64)], key: Symbol) -> HashMap<Symbol, i64> {
    let mut domains = HashMap::new();
    for (node, count) in nodes {
        if let Some(domain) = node.place.site.label(key, node.name) {
            *domains.entry(domain).or_default() += count;
        }
    }
    domains
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
        self.values.len() + self.own_name.iter().map(nodes).sum::<usize>()
    }
}
