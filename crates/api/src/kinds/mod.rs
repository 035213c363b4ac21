//! The resource table: one row per kind, and the look-ups in it.

pub mod core;
pub mod metadata;
pub mod pod;
pub mod pod_defaults;
mod pod_validation;
pub mod workload;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    error::FieldError,
    names,
    resource::{BuiltIn, Strategy, Subresource},
};

/// Every kind that the server knows, in the order in which discovery shows them.
pub static RESOURCES: &[&BuiltIn] = &[
    &core::NAMESPACE,
    &core::NODE,
    &pod::POD,
    &core::EVENT,
    &core::CONFIG_MAP,
    &core::SECRET,
    &core::SERVICE_ACCOUNT,
    &core::SERVICE,
    &core::ENDPOINTS,
    &workload::DEPLOYMENT,
    &workload::REPLICA_SET,
    &workload::DAEMON_SET,
    &workload::CONTROLLER_REVISION,
    &core::LEASE,
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

/// Verbs of a status subresource.
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

const fn status_of(group: &'static str, version: &'static str, kind: &'static str) -> Subresource {
    subresource("status", (group, version, kind), STATUS_VERBS)
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
    name_rule: names::dns_subdomain,
    initial_status: kept_status,
};

/// Objects with a desired state and a status.
const SPEC_AND_STATUS: Strategy = Strategy {
    has_status: true,
    counts_generation: true,
    graceful: false,
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

/// Cells of a row, for kinds that are shown by name and age alone.
pub type Row = fn(&Value, Timestamp) -> Vec<Value>;

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

/// A field that may not change once it is set.
pub(crate) fn immutable(new: &Value, old: &Value, path: &[&str]) -> Option<FieldError> {
    use crate::meta::at;
    let (new, old) = (at(new, path), at(old, path));
    (new != old).then(|| {
        FieldError::invalid(path.join("."), new.unwrap_or(&Value::Null), "field is immutable")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        for row in RESOURCES {
            assert_eq!(row.list_kind, format!("{}List", row.kind));
            assert!(std::ptr::eq(find(row.group, row.version, row.plural).unwrap(), *row));
            assert!(std::ptr::eq(find_kind(&row.api_version(), row.kind).unwrap(), *row));
            assert_eq!(
                row.strategy.has_status,
                row.subresources.iter().any(|sub| sub.name == "status"),
                "{}",
                row.kind
            );
            let empty = serde_json::json!({"metadata": {}});
            assert_eq!(
                (row.row)(&empty, Timestamp::UNIX_EPOCH).len(),
                row.columns.len(),
                "{}",
                row.kind
            );
            let mut object = empty;
            (row.default)(&mut object);
            let _ = (row.validate)(&object);
        }
    }
}
