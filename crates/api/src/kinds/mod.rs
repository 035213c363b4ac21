//! The resource table: one row per kind, and the look-ups in it.

pub mod admission;
pub mod batch;
pub mod certificates;
mod checks;
pub mod config;
mod container_rules;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod events;
pub mod extensions;
mod field;
mod ingress;
mod job;
pub mod limits;
pub mod metadata;
pub mod networking;
pub mod node;

pub mod pod;
pub mod pod_defaults;
pub mod pod_parts;
mod pod_security_rules;
mod pod_validation;
pub mod policy;
pub mod rbac;
pub mod reviews;
pub mod scheduling;
pub mod service;
mod service_rules;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod volume;
pub mod workload;
mod workload_defaults;
mod workload_rules;

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    error::FieldError,
    names, print,
    resource::{ALL_VERBS, BuiltIn, Strategy, Subresource},
};

/// Every kind that the server knows, in the order in which discovery shows them.
pub static RESOURCES: &[&BuiltIn] = &[
    &core::BINDING,
    &config::CONFIG_MAP,
    &core::ENDPOINTS,
    &events::CORE_EVENT,
    &limits::LIMIT_RANGE,
    &core::NAMESPACE,
    &core::NODE,
    &volume::PERSISTENT_VOLUME_CLAIM,
    &volume::PERSISTENT_VOLUME,
    &pod::POD,
    &pod::POD_TEMPLATE,
    &workload::REPLICATION_CONTROLLER,
    &limits::RESOURCE_QUOTA,
    &config::SECRET,
    &core::SERVICE_ACCOUNT,
    &service::SERVICE,
    &admission::MUTATING_WEBHOOK_CONFIGURATION,
    &admission::VALIDATING_WEBHOOK_CONFIGURATION,
    &extensions::CUSTOM_RESOURCE_DEFINITION,
    &workload::CONTROLLER_REVISION,
    &workload::DAEMON_SET,
    &workload::DEPLOYMENT,
    &workload::REPLICA_SET,
    &workload::STATEFUL_SET,
    &reviews::SELF_SUBJECT_REVIEW,
    &reviews::TOKEN_REVIEW,
    &reviews::LOCAL_SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_RULES_REVIEW,
    &reviews::SUBJECT_ACCESS_REVIEW,
    &batch::CRON_JOB,
    &batch::JOB,
    &certificates::CERTIFICATE_SIGNING_REQUEST,
    &coordination::LEASE,
    &discovery::ENDPOINT_SLICE,
    &events::EVENT,
    &networking::INGRESS_CLASS,
    &networking::INGRESS,
    &networking::IP_ADDRESS,
    &networking::NETWORK_POLICY,
    &networking::SERVICE_CIDR,
    &node::RUNTIME_CLASS,
    &policy::POD_DISRUPTION_BUDGET,
    &rbac::CLUSTER_ROLE_BINDING,
    &rbac::CLUSTER_ROLE,
    &rbac::ROLE_BINDING,
    &rbac::ROLE,
    &scheduling::PRIORITY_CLASS,
    &storage::CSI_DRIVER,
    &storage::CSI_NODE,
    &storage::CSI_STORAGE_CAPACITY,
    &storage::STORAGE_CLASS,
    &storage::VOLUME_ATTACHMENT,
    &storage::VOLUME_ATTRIBUTES_CLASS,
];

/// The resource of a path's group, version and plural name.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static BuiltIn> {
    RESOURCES
        .iter()
        .find(|row| row.plural == plural && row.group == group && row.version == version)
        .copied()
}

/// The resource of an object's `apiVersion` and `kind`.
#[must_use]
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static BuiltIn> {
    RESOURCES.iter().find(|row| row.kind == kind && row.api_version() == api_version).copied()
}

/// What a row says unless it says otherwise: a namespaced kind of the core group, all data, shown by
/// name and time of creation.
const ROW: BuiltIn = BuiltIn {
    group: "",
    version: "v1",
    kind: "",
    list_kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    strategy: DATA,
    columns: print::NAME_AND_CREATION,
    row: print::name_and_creation,
    message: "",
    default: no_defaults,
    validate: no_rules,
    validate_create: no_rules,
    validate_update: no_update_rules,
    field_selectors: &[],
    stored: None,
};

/// Verbs of kinds that are only asked, never kept.
const CREATE_ONLY: &[&str] = &["create"];

/// Verbs of a status subresource.
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

const fn status_of(group: &'static str, version: &'static str, kind: &'static str) -> Subresource {
    subresource("status", (group, version, kind), STATUS_VERBS)
}

/// Verbs of a proxy: one for each method that it passes on.
const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

/// The proxy to what a core object stands for.
const fn proxy(options_kind: &'static str) -> Subresource {
    subresource("proxy", ("", "v1", options_kind), PROXY_VERBS)
}

const SCALE: Subresource = subresource("scale", ("autoscaling", "v1", "Scale"), STATUS_VERBS);

/// A subresource that speaks a kind: group, version, kind.
const fn subresource(
    name: &'static str,
    (group, version, kind): (&'static str, &'static str, &'static str),
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource {
        name,
        group: Cow::Borrowed(group),
        version: Cow::Borrowed(version),
        kind: Cow::Borrowed(kind),
        verbs,
    }
}

/// Objects without status or generation.
const DATA: Strategy = Strategy {
    has_status: false,
    counts_generation: false,
    graceful: false,
    returns_deleted: false,
    name_rule: names::dns_subdomain,
    initial_status: kept_status,
};

/// Objects with a desired state and a status.
const SPEC_AND_STATUS: Strategy = Strategy {
    has_status: true,
    counts_generation: true,
    graceful: false,
    returns_deleted: false,
    name_rule: names::dns_subdomain,
    initial_status: empty_status,
};

fn kept_status(object: &Value) -> Value {
    object.get("status").cloned().unwrap_or(Value::Null)
}

fn empty_status(_: &Value) -> Value {
    Value::Object(serde_json::Map::new())
}

fn no_defaults(_: &mut Value) {}

fn no_rules(_: &Value) -> Vec<FieldError> {
    Vec::new()
}

fn no_update_rules(_: &Value, _: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// The map at `field`, made if it is absent; `None` when something else is there.
pub(crate) fn map_in<'v>(
    object: &'v mut Value,
    field: &str,
) -> Option<&'v mut serde_json::Map<String, Value>> {
    let map = object.as_object_mut()?;
    let value = map.entry(field).or_insert_with(|| Value::Object(serde_json::Map::new()));
    value.as_object_mut()
}

/// Sets a field that is absent.
pub(crate) fn set_default(
    map: &mut serde_json::Map<String, Value>,
    field: &str,
    value: impl Into<Value>,
) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value.into());
    }
}

/// The maps in the list at `field`.
pub(crate) fn maps_in<'v>(
    map: &'v mut serde_json::Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'v mut serde_json::Map<String, Value>> {
    map.get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}
