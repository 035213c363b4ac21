//! Which of the possible nodes is best: each plugin gives 0 to 100, and the weighted sum decides.
//!
//! Some of Kubernetes' plugins scale their scores by the best or worst of all feasible nodes. So a
//! choice is made of [`Candidate`]s, each the best of many nodes that differ from it in nothing
//! but their room and order: together they have the extremes that all nodes have.

use std::cmp::Reverse;

use crate::{
    cell::Cell,
    node::NodeIndex,
    pod::PodView,
    site::Site,
    taints::{Effect, Taint},
    topology::Points,
};

/// The best score of one plugin.
pub(crate) const MAX_SCORE: i64 = 100;

/// Weights as Kubernetes' default profile has them.
const TAINT_WEIGHT: i64 = 3;
const AFFINITY_WEIGHT: i64 = 2;
const SPREAD_WEIGHT: i64 = 2;
const COMPANY_WEIGHT: i64 = 2;
const RESOURCES_WEIGHT: i64 = 1;
const BALANCE_WEIGHT: i64 = 1;

/// What a pod thinks of a site, before sites are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Taste {
    /// How many PreferNoSchedule taints the pod does not tolerate.
    pub(crate) unwelcome: i64,
    /// The sum of the weights of its preferences that the site meets.
    pub(crate) preference: i64,
}

/// A feasible node that stands for others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) node: NodeIndex,
    pub(crate) pods: i64,
    pub(crate) taste: Taste,
    pub(crate) points: Points,
    /// The node's own score, see [`local`].
    pub(crate) local: i64,
}

/// The highest total; among equals the node with the fewest pods, then the first by index.
pub(crate) fn choose(candidates: &[Candidate]) -> Option<NodeIndex> {
    let most = |of: fn(&Candidate) -> i64| candidates.iter().map(of).max().unwrap_or(0);
    let unwelcome = most(|one| one.taste.unwelcome);
    let preference = most(|one| one.taste.preference);
    let crowds = || candidates.iter().filter_map(|one| one.points.crowd);
    let (roomiest, fullest) = (crowds().min().unwrap_or(0), crowds().max().unwrap_or(0));
    let likes = || candidates.iter().map(|one| one.points.likes);
    let (least, range) = {
        let least = likes().min().unwrap_or(0);
        (least, likes().max().unwrap_or(0) - least)
    };
    let total = |one: &Candidate| {
        let taints = scaled(unwelcome - one.taste.unwelcome, unwelcome, MAX_SCORE);
        let affinity = scaled(one.taste.preference, preference, 0);
        let spread = match one.points.crowd {
            None => 0,
            Some(crowd) => scaled(fullest + roomiest - crowd, fullest, MAX_SCORE),
        };
        // Kubernetes reckons this one in floating point, and rounds down.
        let company = match range {
            0 => 0,
            range => (MAX_SCORE as f64 * ((one.points.likes - least) as f64 / range as f64)) as i64,
        };
        TAINT_WEIGHT * taints
            + AFFINITY_WEIGHT * affinity
            + SPREAD_WEIGHT * spread
            + COMPANY_WEIGHT * company
            + one.local
    };
    let best = candidates.iter().max_by_key(|one| (total(one), Reverse((one.pods, one.node))));
    best.map(|one| one.node)
}

/// `part` of `whole` in hundredths; `otherwise` where there is no whole.
fn scaled(part: i64, whole: i64, otherwise: i64) -> i64 {
    if whole == 0 { otherwise } else { MAX_SCORE * part / whole }
}

/// How well the pod would use the room on a cell's nodes, whatever other nodes there are.
pub(crate) fn local(pod: &PodView, cell: &Cell) -> i64 {
    RESOURCES_WEIGHT * least_allocated(pod, cell) + BALANCE_WEIGHT * balanced(pod, cell)
}

/// How many PreferNoSchedule taints the pod does not tolerate.
pub(crate) fn unwelcome(pod: &PodView, site: &Site) -> i64 {
    let tolerated = |taint: &&Taint| {
        let mut relevant = pod
            .tolerations
            .iter()
            .filter(|one| one.effect.is_none_or(|effect| effect == Effect::PreferNoSchedule));
        relevant.any(|toleration| toleration.tolerates(taint))
    };
    site.taints
        .iter()
        .filter(|taint| taint.effect == Effect::PreferNoSchedule)
        .filter(|taint| !tolerated(taint))
        .count() as i64
}

/// The mean share of CPU and memory that stays free.
fn least_allocated(pod: &PodView, cell: &Cell) -> i64 {
    let free = |asked: i64, used: i64, offered: i64| {
        let taken = used.saturating_add(asked);
        if offered <= 0 || taken > offered {
            return 0;
        }
        match (offered - taken).checked_mul(MAX_SCORE) {
            Some(product) => product / offered,
            // Beyond 92 PB: a hundredth of the exact value's last digit is no matter, but overflow is.
            None => (offered - taken) / (offered / MAX_SCORE),
        }
    };
    let (taken, offered) = (&cell.load.weight, &cell.offer.resources);
    let cpu = free(pod.weight.cpu_milli, taken.cpu_milli, offered.cpu_milli);
    let memory = free(pod.weight.memory_bytes, taken.memory_bytes, offered.memory_bytes);
    match (offered.cpu_milli > 0, offered.memory_bytes > 0) {
        (true, true) => i64::midpoint(cpu, memory),
        _ => cpu + memory,
    }
}

/// How close the used shares of CPU and memory are to each other. Pods that ask for neither
/// change no balance and score zero everywhere.
fn balanced(pod: &PodView, cell: &Cell) -> i64 {
    if pod.requests.cpu_milli == 0 && pod.requests.memory_bytes == 0 {
        return 0;
    }
    let share = |asked: i64, used: i64, offered: i64| {
        if offered <= 0 { None } else { Some(((used + asked) as f64 / offered as f64).min(1.0)) }
    };
    let (taken, offered) = (&cell.load.used, &cell.offer.resources);
    let cpu = share(pod.requests.cpu_milli, taken.cpu_milli, offered.cpu_milli);
    let memory = share(pod.requests.memory_bytes, taken.memory_bytes, offered.memory_bytes);
    let deviation = match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
