//! Counts again what was placed: room, selectors, taints, cordons and skews.

use std::collections::HashMap;

use toono_placement::{admits, untolerated_effects};

use super::{
    PlaceError, Placed,
    scene::{Scene, Workload, ZONE, labels},
};

pub(super) fn all(scene: &Scene, placed: &[Placed]) -> Result<(), PlaceError> {
    let mut used: HashMap<usize, (i64, i64, i64)> = HashMap::new();
    let mut zones: HashMap<usize, HashMap<String, i64>> = HashMap::new();
    for one in placed {
        let pod = Workload::new(one.workload, scene);
        let (pod, node) = (pod.template(), scene.node(one.node));
        let effects = untolerated_effects(pod, &node);
        if node.unschedulable || effects.no_schedule || effects.no_execute || !admits(pod, &node) {
            return Err(wrong(one, "it may not go there"));
        }
        let (cpu, memory, pods) = used.entry(one.node).or_default();
        *cpu += pod.requests.cpu_milli;
        *memory += pod.requests.memory_bytes;
        *pods += 1;
        let offer = &node.offer;
        if *cpu > offer.resources.cpu_milli
            || *memory > offer.resources.memory_bytes
            || *pods > offer.pods
        {
            return Err(wrong(one, "there is no room"));
        }
        if pod.spread.iter().any(|constraint| constraint.required) {
            let zone = labels(scene, one.node).remove(ZONE).unwrap_or_default();
            *zones.entry(one.workload).or_default().entry(zone).or_default() += 1;
        }
    }
    for (workload, counts) in zones {
        let most = counts.values().max().copied().unwrap_or(0);
        let total: i64 = counts.values().sum();
        // With a skew of one no zone is more than one above the mean.
        if most > total / counts.len() as i64 + 1 {
            return Err(PlaceError::Wrong(format!("app-{workload} is not spread: {counts:?}")));
        }
    }
    Ok(())
}

fn wrong(one: &Placed, why: &str) -> PlaceError {
    PlaceError::Wrong(format!("a pod of app-{} on node {}: {why}", one.workload, one.node))
}
