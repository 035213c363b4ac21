//! The rows of Pods and PodTemplates.

use serde_json::{Value, json};

use super::{
    CREATE_ONLY, ROW, SPEC_AND_STATUS, STATUS_VERBS, field::At, pod_defaults, pod_validation,
    proxy, status_of, subresource,
};
use crate::{
    meta::{at, items_at},
    print::{pod as print, workload},
    quantity::Quantity,
    resource::{BuiltIn, Strategy, Subresource},
    selector::POD_FIELDS,
};

/// Pods.
pub static POD: BuiltIn = BuiltIn {
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        stream("attach", "PodAttachOptions", &["create", "get"]),
        stream("binding", "Binding", CREATE_ONLY),
        stream("ephemeralcontainers", "Pod", STATUS_VERBS),
        subresource("eviction", ("policy", "v1", "Eviction"), CREATE_ONLY),
        stream("exec", "PodExecOptions", &["create", "get"]),
        stream("log", "Pod", &["get"]),
        stream("portforward", "PodPortForwardOptions", &["create", "get"]),
        proxy("PodProxyOptions"),
        stream("resize", "Pod", STATUS_VERBS),
        status_of("", "v1", "Pod"),
    ],
    strategy: Strategy {
        graceful: true,
        returns_deleted: true,
        initial_status: first_status,
        ..SPEC_AND_STATUS
    },
    columns: print::COLUMNS,
    row: print::row,
    message: "core.Pod",
    default: pod_defaults::pod,
    validate: pod_validation::pod,
    validate_create: pod_validation::new_pod,
    validate_update: pod_validation::pod_update,
    field_selectors: &POD_FIELDS,
    ..ROW
};

/// PodTemplates.
pub static POD_TEMPLATE: BuiltIn = BuiltIn {
    kind: "PodTemplate",
    list_kind: "PodTemplateList",
    plural: "podtemplates",
    singular: "podtemplate",
    strategy: Strategy { counts_generation: true, returns_deleted: true, ..super::DATA },
    columns: workload::POD_TEMPLATE,
    row: workload::pod_template_row,
    message: "core.PodTemplate",
    default: |object| {
        if let Some(fields) = object.as_object_mut() {
            pod_defaults::template(fields);
        }
    },
    validate: |object| {
        let root = At::root(object);
        pod_validation::template_at(root.get("template"))
    },
    ..ROW
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
