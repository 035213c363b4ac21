//! The rules that inter-pod affinity makes: what the pod asks of pods that are there, and what they
//! ask of it.

use std::collections::HashMap;

use crate::{
    cluster::Cluster,
    company::PodTerm,
    demand::Kin,
    intern::Symbol,
    pod::PodView,
    topology::{Effect, Rule},
};

/// What a required affinity of a pod that is there is worth to a pod that it selects, as in
/// Kubernetes.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// The labels that a pod looks at to be near other pods or apart from them.
pub(crate) fn keys(pod: &PodView) -> impl Iterator<Item = &str> {
    let terms = pod.company.iter().flat_map(|company| company.terms());
    terms.map(|term| &*term.topology_key)
}

/// The rules for one pod, those that refuse nodes first, in Kubernetes' order.
pub(crate) fn rules(pod: &PodView, cluster: &Cluster) -> Vec<Rule> {
    let mut rules = near(pod, cluster);
    let mut likes: HashMap<Symbol, HashMap<Symbol, i64>> = HashMap::new();
    for term in pod.company.iter().flat_map(|company| &company.apart) {
        let (key, mut counts) = (cluster.symbols.lookup(&term.topology_key), HashMap::new());
        let kin = selected(term, cluster);
        kin.for_each(|kin| count(kin, key, 1, &mut counts, cluster));
        rules.push(Rule { key, counts, effect: Effect::Apart });
    }
    for (weight, term) in pod.company.iter().flat_map(|company| &company.liking) {
        let key = cluster.symbols.lookup(&term.topology_key);
        let counts = likes.entry(key).or_default();
        selected(term, cluster).for_each(|kin| count(kin, key, *weight, counts, cluster));
    }
    let mut shunned: HashMap<Symbol, HashMap<Symbol, i64>> = HashMap::new();
    for kin in cluster.demands.holding_terms_for(pod, &cluster.symbols) {
        let Some(company) = &kin.demand.company else { continue };
        let weigh = |term: &PodTerm, weight, counts: &mut HashMap<_, HashMap<_, _>>| {
            if is_meant(pod, term, cluster) {
                let key = cluster.symbols.lookup(&term.topology_key);
                count(kin, key, weight, counts.entry(key).or_default(), cluster);
            }
        };
        company.apart.iter().for_each(|term| weigh(term, 1, &mut shunned));
        company.near.iter().for_each(|term| weigh(term, HARD_AFFINITY_WEIGHT, &mut likes));
        company.liking.iter().for_each(|(weight, term)| weigh(term, *weight, &mut likes));
    }
    let shunned = shunned.into_iter();
    rules.extend(shunned.map(|(key, counts)| Rule { key, counts, effect: Effect::Shunned }));
    let likes = likes.into_iter();
    rules.extend(likes.map(|(key, counts)| Rule { key, counts, effect: Effect::Liked }));
    rules
}

/// Required affinity: pods count that *all* terms select.
fn near(pod: &PodView, cluster: &Cluster) -> Vec<Rule> {
    let Some(company) = &pod.company else { return Vec::new() };
    let Some(first) = company.near.first() else { return Vec::new() };
    let all = |kin: &&Kin| {
        company.near.iter().all(|term| {
            term.is_about_namespace(&kin.demand.namespace, &cluster.namespaces)
                && kin.is_selected_by(term, &cluster.symbols)
        })
    };
    let kin: Vec<_> = selected(first, cluster).filter(all).collect();
    let mut rules: Vec<_> = company
        .near
        .iter()
        .map(|term| {
            let (key, mut counts) = (cluster.symbols.lookup(&term.topology_key), HashMap::new());
            kin.iter().for_each(|kin| count(kin, key, 1, &mut counts, cluster));
            Rule { key, counts, effect: Effect::Near { least: 1 } }
        })
        .collect();
    // The first of a group that wants to be together has nobody to be near to.
    let alone = rules.iter().all(|rule| rule.counts.is_empty());
    if alone && company.near.iter().all(|term| is_meant(pod, term, cluster)) {
        rules.iter_mut().for_each(|rule| rule.effect = Effect::Near { least: 0 });
    }
    rules
}

fn is_meant(pod: &PodView, term: &PodTerm, cluster: &Cluster) -> bool {
    term.selects(&pod.labels) && term.is_about_namespace(&pod.key.namespace, &cluster.namespaces)
}

/// The demands whose pods a term selects.
fn selected<'a>(term: &'a PodTerm, cluster: &'a Cluster) -> impl Iterator<Item = &'a Kin> + 'a {
    let namespace = match (&*term.namespaces, &term.namespace_selector) {
        ([only], None) => Some(&**only),
        _ => None,
    };
    let kin = term.selector.iter().flat_map(move |selector| {
        cluster.demands.with_labels(namespace, selector, &cluster.symbols)
    });
    kin.filter(|kin| term.is_about_namespace(&kin.demand.namespace, &cluster.namespaces))
}

/// Adds the pods of a demand to the domains where they are.
fn count(
    kin: &Kin,
    key: Symbol,
    weight: i64,
    counts: &mut HashMap<Symbol, i64>,
    cluster: &Cluster,
) {
    for (index, pods) in &kin.nodes {
        if let Some(node) = cluster.see(*index)
            && let Some(domain) = node.place.site.label(key, node.name)
        {
            *counts.entry(domain).or_default() += weight * i64::from(pods.all);
        }
    }
}
