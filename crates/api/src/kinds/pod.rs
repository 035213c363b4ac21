//! The row of Pods.

use serde_json::{Value, json};

use super::{pod_defaults, pod_validation, status_of, subresource};
use crate::{
    merge,
    meta::{at, items_at},
    names,
    print::pod as print,
    quantity::Quantity,
    resource::{ALL_VERBS, BuiltIn, Strategy, Subresource},
};

/// Pods.
pub static POD: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[
        stream("attach", "PodAttachOptions", &["create", "get"]),
        stream("binding", "Binding", &["create"]),
        subresource("eviction", ("policy", "v1", "Eviction"), &["create"]),
        stream("exec", "PodExecOptions", &["create", "get"]),
        stream("log", "Pod", &["get"]),
        stream("portforward", "PodPortForwardOptions", &["create", "get"]),
        status_of("", "v1", "Pod"),
    ],
    strategy: Strategy {
        has_status: true,
        counts_generation: true,
        graceful: true,
        name_rule: names::dns_subdomain,
        initial_status: first_status,
    },
    columns: print::COLUMNS,
    row: print::row,
    message: "core.Pod",
    default: pod_defaults::pod,
    validate: pod_validation::pod,
    validate_update: pod_validation::pod_update,
    field_selectors: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    merge: &merge::POD,
    stored: None,
};

const fn stream(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    subresource(name, ("", "v1", kind), verbs)
}

fn first_status(pod: &Value) -> Value {
    json!({"phase": "Pending", "qosClass": quality_of_service(pod)})
}

/// `Guaranteed` when every container limits cpu and memory to what it requests, `BestEffort` when
/// none asks for either, else `Burstable`.
#[must_use]
pub fn quality_of_service(pod: &Value) -> &'static str {
    let mut any = false;
    let mut all_equal = true;
    let containers =
        items_at(pod, &["spec", "containers"]).chain(items_at(pod, &["spec", "initContainers"]));
    for container in containers {
        for resource in ["cpu", "memory"] {
            let amount = |list: &str| {
                let text = at(container, &["resources", list, resource])?.as_str()?;
                text.parse::<Quantity>().ok().filter(|amount| *amount > Quantity::ZERO)
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            any |= limit.is_some() || request.is_some();
            all_equal &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, all_equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
