//! Which links are cut when, for how long, and what they lose: made of a seed, and of nothing else.

use std::{collections::HashMap, ops::Range, time::Duration};

use fastrand::Rng;
use toono_lab::Loss;

/// From one cut to the next.
const BETWEEN: Range<Duration> = Duration::from_secs(3)..Duration::from_secs(9);
/// Half of all cuts: shorter than the 40 s after which a node is silent.
const SHORT: Range<Duration> = Duration::from_secs(3)..Duration::from_secs(36);
/// The other half.
const LONG: Range<Duration> = Duration::from_secs(45)..Duration::from_secs(121);
/// A place is left alone for so long after it was healed.
const REST: Range<Duration> = Duration::from_secs(20)..Duration::from_secs(76);
/// Pods tolerate an unreachable node for 300 s, which begin when it is called so. No node is away for longer than
/// this, with rests that are the shortest counted as none.
const AWAY_MOST: Duration = Duration::from_secs(240);
/// Of the places there are, at most one in so many is cut at once.
const SITES_AT_ONCE: usize = 6;
const NODES_AT_ONCE: usize = 25;

/// Sites of equal size. Nodes are numbered, those of the first site first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) sites: usize,
    pub(crate) per_site: usize,
}

/// What is cut: a site's link to the cloud, or the way there of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Site(usize),
    Node(usize),
}

/// A group of places that lose the same, from the same moment to the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) places: Vec<Place>,
    pub(super) loss: Loss,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

impl Scene {
    pub(super) fn nodes(&self) -> usize {
        self.sites * self.per_site
    }

    /// The nodes behind a place.
    pub(super) fn behind(&self, place: Place) -> Range<usize> {
        match place {
            Place::Site(site) => site * self.per_site..(site + 1) * self.per_site,
            Place::Node(node) => node..node + 1,
        }
    }
}

/// All cuts of a run of this length; the last is healed when it ends.
pub(super) fn cuts(scene: Scene, length: Duration, seed: u64) -> Vec<Cut> {
    let mut planner = Planner {
        scene,
        random: Rng::with_seed(seed),
        free_at: HashMap::new(),
        away: vec![Vec::new(); scene.nodes()],
    };
    let (mut cuts, mut now) = (Vec::new(), Duration::ZERO);
    while now < length {
        cuts.extend(planner.next(now, length));
        now += planner.between(&BETWEEN);
    }
    cuts
}

struct Planner {
    scene: Scene,
    random: Rng,
    /// When a place may be cut again.
    free_at: HashMap<Place, Duration>,
    /// When each node loses anything.
    away: Vec<Vec<Range<Duration>>>,
}

impl Planner {
    fn next(&mut self, from: Duration, end: Duration) -> Option<Cut> {
        let loss = match self.random.u8(0..20) {
            0..8 => Loss::All,
            8..14 => Loss::Udp,
            14..17 => Loss::Outbound,
            _ => Loss::Inbound,
        };
        let length = if self.random.bool() { SHORT } else { LONG };
        let until = (from + self.between(&length)).min(end);
        if until < from + SHORT.start {
            return None;
        }
        let (mut all, most): (Vec<Place>, _) = if self.random.bool() {
            ((0..self.scene.sites).map(Place::Site).collect(), self.scene.sites / SITES_AT_ONCE)
        } else {
            ((0..self.scene.nodes()).map(Place::Node).collect(), self.scene.nodes() / NODES_AT_ONCE)
        };
        self.random.shuffle(&mut all);
        let wanted = self.random.usize(1..=most.max(1));
        let mut places = Vec::new();
        for place in all {
            if places.len() < wanted && self.may_be_cut(place, &(from..until)) {
                self.note(place, from..until);
                places.push(place);
            }
        }
        (!places.is_empty()).then_some(Cut { places, loss, from, until })
    }

    fn may_be_cut(&self, place: Place, time: &Range<Duration>) -> bool {
        let free = self.free_at.get(&place).is_none_or(|free| *free <= time.start);
        let mut nodes = self.scene.behind(place).filter_map(|node| self.away.get(node));
        free && nodes.all(|away| longest(away, time) <= AWAY_MOST)
    }

    fn note(&mut self, place: Place, time: Range<Duration>) {
        let rest = self.between(&REST);
        self.free_at.insert(place, time.end + rest);
        for node in self.scene.behind(place) {
            if let Some(away) = self.away.get_mut(node) {
                away.push(time.clone());
            }
        }
    }

    fn between(&mut self, range: &Range<Duration>) -> Duration {
        range.start + (range.end - range.start).mul_f64(self.random.f64())
    }
}

/// How long a node would be away at a stretch, with this time added and short rests counted as none.
fn longest(away: &[Range<Duration>], added: &Range<Duration>) -> Duration {
    let mut all: Vec<_> = away.iter().chain([added]).cloned().collect();
    all.sort_by_key(|time| time.start);
    let (mut longest, mut run) = (Duration::ZERO, Duration::ZERO..Duration::ZERO);
    for time in all {
        if time.start > run.end + REST.start {
            run = time;
        } else {
            run.end = run.end.max(time.end);
        }
        longest = longest.max(run.end - run.start);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_makes_one_plan() {
        let scene = Scene { sites: 20, per_site: 10 };
        assert_eq!(cuts(scene, TEN_MINUTES, 7), cuts(scene, TEN_MINUTES, 7));
        assert_ne!(cuts(scene, TEN_MINUTES, 7), cuts(scene, TEN_MINUTES, 8));
    }

    #[test]
    fn a_plan_has_all_kinds_and_lets_nobody_be_away_too_long() {
        for (sites, per_site) in [(20, 10), (4, 5)] {
            let scene = Scene { sites, per_site };
            for seed in 0..20 {
                let plan = cuts(scene, TEN_MINUTES, seed);
                let count =
                    |kind: &dyn Fn(&Cut) -> bool| plan.iter().filter(|cut| kind(cut)).count();
                for loss in [Loss::All, Loss::Udp, Loss::Outbound, Loss::Inbound] {
                    assert!(count(&|cut| cut.loss == loss) > 0, "no {loss:?}, seed {seed}");
                }
                let site = |cut: &Cut| matches!(cut.places.first(), Some(Place::Site(_)));
                assert!(count(&site) > 5 && count(&|cut| !site(cut)) > 5, "seed {seed}");
                let short = |cut: &Cut| cut.until - cut.from < SHORT.end;
                assert!(count(&short) > 5 && count(&|cut| !short(cut)) > 5, "seed {seed}");
                for node in 0..scene.nodes() {
                    let away: Vec<_> = plan
                        .iter()
                        .filter(|cut| cut.places.iter().any(|it| scene.behind(*it).contains(&node)))
                        .map(|cut| cut.from..cut.until)
                        .collect();
                    let none = Duration::ZERO..Duration::ZERO;
                    assert!(longest(&away, &none) <= AWAY_MOST, "node {node}, seed {seed}");
                    assert!(away.iter().all(|time| time.end <= TEN_MINUTES));
                }
            }
        }
    }
}
