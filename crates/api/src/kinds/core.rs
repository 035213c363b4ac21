//! The rows of Namespaces, Nodes, ServiceAccounts, Endpoints and Bindings; the other core kinds' rows
//! are in files of their own.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    CREATE_ONLY, ROW, SPEC_AND_STATUS,
    checks::{self, Errors},
    field::At,
    kept_status, map_in, maps_in, proxy, set_default, status_of, subresource,
};
pub use super::{
    config::{CONFIG_MAP, SECRET},
    events::CORE_EVENT as EVENT,
    service::SERVICE,
};
use crate::{
    meta::text_at,
    names,
    print::{core as print, node as print_node},
    resource::{BuiltIn, Strategy},
};

/// Bindings of pods to nodes, in their older form: created beside the pod, not below it.
pub static BINDING: BuiltIn = BuiltIn {
    kind: "Binding",
    list_kind: "BindingList",
    plural: "bindings",
    singular: "binding",
    verbs: CREATE_ONLY,
    message: "core.Binding",
    ..ROW
};

/// Namespaces.
pub static NAMESPACE: BuiltIn = BuiltIn {
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    // Kubernetes deletes namespaces one by one.
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    subresources: &[
        subresource("finalize", ("", "v1", "Namespace"), &["update"]),
        status_of("", "v1", "Namespace"),
    ],
    strategy: NAMESPACE_STRATEGY,
    columns: print::NAMESPACE,
    row: print::namespace_row,
    message: "core.Namespace",
    default: namespace_defaults,
    validate: namespace_rules,
    field_selectors: &["status.phase"],
    ..ROW
};

/// Nodes.
pub static NODE: BuiltIn = BuiltIn {
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[proxy("NodeProxyOptions"), status_of("", "v1", "Node")],
    strategy: NODE_STRATEGY,
    columns: print_node::COLUMNS,
    row: print_node::row,
    message: "core.Node",
    default: node_defaults,
    validate: node_rules,
    validate_update: node_update,
    field_selectors: &["spec.unschedulable"],
    ..ROW
};

/// ServiceAccounts.
pub static SERVICE_ACCOUNT: BuiltIn = BuiltIn {
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[subresource(
        "token",
        ("authentication.k8s.io", "v1", "TokenRequest"),
        CREATE_ONLY,
    )],
    strategy: Strategy { returns_deleted: true, ..super::DATA },
    columns: print::SERVICE_ACCOUNT,
    row: print::service_account_row,
    message: "core.ServiceAccount",
    ..ROW
};

/// Endpoints.
pub static ENDPOINTS: BuiltIn = BuiltIn {
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    columns: print::ENDPOINTS,
    row: print::endpoints_row,
    message: "core.Endpoints",
    default: endpoints_defaults,
    validate: endpoints_rules,
    ..ROW
};

const NAMESPACE_STRATEGY: Strategy = Strategy {
    counts_generation: false,
    name_rule: names::dns_label,
    initial_status: active,
    ..SPEC_AND_STATUS
};
/// A node registers itself together with its status.
const NODE_STRATEGY: Strategy =
    Strategy { counts_generation: false, initial_status: kept_status, ..SPEC_AND_STATUS };

/// The label that lets a selector name a namespace.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Finalizers of namespaces that need no prefix.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];
const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

fn active(_: &Value) -> Value {
    json!({"phase": "Active"})
}

fn namespace_defaults(object: &mut Value) {
    let name = text_at(object, &["metadata", "name"]).unwrap_or_default().to_owned();
    let deleting = text_at(object, &["metadata", "deletionTimestamp"]).is_some();
    if let Some(spec) = map_in(object, "spec")
        && !deleting
    {
        set_default(spec, "finalizers", json!(["kubernetes"]));
    }
    let Some(metadata) = object.get_mut("metadata") else { return };
    if let Some(labels) = map_in(metadata, "labels")
        && !name.is_empty()
    {
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.into());
    }
}

fn namespace_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    for finalizer in spec.each("finalizers") {
        checks::named(finalizer, names::qualified_name, &mut errors);
        if !finalizer.text().contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.text()) {
            errors
                .push(finalizer.invalid(
                    "name is neither a standard finalizer name nor is it fully qualified",
                ));
        }
    }
    errors
}

fn node_defaults(object: &mut Value) {
    map_in(object, "spec");
    // What a node can give defaults to what it has.
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
        && let Some(capacity) = status.get("capacity").cloned()
    {
        set_default(status, "allocatable", capacity);
    }
}

fn node_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let mut seen = BTreeSet::new();
    for taint in spec.each("taints") {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        checks::named(key, names::qualified_name, &mut errors);
        checks::named(value, names::label_value, &mut errors);
        checks::required_choice(effect, TAINT_EFFECTS, &mut errors);
        if !seen.insert((key.text(), effect.text())) {
            errors.push(taint.duplicate_text(key.text()));
        }
    }
    for range in spec.each("podCIDRs") {
        checks::cidr(range, &mut errors);
    }
    let status = root.get("status");
    for list in ["capacity", "allocatable"] {
        checks::amounts(status, list, &mut errors);
    }
    errors
}

fn node_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    let (new, old) = (new.get("spec"), old.get("spec"));
    for field in ["podCIDR", "providerID"] {
        let (new, old) = (new.get(field), old.get(field));
        if !old.text().is_empty() && new.text() != old.text() {
            errors.push(
                new.forbidden("node updates may not change this field except when it is not set"),
            );
        }
    }
    errors
}

fn endpoints_defaults(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    for subset in maps_in(fields, "subsets") {
        maps_in(subset, "ports").for_each(|port| set_default(port, "protocol", "TCP"));
    }
}

fn endpoints_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    for subset in root.each("subsets") {
        let (ready, not_ready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.len() == 0 && not_ready.len() == 0 {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for address in subset.each("addresses").chain(subset.each("notReadyAddresses")) {
            checks::ip_address(address.get("ip"), &mut errors);
            if !address.get("hostname").text().is_empty() {
                checks::named(address.get("hostname"), names::dns_label, &mut errors);
            }
        }
        let ports = subset.get("ports").len();
        for port in subset.each("ports") {
            let name = port.get("name");
            if ports > 1 && name.text().is_empty() {
                errors.push(name.required(""));
            } else if !name.text().is_empty() {
                checks::named(name, names::dns_label, &mut errors);
            }
            let number = port.get("port");
            if number.number().is_none_or(|number| !(1..=65535).contains(&number)) {
                errors.push(number.invalid(checks::PORT_RANGE));
            }
            checks::choice(port.get("protocol"), PROTOCOLS, &mut errors);
        }
    }
    errors
}
