//! The rules that inter-pod affinity makes: what the pod asks of pods that are there, and what they
//! ask of it.

use crate::{
    cluster::Cluster,
    company::PodTerm,
    demand::Kin,
    ledger::{About, Asked},
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

/// What a pod's affinities count, with the rules that they make; those that refuse nodes come first,
/// in Kubernetes' order.
pub(crate) fn questions(pod: &PodView) -> Vec<Asked> {
    let Some(company) = &pod.company else { return Vec::new() };
    let rule = |term: &PodTerm, effect| (term.topology_key.clone(), effect);
    let near = || company.near.iter().map(|term| rule(term, Effect::default())).collect();
    let near = company.near.first().map(|_| (About::Near, near()));
    let apart = company.apart.iter().enumerate();
    let apart = apart.map(|(at, term)| (About::Apart(at), vec![rule(term, Effect::Apart)]));
    let liking = company.liking.iter().enumerate();
    let liking = liking.map(|(at, (_, term))| (About::Liking(at), vec![rule(term, Effect::Liked)]));
    near.into_iter().chain(apart).chain(liking).collect()
}

/// How much each pod of a demand counts for the pod's own affinities.
pub(crate) fn weight(pod: &PodView, about: About, kin: &Kin, cluster: &Cluster) -> i64 {
    let Some(company) = &pod.company else { return 0 };
    let selects = |term: &PodTerm| {
        term.is_about_namespace(&kin.demand.namespace, &cluster.namespaces)
            && kin.is_selected_by(term, &cluster.symbols)
    };
    match about {
        // Pods count that all terms select.
        About::Near => i64::from(company.near.iter().all(selects)),
        About::Apart(at) => i64::from(company.apart.get(at).is_some_and(selects)),
        About::Liking(at) => {
            let liking = company.liking.get(at).filter(|(_, term)| selects(term));
            liking.map_or(0, |(weight, _)| *weight)
        }
        _ => 0,
    }
}

/// What pods of a demand want of the pod: over which label, and how much.
pub(crate) fn others(pod: &PodView, kin: &Kin, cluster: &Cluster) -> Vec<(About, Box<str>, i64)> {
    let Some(company) = &kin.demand.company else { return Vec::new() };
    let apart = company.apart.iter().map(|term| (About::Shunning, 1, term));
    let near = company.near.iter().map(|term| (About::Fond, HARD_AFFINITY_WEIGHT, term));
    let liking = company.liking.iter().map(|(weight, term)| (About::Fond, *weight, term));
    let all = apart.chain(near).chain(liking);
    let meant = all.filter(|(.., term)| is_meant(pod, term, cluster));
    meant.map(|(about, weight, term)| (about, term.topology_key.clone(), weight)).collect()
}

/// The first of a group that wants to be together has nobody to be near to.
pub(crate) fn renew(pod: &PodView, rules: &mut [Rule], cluster: &Cluster) {
    let terms = pod.company.iter().flat_map(|company| &company.near);
    let alone = rules.iter().all(|rule| rule.counts.is_empty())
        && terms.into_iter().all(|term| is_meant(pod, term, cluster));
    rules.iter_mut().for_each(|rule| rule.effect = Effect::Near { least: i64::from(!alone) });
}

fn is_meant(pod: &PodView, term: &PodTerm, cluster: &Cluster) -> bool {
    term.selects(&pod.labels) && term.is_about_namespace(&pod.key.namespace, &cluster.namespaces)
}
