//! The rows of the core kinds other than Pods, and of Leases.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    DATA, SPEC_AND_STATUS, immutable, kept_status, map_in, maps_in, no_defaults, no_rules,
    no_update_rules, set_default, status_of, subresource,
};
use crate::{
    error::FieldError,
    merge,
    meta::{at, items_at, text_at},
    names,
    print::{core as print, node as print_node},
    resource::{ALL_VERBS, BuiltIn, Strategy},
};

/// Namespaces.
pub static NAMESPACE: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[
        status_of("", "v1", "Namespace"),
        subresource("finalize", ("", "v1", "Namespace"), &["update"]),
    ],
    strategy: NAMESPACE_STRATEGY,
    columns: print::NAMESPACE,
    row: print::namespace_row,
    message: "core.Namespace",
    default: namespace_defaults,
    validate: no_rules,
    validate_update: no_update_rules,
    field_selectors: &["status.phase"],
    merge: &merge::CONDITIONED,
    stored: None,
};

/// Nodes.
pub static NODE: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[status_of("", "v1", "Node")],
    strategy: NODE_STRATEGY,
    columns: print_node::COLUMNS,
    row: print_node::row,
    message: "core.Node",
    default: node_defaults,
    validate: node_rules,
    validate_update: no_update_rules,
    field_selectors: &["spec.unschedulable"],
    merge: &merge::NODE,
    stored: None,
};

/// Events.
pub static EVENT: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    strategy: DATA,
    columns: print::EVENT,
    row: print::event_row,
    message: "core.Event",
    default: no_defaults,
    validate: no_rules,
    validate_update: no_update_rules,
    field_selectors: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    merge: &merge::GENERIC,
    stored: None,
};

/// ConfigMaps.
pub static CONFIG_MAP: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    strategy: DATA,
    columns: print::CONFIG_MAP,
    row: print::config_map_row,
    message: "core.ConfigMap",
    default: no_defaults,
    validate: config_rules,
    validate_update: config_update,
    field_selectors: &[],
    merge: &merge::GENERIC,
    stored: None,
};

/// Secrets.
pub static SECRET: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    strategy: DATA,
    columns: print::SECRET,
    row: print::secret_row,
    message: "core.Secret",
    default: secret_defaults,
    validate: config_rules,
    validate_update: secret_update,
    field_selectors: &["type"],
    merge: &merge::GENERIC,
    stored: None,
};

/// ServiceAccounts.
pub static SERVICE_ACCOUNT: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    strategy: DATA,
    columns: print::SERVICE_ACCOUNT,
    row: print::service_account_row,
    message: "core.ServiceAccount",
    default: no_defaults,
    validate: no_rules,
    validate_update: no_update_rules,
    field_selectors: &[],
    merge: &merge::SERVICE_ACCOUNT,
    stored: None,
};

/// Services, as objects: addresses are given by controllers.
pub static SERVICE: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[status_of("", "v1", "Service")],
    strategy: SERVICE_STRATEGY,
    columns: print::SERVICE,
    row: print::service_row,
    message: "core.Service",
    default: service_defaults,
    validate: service_rules,
    validate_update: no_update_rules,
    field_selectors: &["spec.clusterIP", "spec.type"],
    merge: &merge::SERVICE,
    stored: None,
};

/// Endpoints.
pub static ENDPOINTS: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    strategy: DATA,
    columns: print::ENDPOINTS,
    row: print::endpoints_row,
    message: "core.Endpoints",
    default: no_defaults,
    validate: no_rules,
    validate_update: no_update_rules,
    field_selectors: &[],
    merge: &merge::GENERIC,
    stored: None,
};

