//! Replacing daemons of an old template: at most so many unavailable at once, or one more beside
//! the old one while it lasts.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{DaemonSet, RollingUpdateDaemonSet},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Daemons, HASH_LABEL, Work, leaving};
use crate::{
    deployment::resolve,
    error::SyncError,
    kinds::pod::Pod,
    pods::{is_available, is_finished},
};

/// What a rolling update may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

/// The room of a set with `wanted` daemons; `None` when daemons are only replaced after somebody
/// deletes them.
fn room(set: &DaemonSet, wanted: i32) -> Option<Room> {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let default = RollingUpdateDaemonSet::default();
    let rolling =
        strategy.and_then(|strategy| strategy.rolling_update.as_ref()).unwrap_or(&default);
    let surge = rolling.max_surge.as_ref().map_or(0, |value| resolve(value, wanted, true));
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&IntOrString::Int(1));
    let unavailable = resolve(unavailable, wanted, true);
    Some(Room { surge, unavailable: if surge == 0 { unavailable.max(1) } else { unavailable } })
}

pub(super) fn is_current(pod: &Pod, hash: &str) -> bool {
    pod.metadata.label(HASH_LABEL) == Some(hash)
}

/// Of several running daemons on one node (oldest first) those that must go. During a surge one
/// old and one new may be there together.
pub(super) fn duplicates(work: &Work<'_>, alive: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let surging = room(work.set, 1).is_some_and(|room| room.surge > 0);
    if !surging {
        return alive.iter().skip(1).cloned().collect();
    }
    let (current, old): (Vec<_>, Vec<_>) =
        alive.iter().cloned().partition(|pod| is_current(pod, work.hash));
    current.into_iter().skip(1).chain(old.into_iter().skip(1)).collect()
}

/// One node's daemons for the decision what to do next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spot {
    old: bool,
    old_available: bool,
    new: bool,
    new_available: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    DeleteOld,
    CreateNew,
}

/// What to do on each spot.
fn decide(spots: &[Spot], room: Room) -> Vec<Step> {
    let unavailable =
        spots.iter().filter(|spot| !spot.old_available && !spot.new_available).count();
    let mut may_break = room.unavailable - i32::try_from(unavailable).unwrap_or(i32::MAX);
    let surging = spots.iter().filter(|spot| spot.old && spot.new).count();
    let mut may_surge = room.surge - i32::try_from(surging).unwrap_or(i32::MAX);
    spots
        .iter()
        .map(|spot| {
            if !spot.old {
                return Step::Nothing;
            }
            if room.surge == 0 {
                // An old daemon that serves nobody is no loss.
                if !spot.old_available {
                    return Step::DeleteOld;
                }
                may_break -= 1;
                return if may_break >= 0 { Step::DeleteOld } else { Step::Nothing };
            }
            if spot.new_available || (!spot.old_available && spot.new) {
                return Step::DeleteOld;
            }
            if spot.new {
                return Step::Nothing;
            }
            may_surge -= 1;
            if may_surge >= 0 { Step::CreateNew } else { Step::Nothing }
        })
        .collect()
}

/// One step of the update.
pub(super) async fn step(work: &Work<'_>, daemons: &Daemons) -> Result<(), SyncError> {
    let nodes = daemons.wanted();
    match room(work.set, i32::try_from(nodes.len()).unwrap_or(i32::MAX)) {
        Some(room) => replace(work, nodes, room).await,
        None => Ok(()),
    }
}

/// One step, on these nodes: the others are as if they were not there.
pub(super) async fn replace(
    work: &Work<'_>,
    nodes: Vec<(&str, &[Arc<Pod>])>,
    room: Room,
) -> Result<(), SyncError> {
    let now = Timestamp::now();
    let min_ready = work.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let alive = |pod: &&Arc<Pod>| !leaving(pod) && !is_finished(pod);
    let find = |pods: &'_ [Arc<Pod>], current: bool| {
        pods.iter().filter(alive).find(|pod| is_current(pod, work.hash) == current).cloned()
    };
    let available =
        |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| is_available(pod, min_ready, now));
    let spots: Vec<_> = nodes
        .iter()
        .map(|(_, pods)| {
            let (old, new) = (find(pods, false), find(pods, true));
            Spot {
                old_available: available(&old),
                new_available: available(&new),
                old: old.is_some(),
                new: new.is_some(),
            }
        })
        .collect();
    let mut doomed = Vec::new();
    let mut lacking = Vec::new();
    for ((name, pods), step) in nodes.into_iter().zip(decide(&spots, room)) {
        match step {
            Step::Nothing => {}
            Step::DeleteOld => doomed.extend(find(pods, false)),
            Step::CreateNew => lacking.push(name),
        }
    }
    work.create_on(&lacking).await?;
    work.control().delete(&doomed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Spot = Spot { old: true, old_available: true, new: false, new_available: false };
    const BROKEN: Spot = Spot { old: true, old_available: false, new: false, new_available: false };
    const STARTING: Spot =
        Spot { old: false, old_available: false, new: true, new_available: false };
    const NEW: Spot = Spot { old: false, old_available: false, new: true, new_available: true };
    const BOTH: Spot = Spot { old: true, old_available: true, new: true, new_available: false };
    const OVER: Spot = Spot { old: true, old_available: true, new: true, new_available: true };

    #[test]
    fn at_most_so_many_are_down_at_once() {
        use Step::{DeleteOld, Nothing};
        let room = Room { surge: 0, unavailable: 2 };
        assert_eq!(decide(&[OLD, OLD, OLD], room), [DeleteOld, DeleteOld, Nothing]);
        assert_eq!(decide(&[STARTING, OLD, OLD], room), [Nothing, DeleteOld, Nothing]);
        assert_eq!(decide(&[STARTING, BROKEN, OLD], room), [Nothing, DeleteOld, Nothing]);
        assert_eq!(decide(&[NEW, NEW, OLD], room), [Nothing, Nothing, DeleteOld]);
    }

    #[test]
    fn a_surge_starts_the_new_before_the_old_goes() {
        use Step::{CreateNew, DeleteOld, Nothing};
        let room = Room { surge: 1, unavailable: 0 };
        assert_eq!(decide(&[OLD, OLD], room), [CreateNew, Nothing]);
        assert_eq!(decide(&[BOTH, OLD], room), [Nothing, Nothing]);
        assert_eq!(decide(&[OVER, OLD], room), [DeleteOld, Nothing]);
        assert_eq!(decide(&[NEW, OLD], room), [Nothing, CreateNew]);
    }
}
