//! Checks values against a schema, with the wording and paths of Kubernetes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use serde_json::{Number, Value, json};

use crate::correlate::{self, Entries, map_key};
use crate::error::{Errors, FieldError, float};
use crate::node::{Additional, Checks, ListType, Node, Type};
use crate::parse::json_type;
use crate::path::Path;

/// Reports everything about `value` that `node` does not allow. What is as it was in `old` may stay
/// wrong: a schema that became stricter must not keep the rest of an object from changing.
pub(crate) fn validate(
    value: &Value,
    old: Option<&Value>,
    node: &Node,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if errors.is_full() || (value.is_null() && (node.nullable || is_untyped(node))) {
        return;
    }
    let before = errors.len();
    everything(value, old, node, path, errors);
    // Compared only where something is wrong, which is rare.
    if errors.len() > before && old == Some(value) {
        errors.truncate(before);
    }
}

fn everything(
    value: &Value,
    old: Option<&Value>,
    node: &Node,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if !type_fits(value, node) {
        let names = node.kind.map_or("integer,string", Type::name);
        let found = json_type(value);
        let detail = format!("{} must be of type {names}: {found:?}", in_body(path));
        errors.push(FieldError::type_invalid(path, found, detail));
        return;
    }
    if let Some(checks) = &node.checks {
        check(value, checks, path, errors);
    }
    match value {
        Value::Object(map) => {
            for name in &node.required {
                if !map.contains_key(name.as_ref()) {
                    errors.push(FieldError::required(&path.field(name), ""));
                }
            }
            if node.embedded {
                embedded(map, path, errors);
            }
            let old = correlate::fields(node, old);
            for (name, value) in map {
                if let Some(schema) = node.child(name) {
                    let old = old.and_then(|old| old.get(name));
                    validate(value, old, schema, &path.field(name), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &node.items {
                let old = Entries::of(node, old);
                for (index, item) in items.iter().enumerate() {
                    let old = old.before(item, schema);
                    validate(item, old, schema, &path.index(index), errors);
                }
            }
            distinct(items, node, path, errors);
        }
        _ => {}
    }
}

fn in_body(path: &Path<'_>) -> String {
    format!("{path} in body")
}

fn is_untyped(node: &Node) -> bool {
    node.kind.is_none() && !node.int_or_string
}

fn type_fits(value: &Value, node: &Node) -> bool {
    let is_whole =
        |number: &Number| !number.is_f64() || number.as_f64().is_some_and(|n| n.fract() == 0.0);
    if node.int_or_string {
        return match value {
            Value::Number(number) => is_whole(number),
            other => other.is_string(),
        };
    }
    match (node.kind, value) {
        (None, _)
        | (Some(Type::Object), Value::Object(_))
        | (Some(Type::Array), Value::Array(_))
        | (Some(Type::String), Value::String(_))
        | (Some(Type::Number), Value::Number(_))
        | (Some(Type::Boolean), Value::Bool(_)) => true,
        (Some(Type::Integer), Value::Number(number)) => is_whole(number),
        _ => false,
    }
}

fn check(value: &Value, checks: &Checks, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::Number(number) => number_checks(number, value, checks, path, errors),
        Value::String(text) => string_checks(text, value, checks, path, errors),
        Value::Array(items) => list_checks(items, checks, path, errors),
        Value::Object(map) => map_checks(map.len(), checks, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    if let Some(allowed) = &checks.allowed
        && !allowed.iter().any(|known| is_same(known, value))
    {
        errors.push(FieldError::not_supported(path, value, allowed.iter()));
    }
    junctors(value, checks, path, errors);
}

/// Equality as JSON Schema has it: 1 and 1.0 are one number.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) if left.is_f64() != right.is_f64() => {
            left.as_f64() == right.as_f64()
        }
        _ => left == right,
    }
}

fn number_checks(
    number: &Number,
    value: &Value,
    checks: &Checks,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let Some(number) = number.as_f64() else { return };
    let body = in_body(path);
    if let Some(max) = checks.maximum {
        if checks.exclusive_maximum && number >= max {
            let detail = format!("{body} should be less than {}", float(max));
            errors.push(FieldError::invalid(path, value, detail));
        } else if number > max {
            let detail = format!("{body} should be less than or equal to {}", float(max));
            errors.push(FieldError::invalid(path, value, detail));
        }
    }
    if let Some(min) = checks.minimum {
        if checks.exclusive_minimum && number <= min {
            let detail = format!("{body} should be greater than {}", float(min));
            errors.push(FieldError::invalid(path, value, detail));
        } else if number < min {
            let detail = format!("{body} should be greater than or equal to {}", float(min));
            errors.push(FieldError::invalid(path, value, detail));
        }
    }
    if let Some(factor) = checks.multiple_of {
        let quotient = number / factor;
        if !quotient.is_finite() || quotient.fract() != 0.0 {
            let detail = format!("{body} should be a multiple of {}", float(factor));
            errors.push(FieldError::invalid(path, value, detail));
        }
    }
    if let Some(format) = &checks.format
        && !format.fits(number)
    {
        let detail = format!("{body} must be of type {}: {value}", format.name());
        errors.push(FieldError::invalid(path, value, detail));
    }
}

fn string_checks(text: &str, value: &Value, checks: &Checks, path: &Path<'_>, errors: &mut Errors) {
    let body = in_body(path);
    if checks.max_length.is_some() || checks.min_length.is_some() {
        let length = text.chars().count() as u64;
        if let Some(max) = checks.max_length.filter(|max| length > *max) {
            errors.push(FieldError::too_long(path, max));
        }
        if let Some(min) = checks.min_length.filter(|min| length < *min) {
            let detail = format!("{body} should be at least {min} chars long");
            errors.push(FieldError::invalid(path, value, detail));
        }
    }
    if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        let detail = format!("{body} should match '{}'", pattern.as_str());
        errors.push(FieldError::invalid(path, value, detail));
    }
    if let Some(format) = checks.format.as_ref().filter(|format| !format.matches(text)) {
        let detail = format!("{body} must be of type {}: {value}", format.name());
        errors.push(FieldError::invalid(path, value, detail));
    }
}