/// Leases.
pub static LEASE: BuiltIn = BuiltIn {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    strategy: DATA,
    columns: print::LEASE,
    row: print::lease_row,
    message: "coordination.Lease",
    default: no_defaults,
    validate: no_rules,
    validate_update: no_update_rules,
    field_selectors: &[],
    merge: &merge::GENERIC,
    stored: None,
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
const SERVICE_STRATEGY: Strategy = Strategy {
    counts_generation: false,
    name_rule: names::dns_label,
    initial_status: no_load_balancer,
    ..SPEC_AND_STATUS
};

/// Most bytes of all values of a ConfigMap or Secret together, as in Kubernetes.
pub const DATA_MAX_BYTES: usize = 1024 * 1024;
/// The label that lets a selector name a namespace.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

const SERVICE_TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

fn active(_: &Value) -> Value {
    json!({"phase": "Active"})
}

fn no_load_balancer(_: &Value) -> Value {
    json!({"loadBalancer": {}})
}

fn namespace_defaults(object: &mut Value) {
    let name = text_at(object, &["metadata", "name"]).unwrap_or_default().to_owned();
    if let Some(spec) = map_in(object, "spec") {
        set_default(spec, "finalizers", json!(["kubernetes"]));
    }
    let Some(metadata) = object.get_mut("metadata") else { return };
    if let Some(labels) = map_in(metadata, "labels")
        && !name.is_empty()
    {
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.into());
    }
}

fn node_defaults(object: &mut Value) {
    map_in(object, "spec");
}

fn node_rules(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, taint) in items_at(object, &["spec", "taints"]).enumerate() {
        let text = |field: &str| text_at(taint, &[field]).unwrap_or_default();
        let wrong = names::qualified_name(text("key"));
        let field = format!("spec.taints[{index}].key");
        errors.extend(
            wrong.iter().map(|why| FieldError::invalid_text(field.as_str(), text("key"), why)),
        );
        if !seen.insert((text("key"), text("effect"))) {
            errors.push(FieldError::duplicate(format!("spec.taints[{index}]"), text("key")));
        }
    }
    errors
}

fn config_rules(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for list in ["data", "binaryData"] {
        let entries = object.get(list).and_then(Value::as_object);
        for (key, value) in entries.into_iter().flatten() {
            bytes += value.as_str().map_or(0, str::len);
            let field = format!("{list}[{key}]");
            let wrong = names::config_key(key);
            errors
                .extend(wrong.iter().map(|why| FieldError::invalid_text(field.as_str(), key, why)));
        }
    }
    if bytes > DATA_MAX_BYTES {
        errors.push(FieldError {
            reason: crate::error::FieldReason::Invalid,
            field: "data".to_owned(),
            message: format!("Too long: may not be more than {DATA_MAX_BYTES} bytes"),
        });
    }
    errors
}

/// An object that was made immutable stays as it is.
fn config_update(new: &Value, old: &Value) -> Vec<FieldError> {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return Vec::new();
    }
    ["immutable", "data", "binaryData"]
        .into_iter()
        .filter(|field| new.get(field) != old.get(field))
        .map(|field| FieldError::forbidden(field, "field is immutable when `immutable` is set"))
        .collect()
}

fn secret_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = config_update(new, old);
    errors.extend(immutable(new, old, &["type"]));
    errors
}

/// `stringData` is written only, and becomes `data`.
fn secret_defaults(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    set_default(fields, "type", "Opaque");
    let Some(Value::Object(plain)) = fields.remove("stringData") else { return };
    if let Some(data) = map_in(object, "data") {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
}

fn service_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "type", "ClusterIP");
    set_default(spec, "sessionAffinity", "None");
    if spec.get("type").and_then(Value::as_str) != Some("ExternalName") {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    for port in maps_in(spec, "ports") {
        set_default(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            set_default(port, "targetPort", number);
        }
    }
}

fn service_rules(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text_at(object, &["spec", "type"]).unwrap_or_default();
    if !SERVICE_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", kind, SERVICE_TYPES));
    }
    let headless = text_at(object, &["spec", "clusterIP"]) == Some("None");
    let ports = items_at(object, &["spec", "ports"]).count();
    if ports == 0 && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    for (index, port) in items_at(object, &["spec", "ports"]).enumerate() {
        let number = at(port, &["port"]).and_then(Value::as_i64).unwrap_or(0);
        if !(1..=65535).contains(&number) {
            errors.push(FieldError::invalid(
                format!("spec.ports[{index}].port"),
                &Value::from(number),
                "must be between 1 and 65535, inclusive",
            ));
        }
        if ports > 1 && text_at(port, &["name"]).is_none_or(str::is_empty) {
            errors.push(FieldError::required(format!("spec.ports[{index}].name"), ""));
        }
    }
    errors
}
