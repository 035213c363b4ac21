//! Which of the possible nodes is best: each rule gives 0 to 100, and the weighted sum decides.

use crate::{
    cluster::Cluster,
    filter::{Affinity, Term},
    node::{Node, NodeIndex},
    pod::PodView,
    spread,
    taints::{Effect, Taint},
};

/// The best score of one rule.
pub(crate) const MAX_SCORE: i64 = 100;

/// Weights as Kubernetes' default profile has them.
const TAINT_WEIGHT: i64 = 3;
const AFFINITY_WEIGHT: i64 = 2;
const SPREAD_WEIGHT: i64 = 2;
const RESOURCES_WEIGHT: i64 = 1;
const BALANCE_WEIGHT: i64 = 1;

/// The weighted sum for each feasible node, in their order.
pub(crate) fn totals(
    pod: &PodView,
    affinity: &Affinity<'_>,
    feasible: &[(NodeIndex, &Node)],
    cluster: &Cluster,
) -> Vec<i64> {
    let taints = spare(feasible.iter().map(|(_, node)| unwelcome(pod, node)).collect());
    let preferred = preferred(pod, feasible, cluster);
    let spread = spread::scores(pod, affinity, feasible, cluster);
    feasible
        .iter()
        .zip(taints)
        .zip(preferred)
        .zip(spread)
        .map(|((((_, node), taints), preferred), spread)| {
            TAINT_WEIGHT * taints
                + AFFINITY_WEIGHT * preferred
                + SPREAD_WEIGHT * spread
                + RESOURCES_WEIGHT * least_allocated(pod, node)
                + BALANCE_WEIGHT * balanced(pod, node)
        })
        .collect()
}

/// How many PreferNoSchedule taints the pod does not tolerate.
fn unwelcome(pod: &PodView, node: &Node) -> i64 {
    let tolerated = |taint: &&Taint| {
        let mut relevant = pod
            .tolerations
            .iter()
            .filter(|one| one.effect.is_none_or(|effect| effect == Effect::PreferNoSchedule));
        relevant.any(|toleration| toleration.tolerates(taint))
    };
    node.taints()
        .iter()
        .filter(|taint| taint.effect == Effect::PreferNoSchedule)
        .filter(|taint| !tolerated(taint))
        .count() as i64
}

/// Turns "lower is better" into 0 to 100.
fn spare(counts: Vec<i64>) -> Vec<i64> {
    let most = counts.iter().copied().max().unwrap_or(0);
    let score = |count| if most == 0 { MAX_SCORE } else { MAX_SCORE - MAX_SCORE * count / most };
    counts.into_iter().map(score).collect()
}

fn preferred(pod: &PodView, feasible: &[(NodeIndex, &Node)], cluster: &Cluster) -> Vec<i64> {
    let terms: Vec<_> = pod
        .preferred_affinity
        .iter()
        .map(|(weight, term)| (*weight, Term::new(term, cluster)))
        .collect();
    let weight_of = |node: &Node| -> i64 {
        terms.iter().filter(|(_, term)| term.matches(node, cluster)).map(|(weight, _)| weight).sum()
    };
    let sums: Vec<i64> = feasible.iter().map(|(_, node)| weight_of(node)).collect();
    let most = sums.iter().copied().max().unwrap_or(0);
    sums.into_iter().map(|sum| if most == 0 { 0 } else { MAX_SCORE * sum / most }).collect()
}

/// The mean share of CPU and memory that stays free.
fn least_allocated(pod: &PodView, node: &Node) -> i64 {
    let free = |asked: i64, used: i64, offered: i64| {
        let taken = used.saturating_add(asked);
        if offered <= 0 || taken > offered {
            return 0;
        }
        i64::try_from(i128::from(offered - taken) * i128::from(MAX_SCORE) / i128::from(offered))
            .unwrap_or(0)
    };
    let (taken, offered) = (&node.load().weight, &node.offer().resources);
    let cpu = free(pod.weight.cpu_milli, taken.cpu_milli, offered.cpu_milli);
    let memory = free(pod.weight.memory_bytes, taken.memory_bytes, offered.memory_bytes);
    match (offered.cpu_milli > 0, offered.memory_bytes > 0) {
        (true, true) => i64::midpoint(cpu, memory),
        _ => cpu + memory,
    }
}

/// How close the used shares of CPU and memory are to each other. Pods that ask for neither
/// change no balance and score zero everywhere.
fn balanced(pod: &PodView, node: &Node) -> i64 {
    if pod.requests.cpu_milli == 0 && pod.requests.memory_bytes == 0 {
        return 0;
    }
    let share = |asked: i64, used: i64, offered: i64| {
        if offered <= 0 { None } else { Some(((used + asked) as f64 / offered as f64).min(1.0)) }
    };
    let (taken, offered) = (&node.load().used, &node.offer().resources);
    let cpu = share(pod.requests.cpu_milli, taken.cpu_milli, offered.cpu_milli);
    let memory = share(pod.requests.memory_bytes, taken.memory_bytes, offered.memory_bytes);
    let deviation = match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