fn list_checks(items: &[Value], checks: &Checks, path: &Path<'_>, errors: &mut Errors) {
    let count = items.len() as u64;
    if let Some(max) = checks.max_items.filter(|max| count > *max) {
        errors.push(FieldError::too_many(path, items.len(), max));
    }
    if let Some(min) = checks.min_items.filter(|min| count < *min) {
        let detail = format!("{} should have at least {min} items", in_body(path));
        errors.push(FieldError::invalid(path, &json!(count), detail));
    }
    if checks.unique_items {
        let mut seen = HashSet::new();
        if !items.iter().all(|item| seen.insert(item.to_string())) {
            let detail = format!("{} shouldn't contain duplicates", in_body(path));
            errors.push(FieldError::invalid(path, &json!(""), detail));
        }
    }
}

fn map_checks(count: usize, checks: &Checks, path: &Path<'_>, errors: &mut Errors) {
    if let Some(max) = checks.max_properties.filter(|max| count as u64 > *max) {
        errors.push(FieldError::too_many(path, count, max));
    }
    if let Some(min) = checks.min_properties.filter(|min| (count as u64) < *min) {
        let detail = format!("{} should have at least {min} properties", in_body(path));
        errors.push(FieldError::invalid(path, &json!(count), detail));
    }
}

fn junctors(value: &Value, checks: &Checks, path: &Path<'_>, errors: &mut Errors) {
    let shown = path.to_string();
    let faults = |node: &Node| {
        let mut faults = Errors::default();
        validate(value, None, node, path, &mut faults);
        faults
    };
    // Kubernetes names the place in the message only, and no field.
    let mut refuse = |detail: String, best: Option<Errors>| {
        errors.push(FieldError::invalid(&Path::root(""), &json!(""), detail));
        best.into_iter().for_each(|best| errors.extend(best));
    };
    if !checks.any_of.is_empty() {
        let all: Vec<Errors> = checks.any_of.iter().map(faults).collect();
        if !all.iter().any(Errors::is_empty) {
            let best = all.into_iter().min_by_key(Errors::len);
            refuse(format!("{shown:?} must validate at least one schema (anyOf)"), best);
        }
    }
    if !checks.one_of.is_empty() {
        let all: Vec<Errors> = checks.one_of.iter().map(faults).collect();
        let valid = all.iter().filter(|faults| faults.is_empty()).count();
        let text = format!("{shown:?} must validate one and only one schema (oneOf).");
        match valid {
            1 => {}
            0 => {
                let best = all.into_iter().min_by_key(Errors::len);
                refuse(format!("{text} Found none valid"), best);
            }
            _ => refuse(format!("{text} Found {valid} valid alternatives"), None),
        }
    }
    let all: Vec<Errors> = checks.all_of.iter().map(faults).collect();
    let valid = all.iter().filter(|faults| faults.is_empty()).count();
    if valid < all.len() {
        let none = if valid == 0 { ". None validated" } else { "" };
        let first = all.into_iter().find(|faults| !faults.is_empty());
        refuse(format!("{shown:?} must validate all the schemas (allOf){none}"), first);
    }
    if checks.not.as_ref().is_some_and(|node| faults(node).is_empty()) {
        refuse(format!("{shown:?} must not validate the schema (not)"), None);
    }
}

/// Lists of type set and map hold each entry once. Only the first repetition of an entry is named.
fn distinct(items: &[Value], node: &Node, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: HashMap<String, bool> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let identity = match &node.list {
            ListType::Set => item.clone(),
            ListType::Map(keys) => match map_key(item, keys, node.items.as_deref()) {
                Some(key) => key,
                None => continue,
            },
            ListType::Atomic | ListType::Unspecified => return,
        };
        // Objects keep their keys sorted, so equal values print equally.
        match seen.entry(identity.to_string()) {
            Entry::Vacant(place) => {
                place.insert(false);
            }
            Entry::Occupied(mut is_named) => {
                if !is_named.insert(true) {
                    errors.push(FieldError::duplicate(&path.index(index), &identity));
                }
            }
        }
    }
}

/// An embedded object says what it is.
fn embedded(map: &serde_json::Map<String, Value>, path: &Path<'_>, errors: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        let at = path.field(name);
        match map.get(name) {
            Some(Value::String(text)) if !text.is_empty() => {}
            None | Some(Value::String(_)) => errors.push(FieldError::required(&at, "")),
            Some(other) => errors.push(FieldError::invalid(&at, other, "must be a string")),
        }
    }
    if let Some(metadata) = map.get("metadata").filter(|metadata| !metadata.is_object()) {
        let at = path.field("metadata");
        errors.push(FieldError::invalid(&at, metadata, "must be an object"));
    }
}

/// Whether a map has user-chosen keys rather than fields.
pub(crate) fn is_map(node: &Node) -> bool {
    !matches!(node.additional, Additional::Unspecified)
}
