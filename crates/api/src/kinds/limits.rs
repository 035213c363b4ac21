//! The rows of LimitRanges and ResourceQuotas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    ROW, SPEC_AND_STATUS,
    checks::{self, Errors},
    field::At,
    map_in, maps_in, set_default, status_of,
};
use crate::{
    names,
    print::cluster as print,
    quantity::Quantity,
    resource::{BuiltIn, Strategy},
};

/// LimitRanges.
pub static LIMIT_RANGE: BuiltIn = BuiltIn {
    kind: "LimitRange",
    list_kind: "LimitRangeList",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    message: "core.LimitRange",
    default: limit_range_defaults,
    validate: limit_range_rules,
    ..ROW
};

/// ResourceQuotas.
pub static RESOURCE_QUOTA: BuiltIn = BuiltIn {
    kind: "ResourceQuota",
    list_kind: "ResourceQuotaList",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[status_of("", "v1", "ResourceQuota")],
    strategy: Strategy { counts_generation: false, returns_deleted: true, ..SPEC_AND_STATUS },
    columns: print::RESOURCE_QUOTA,
    row: print::resource_quota_row,
    message: "core.ResourceQuota",
    default: resource_quota_defaults,
    validate: resource_quota_rules,
    validate_update: resource_quota_update,
    ..ROW
};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Resources of a pod without a prefix.
const STANDARD_RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage", "storage"];
const QUOTA_RESOURCES: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// Amounts are kept in canonical form, so that equal amounts are equal texts.
pub(super) fn canonical(amounts: Option<&mut Value>) {
    for (_, amount) in amounts.and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(parsed) = amount.as_str().and_then(|text| text.parse::<Quantity>().ok()) {
            *amount = parsed.to_string().into();
        }
    }
}

fn limit_range_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    for item in maps_in(spec, "limits") {
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            canonical(item.get_mut(list));
        }
        if item.get("type") != Some(&json!("Container")) {
            continue;
        }
        // What is not said follows from what is: limit from the most, request from limit or least.
        copy_missing(item, "max", "default");
        copy_missing(item, "default", "defaultRequest");
        let min = item.get("min").and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(requests) = item.get_mut("defaultRequest").and_then(Value::as_object_mut) {
            min.into_iter().for_each(|(name, value)| set_default(requests, &name, value));
        } else if !min.is_empty() {
            item.insert("defaultRequest".to_owned(), min.into());
        }
    }
}

fn copy_missing(item: &mut Map<String, Value>, from: &str, to: &str) {
    let Some(given) = item.get(from).and_then(Value::as_object).cloned() else { return };
    let target = item.entry(to).or_insert_with(|| json!({}));
    if let Some(target) = target.as_object_mut() {
        given.into_iter().for_each(|(name, value)| set_default(target, &name, value));
    }
}

fn limit_range_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let mut types = BTreeSet::new();
    for item in spec.each("limits") {
        let kind = item.get("type");
        checks::named(kind, names::qualified_name, &mut errors);
        if !types.insert(kind.text()) {
            errors.push(item.duplicate_text(kind.text()));
        }
        limit_item(item, &mut errors);
    }
    errors
}

