//! What looks at several nodes together: the values of node labels are domains, pods in them are
//! counted, and the counts refuse nodes or score them.
//!
//! A pod's rules are few and most domains hold none of the pods that they count. Those that do
//! *deviate*: their sites and nodes are judged one by one, all others together.

use std::ops::Range;

use crate::{
    cluster::Cluster,
    ids::IdMap,
    intern::Symbol,
    node::NodeIndex,
    reasons::Reason,
    site::{Site, SiteId},
};

/// One rule with its domains counted. Domains that are not listed count zero.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The label whose values are the domains.
    pub(crate) label: Box<str>,
    pub(crate) key: Symbol,
    pub(crate) counts: IdMap<Symbol, i64>,
    pub(crate) effect: Effect,
}

/// What the count of a node's domain means.
#[derive(Clone, Debug, Default)]
pub(crate) enum Effect {
    /// With one more pod the domain must not be more than `most` above zero.
    Limit {
        /// The emptiest domain and the skew allowed above it, less the pod itself.
        most: i64,
    },
    /// There must be at least so many, and the label.
    Near { least: i64 },
    /// There must be none: the pod wants it so.
    Apart,
    /// There must be none: those that are there want it so.
    Shunned,
    /// The more the better.
    #[default]
    Liked,
    /// The fewer the better.
    Crowd {
        weight: f64,
        max_skew: i32,
        /// Nodes without the label get no points at all.
        demanded: bool,
    },
}

/// What the rules give a node, before it is compared with other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Points {
    /// How crowded its domains are; `None` where that cannot be told.
    pub(crate) crowd: Option<i64>,
    /// How much the pod and those there want to be near to each other.
    pub(crate) likes: i64,
}

/// All rules for one pod.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    pub(crate) rules: Vec<Rule>,
}

impl Topology {
    /// Counts so many more pods on the site's node of this name, for some rules.
    pub(crate) fn add(&mut self, rules: Range<usize>, site: &Site, name: Symbol, by: i64) {
        for rule in self.rules.get_mut(rules).unwrap_or_default() {
            let Some(domain) = site.label(rule.key, name) else { continue };
            let count = rule.counts.entry(domain).or_default();
            *count += by;
            if *count == 0 {
                rule.counts.remove(&domain);
            }
        }
    }

    /// Judges the site's node of this name.
    pub(crate) fn judge(&self, site: &Site, name: Symbol) -> Result<Points, Reason> {
        let mut crowd = Some(0.0);
        let (mut crowds, mut likes) = (false, 0);
        for rule in &self.rules {
            let domain = site.label(rule.key, name);
            let count = domain.and_then(|domain| rule.counts.get(&domain)).copied().unwrap_or(0);
            match rule.effect {
                Effect::Limit { .. } if domain.is_none() => return Err(Reason::SpreadMissingLabel),
                Effect::Limit { most } if count > most => return Err(Reason::Spread),
                Effect::Limit { .. } => {}
                Effect::Near { least } if domain.is_none() || count < least => {
                    return Err(Reason::PodAffinity);
                }
                Effect::Apart if count > 0 => return Err(Reason::PodAntiAffinity),
                Effect::Shunned if count > 0 => return Err(Reason::ExistingAntiAffinity),
                Effect::Near { .. } | Effect::Apart | Effect::Shunned => {}
                Effect::Liked => likes += count,
                Effect::Crowd { weight, max_skew, demanded } => {
                    crowds = true;
                    let here = count as f64 * weight + f64::from(max_skew - 1);
                    match domain {
                        Some(_) => crowd = crowd.map(|sum| sum + here),
                        None if demanded => crowd = None,
                        None => {}
                    }
                }
            }
        }
        let crowd = crowd.filter(|_| crowds).map(|sum: f64| sum.round() as i64);
        Ok(Points { crowd, likes })
    }

    /// The sites where some rule counts anything, for rules on labels that `apart` does not hold
    /// apart already. They may be told more than once.
    pub(crate) fn deviating_sites<'a>(
        &'a self,
        apart: impl Fn(Symbol) -> bool + 'a,
        cluster: &'a Cluster,
    ) -> impl Iterator<Item = SiteId> + 'a {
        let rules = self.rules.iter().filter(move |rule| !apart(rule.key));
        rules.flat_map(move |rule| {
            let domains = rule.counts.keys();
            domains.flat_map(move |domain| cluster.sites.labelled(rule.key, *domain).iter())
        })
    }

    /// Whether any rule's label has a node's own name as its value, and another value elsewhere: perhaps
    /// that name.
    pub(crate) fn names_are_shared(&self, cluster: &Cluster) -> bool {
        let shared = |key| cluster.sites.is_own_name(key) && cluster.sites.values(key) > 0;
        self.rules.iter().any(|rule| shared(rule.key))
    }

    /// The nodes that are domains of their own and where some rule counts anything.
    pub(crate) fn deviating_nodes<'a>(
        &'a self,
        cluster: &'a Cluster,
    ) -> impl Iterator<Item = NodeIndex> + 'a {
        let rules = self.rules.iter().filter(|rule| cluster.sites.is_own_name(rule.key));
        rules.flat_map(|rule| rule.counts.keys().filter_map(|name| cluster.node_of_name(*name)))
    }
}
