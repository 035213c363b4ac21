//! What a quota requires its pods to state: who is counted by cpu must say how much of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    Amounts, pods,
    usage::{at, items, text},
};

/// The resources for which each container must make a statement when a quota counts them.
/// Kubernetes requires it of no others.
const REQUIRED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// `must specify cpu for: a,b; memory for: a`, or nothing if all is stated.
pub(crate) fn missing(hard: &Amounts, pod: &Value) -> Option<String> {
    let required: Vec<_> = hard.names().filter(|name| REQUIRED.contains(name)).collect();
    let stated = |holder: &Value| {
        let of = |which: &str| Amounts::read(at(holder, &["resources", which]));
        pods::named(&of("requests"), &of("limits"), false)
    };
    let whole = at(pod, &["spec"]).map(stated).unwrap_or_default();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let containers = items(pod, &["spec", "containers"]);
    for container in containers.chain(items(pod, &["spec", "initContainers"])) {
        let stated = stated(container);
        for name in required.iter().filter(|name| stated.of(name).or(whole.of(name)).is_none()) {
            missing.entry(name).or_default().insert(text(container, &["name"]).unwrap_or_default());
        }
    }
    if missing.is_empty() {
        return None;
    }
    let parts: Vec<_> = missing
        .into_iter()
        .map(|(name, containers)| {
            let containers: Vec<_> = containers.into_iter().collect();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    Some(format!("must specify {}", parts.join("; ")))
}
