//! What a Pod uses: itself, and the compute resources that it requests and is limited to.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use toono_api::Quantity;

use crate::{
    Amounts,
    usage::{at, items, text},
};

/// Resources that are counted under their own name, under `requests.` and under `limits.`.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";
const LIMITS: &str = "limits.";

pub(crate) fn counts(resource: &str) -> bool {
    let bare = resource
        .strip_prefix(REQUESTS)
        .or_else(|| resource.strip_prefix(LIMITS))
        .unwrap_or(resource);
    resource == "pods"
        || COMPUTE.contains(&bare)
        || bare.starts_with(HUGE_PAGES)
        || resource.starts_with(REQUESTS) && is_extended(bare)
}

/// A resource that is not Kubernetes' own, such as a device.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| {
        !domain.ends_with("kubernetes.io") && !domain.starts_with(REQUESTS)
    })
}

pub(crate) fn usage(pod: &Value, now: Timestamp) -> Amounts {
    if is_over(pod, now) { Amounts::default() } else { named(&requests(pod), &limits(pod), true) }
}

/// It uses nothing any more: it ended, or should have been gone by now.
fn is_over(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(pod, &["status", "phase"]), Some("Succeeded" | "Failed")) {
        return true;
    }
    let deleted = text(pod, &["metadata", "deletionTimestamp"])
        .and_then(|time| time.parse::<Timestamp>().ok());
    let grace = at(pod, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    // The time of deletion already includes the grace period; Kubernetes waits for another.
    match (deleted, grace) {
        (Some(at), Some(grace)) => now.duration_since(at) > SignedDuration::from_secs(grace),
        _ => false,
    }
}

/// The names under which requests and limits are counted.
pub(crate) fn named(requests: &Amounts, limits: &Amounts, with_pod: bool) -> Amounts {
    let mut used = Amounts::default();
    if with_pod {
        used.set("pods", Quantity::from_millis(1000));
    }
    for (name, amount) in requests.iter() {
        if COMPUTE.contains(&name) || name.starts_with(HUGE_PAGES) {
            used.set(name, amount);
            used.set(format!("{REQUESTS}{name}"), amount);
        } else if is_extended(name) {
            used.set(format!("{REQUESTS}{name}"), amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(name)) {
        used.set(format!("{LIMITS}{name}"), amount);
    }
    used
}

fn requests(pod: &Value) -> Amounts {
    let mut all = aggregate(pod, "requests");
    all.add_all(&Amounts::read(at(pod, &["spec", "overhead"])));
    all
}

fn limits(pod: &Value) -> Amounts {
    let mut all = aggregate(pod, "limits");
    // Overhead raises a limit where there is one; it makes none.
    let overhead = Amounts::read(at(pod, &["spec", "overhead"]));
    let limited = all.positive();
    all.add_all(&overhead.only(|name| limited.of(name).is_some()));
    all
}

/// What the containers need at the worst moment: all of them at once, or one init container beside
/// the sidecars started before it; what the pod says of itself as a whole goes first.
fn aggregate(pod: &Value, which: &str) -> Amounts {
    let of = |container: &Value| Amounts::read(at(container, &["resources", which]));
    let mut running = Amounts::default();
    for container in items(pod, &["spec", "containers"]) {
        running.add_all(&of(container));
    }
    let mut sidecars = Amounts::default();
    let mut initial = Amounts::default();
    for container in items(pod, &["spec", "initContainers"]) {
        let needs = of(container);
        if text(container, &["restartPolicy"]) == Some("Always") {
            running.add_all(&needs);
            sidecars.add_all(&needs);
            initial.raise_to(&sidecars);
        } else {
            let mut moment = sidecars.clone();
            moment.add_all(&needs);
            initial.raise_to(&moment);
        }
    }
    running.raise_to(&initial);
    let whole = Amounts::read(at(pod, &["spec", "resources", which]));
    whole.iter().for_each(|(name, amount)| running.set(name, amount));
    running
}

/// No container requests or limits cpu or memory.
pub(crate) fn is_best_effort(pod: &Value) -> bool {
    let asks = |holder: &Value| {
        ["requests", "limits"].iter().any(|which| {
            let amounts = Amounts::read(at(holder, &["resources", which])).positive();
            amounts.of("cpu").or(amounts.of("memory")).is_some()
        })
    };
    let containers = items(pod, &["spec", "containers"]);
    let all = containers.chain(items(pod, &["spec", "initContainers"]));
    !all.chain(at(pod, &["spec"])).any(asks)
}
