//! Spreading pods over the values of node labels: constraints that filter, constraints that score,
//! and the defaults for pods that name none.

use std::collections::HashMap;

use crate::{
    cluster::Cluster,
    filter::{Affinity, untolerated},
    intern::Symbol,
    node::{Node, NodeIndex},
    pod::{PodView, SpreadConstraint},
    reasons::Reason,
    resident::NodeCounts,
    score::MAX_SCORE,
};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// How pods of one owner spread when they ask for nothing: over nodes and over zones, as
/// Kubernetes' system defaults say, and over node pools, which are this system's places. All are
/// preferences. The numbers are the skews.
const DEFAULTS: [(&str, i32); 3] =
    [(HOSTNAME, 3), ("topology.kubernetes.io/zone", 5), ("apps.openyurt.io/nodepool", 5)];

/// A required constraint with its domains counted, ready to test nodes.
pub(crate) struct Required<'a> {
    constraint: &'a SpreadConstraint,
    key: Symbol,
    domains: HashMap<Symbol, u32>,
    emptiest: u32,
    counts_itself: u32,
}

/// Counts the domains of the pod's required constraints.
pub(crate) fn required<'a>(
    pod: &'a PodView,
    affinity: &Affinity<'_>,
    cluster: &Cluster,
) -> Vec<Required<'a>> {
    let mut all: Vec<_> = pod
        .spread
        .iter()
        .filter(|constraint| constraint.required)
        .map(|constraint| Required {
            constraint,
            key: cluster.symbols.lookup(&constraint.topology_key),
            domains: HashMap::new(),
            emptiest: 0,
            counts_itself: u32::from(constraint.selects(&pod.labels)),
        })
        .collect();
    if all.is_empty() {
        return all;
    }
    let keys: Vec<_> = all.iter().map(|one| one.key).collect();
    for (index, node) in cluster.known_nodes() {
        if keys.iter().any(|key| node.label(*key).is_none()) {
            continue;
        }
        for one in &mut all {
            if counts_node(one.constraint, pod, affinity, node, cluster)
                && let Some(domain) = node.label(one.key)
            {
                *one.domains.entry(domain).or_default() +=
                    pods_on(one.constraint, pod, index, cluster);
            }
        }
    }
    for one in &mut all {
        let too_few = one
            .constraint
            .min_domains
            .is_some_and(|least| (one.domains.len() as i64) < i64::from(least));
        one.emptiest = if too_few { 0 } else { one.domains.values().copied().min().unwrap_or(0) };
    }
    all
}

impl Required<'_> {
    /// Why this constraint refuses the node.
    pub(crate) fn refusal(&self, node: &Node) -> Option<Reason> {
        let Some(domain) = node.label(self.key) else {
            return Some(Reason::SpreadMissingLabel);
        };
        let there = self.domains.get(&domain).copied().unwrap_or(0);
        let skew = i64::from(there) + i64::from(self.counts_itself) - i64::from(self.emptiest);
        (skew > i64::from(self.constraint.max_skew)).then_some(Reason::Spread)
    }
}

fn counts_node(
    constraint: &SpreadConstraint,
    pod: &PodView,
    affinity: &Affinity<'_>,
    node: &Node,
    cluster: &Cluster,
) -> bool {
    (!constraint.honor_affinity || affinity.matches(node, cluster))
        && (!constraint.honor_taints || untolerated(pod, node).is_none())
}

fn pods_on(
    constraint: &SpreadConstraint,
    pod: &PodView,
    node: NodeIndex,
    cluster: &Cluster,
) -> u32 {
    let counts = constraint
        .selector
        .as_ref()
        .and_then(|selector| cluster.groups.of_selector(&pod.key.namespace, selector));
    counts.and_then(|counts| counts.get(&node)).copied().unwrap_or(0)
}

/// A preference to spread, with its domains counted.
struct Preferred<'a> {
    key: Symbol,
    over_nodes: bool,
    max_skew: i32,
    constraint: Option<&'a SpreadConstraint>,
    counts: Option<&'a NodeCounts>,
    domains: HashMap<Symbol, u32>,
    weight: f64,
}