fn limit_item(item: At<'_, '_>, errors: &mut Errors) {
    let kind = item.get("type");
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        for (name, amount) in item.entries(list) {
            resource_name(name, amount, errors);
            checks::quantity(amount, errors);
        }
    }
    if kind.text() == "Pod" {
        for list in ["default", "defaultRequest"] {
            if item.get(list).len() > 0 {
                errors.push(item.get(list).forbidden("may not be specified when `type` is 'Pod'"));
            }
        }
    }
    if kind.text() == "PersistentVolumeClaim" {
        let storage = |list: &str| item.get(list).get("storage").is_set();
        if !storage("min") && !storage("max") {
            let why =
                "either minimum or maximum storage value is required, but neither was provided";
            errors.push(item.required(why));
        }
    }
    let all = |list: &str, name: &str| {
        item.value.get(list).and_then(|list| list.get(name)).and_then(Value::as_str)
    };
    let amount = |list: &str, name: &str| all(list, name)?.parse::<Quantity>().ok();
    for (low, high, what) in [
        ("min", "max", "min value {} is greater than max value {}"),
        ("min", "defaultRequest", "min value {} is greater than default request value {}"),
        ("defaultRequest", "max", "default request value {} is greater than max value {}"),
        (
            "defaultRequest",
            "default",
            "default request value {} is greater than default limit value {}",
        ),
        ("min", "default", "min value {} is greater than default value {}"),
        ("default", "max", "default value {} is greater than max value {}"),
    ] {
        for (name, place) in item.entries(low) {
            let (Some(less), Some(more)) = (amount(low, name), amount(high, name)) else {
                continue;
            };
            if less > more {
                let why =
                    what.replacen("{}", &less.to_string(), 1).replacen("{}", &more.to_string(), 1);
                errors.push(place.invalid(&why));
            }
        }
    }
}

fn resource_name(name: &str, place: At<'_, '_>, errors: &mut Errors) {
    let wrong = names::qualified_name(name);
    errors.extend(wrong.iter().map(|why| place.invalid_text(name, why)));
    let standard = STANDARD_RESOURCES.contains(&name) || name.starts_with("hugepages-");
    if wrong.is_empty() && !name.contains('/') && !standard {
        let why = "must be a standard limit type or fully qualified";
        errors.push(place.invalid_text(name, why));
    }
}

fn resource_quota_defaults(object: &mut Value) {
    if let Some(spec) = map_in(object, "spec") {
        canonical(spec.get_mut("hard"));
    }
    if let Some(status) = object.get_mut("status") {
        canonical(status.get_mut("hard"));
        canonical(status.get_mut("used"));
    }
}

fn quota_name(name: &str, place: At<'_, '_>, errors: &mut Errors) {
    let wrong = names::qualified_name(name);
    errors.extend(wrong.iter().map(|why| place.invalid_text(name, why)));
    let known = QUOTA_RESOURCES.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || name.starts_with("count/");
    if wrong.is_empty() && !name.contains('/') && !known {
        let why = "must be a standard resource for quota";
        errors.push(place.invalid_text(name, why));
    }
}

fn resource_quota_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    for (name, amount) in spec.entries("hard") {
        quota_name(name, amount, &mut errors);
        checks::quantity(amount, &mut errors);
    }
    for scope in spec.each("scopes") {
        if !SCOPES.contains(&scope.text()) {
            errors.push(spec.get("scopes").invalid("unsupported scope"));
        }
    }
    let selector = spec.get("scopeSelector");
    for expression in selector.each("matchExpressions") {
        if !SCOPES.contains(&expression.get("scopeName").text()) {
            errors.push(expression.get("scopeName").invalid("unsupported scope"));
        }
        let values = expression.get("values");
        match expression.get("operator").text() {
            "In" | "NotIn" if values.len() == 0 => errors.push(values.required(
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            "Exists" | "DoesNotExist" if values.len() > 0 => errors.push(values.invalid(
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(expression.get("operator").invalid("not a valid selector operator")),
        }
    }
    let status = root.get("status");
    for list in ["hard", "used"] {
        checks::amounts(status, list, &mut errors);
    }
    errors
}

fn resource_quota_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    let (new, old) = (new.get("spec"), old.get("spec"));
    let set = |place: At<'_, '_>| {
        let items = place.value.as_array().into_iter().flatten();
        items.filter_map(|scope| scope.as_str().map(str::to_owned)).collect::<BTreeSet<_>>()
    };
    if set(new.get("scopes")) != set(old.get("scopes")) {
        errors.push(new.get("scopes").invalid(checks::IMMUTABLE));
    }
    errors
}