/// Scores `feasible` nodes from 0 to 100 by how few of the pod's kin are in their domains.
pub(crate) fn scores(
    pod: &PodView,
    affinity: &Affinity<'_>,
    feasible: &[(NodeIndex, &Node)],
    cluster: &Cluster,
) -> Vec<i64> {
    let mut preferences = preferences(pod, cluster);
    if preferences.is_empty() {
        return vec![0; feasible.len()];
    }
    // Constraints that the pod itself names demand all their labels; the defaults do not.
    let own: Vec<_> =
        preferences.iter().filter(|one| one.constraint.is_some()).map(|one| one.key).collect();
    let ignored = |node: &Node| own.iter().any(|key| node.label(*key).is_none());
    for one in &mut preferences {
        count_domains(one, pod, affinity, feasible, &ignored, cluster);
    }
    let raw: Vec<Option<i64>> = feasible
        .iter()
        .map(|(index, node)| (!ignored(node)).then(|| crowd(&preferences, *index, node)))
        .collect();
    normalize(&raw)
}

fn preferences<'a>(pod: &'a PodView, cluster: &'a Cluster) -> Vec<Preferred<'a>> {
    let preferred = |key: &str, max_skew, constraint, counts| Preferred {
        key: cluster.symbols.lookup(key),
        over_nodes: key == HOSTNAME,
        max_skew,
        constraint,
        counts,
        domains: HashMap::new(),
        weight: 0.0,
    };
    if pod.spread.is_empty() {
        let Some(owner) = &pod.owner else { return Vec::new() };
        let counts = cluster.groups.of_owner(owner);
        return DEFAULTS.iter().map(|(key, skew)| preferred(key, *skew, None, counts)).collect();
    }
    pod.spread
        .iter()
        .filter(|constraint| !constraint.required)
        .map(|constraint| {
            let selector = constraint.selector.as_ref();
            let counts = selector
                .and_then(|selector| cluster.groups.of_selector(&pod.key.namespace, selector));
            preferred(&constraint.topology_key, constraint.max_skew, Some(constraint), counts)
        })
        .collect()
}

fn count_domains(
    one: &mut Preferred<'_>,
    pod: &PodView,
    affinity: &Affinity<'_>,
    feasible: &[(NodeIndex, &Node)],
    ignored: &dyn Fn(&Node) -> bool,
    cluster: &Cluster,
) {
    let candidates = feasible.iter().filter(|(_, node)| !ignored(node));
    let size = if one.over_nodes {
        candidates.count()
    } else {
        one.domains = candidates.filter_map(|(_, node)| Some((node.label(one.key)?, 0))).collect();
        one.domains.len()
    };
    // The logarithm keeps a label with few values from being drowned by one with many.
    one.weight = (size as f64 + 2.0).ln();
    if one.over_nodes {
        return;
    }
    for (index, count) in one.counts.into_iter().flatten() {
        let Some(node) =
            cluster.nodes.get(index.0 as usize).filter(|node| node.is_known() && !ignored(node))
        else {
            continue;
        };
        let counted = match one.constraint {
            Some(constraint) => counts_node(constraint, pod, affinity, node, cluster),
            None => affinity.matches(node, cluster),
        };
        if counted
            && let Some(domain) = node.label(one.key)
            && let Some(sum) = one.domains.get_mut(&domain)
        {
            *sum += count;
        }
    }
}

/// How crowded the node's domains are; lower is better.
fn crowd(preferences: &[Preferred<'_>], index: NodeIndex, node: &Node) -> i64 {
    let mut score = 0.0;
    for one in preferences {
        let count = if one.over_nodes {
            one.counts.and_then(|counts| counts.get(&index)).copied().unwrap_or(0)
        } else {
            let Some(domain) = node.label(one.key) else { continue };
            one.domains.get(&domain).copied().unwrap_or(0)
        };
        score += f64::from(count) * one.weight + f64::from(one.max_skew - 1);
    }
    score.round() as i64
}

fn normalize(raw: &[Option<i64>]) -> Vec<i64> {
    let least = raw.iter().flatten().copied().min().unwrap_or(0);
    let most = raw.iter().flatten().copied().max().unwrap_or(0);
    raw.iter()
        .map(|score| match score {
            None => 0,
            Some(_) if most == 0 => MAX_SCORE,
            Some(score) => MAX_SCORE * (most + least - score) / most,
        })
        .collect()
}
