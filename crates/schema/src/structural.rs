//! Whether a schema is structural, judged on its JSON form, with Kubernetes' messages.
//!
//! The rules are those of the page "Extend the Kubernetes API with CustomResourceDefinitions".

mod lists;

use serde_json::{Map, Value, json};

use crate::MAX_SCHEMA_DEPTH;
use crate::error::{Errors, FieldError};
use crate::node::Type;
use crate::path::Path;

/// Where a node stands; messages differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

const JUNCTORS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// Fields of `JSONSchemaProps` that exist in its type but may not be used.
const UNSUPPORTED: [&str; 6] =
    ["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];

/// What only the outer schema may say, with the message for a nested one.
const OUTER_ONLY: [(&str, &str); 14] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("externalDocs", "must be undefined to be structural"),
    ("nullable", "must be false to be structural"),
    (PRESERVE, "must be false to be structural"),
    (EMBEDDED, "must be false to be structural"),
    (INT_OR_STRING, "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

/// Reports everything that keeps `raw` from being a structural schema.
pub(crate) fn check(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !is_depth_allowed(raw, MAX_SCHEMA_DEPTH) {
        let detail = format!("must not nest deeper than {MAX_SCHEMA_DEPTH} levels");
        errors.push(FieldError::forbidden(path, &detail));
        return;
    }
    node(raw, Level::Root, path, errors);
}

/// Whether JSON nests at most `levels` deep; looks no deeper than that.
pub(crate) fn is_depth_allowed(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_depth_allowed(item, below)),
        Value::Object(map) => map.values().all(|item| is_depth_allowed(item, below)),
        _ => true,
    }
}

fn is_set(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'v>(map: &'v Map<String, Value>, name: &str) -> &'v str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn properties(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    map.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn node(raw: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let Some(map) = raw.as_object() else { return };
    unsupported(map, path, errors);
    type_of(map, level, path, errors);
    object_shape(map, level, path, errors);
    lists::list_shape(map, path, errors);
    extensions(map, path, errors);
    implicit_fields(map, level, path, errors);

    let any_of = is_int_or_string_pattern(map.get("anyOf"));
    let first = map.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("anyOf"));
    let first_all_of = is_int_or_string_pattern(first);
    junctors(map, any_of, first_all_of, path, &mut |nested, skip, nested_path| {
        nested_node(nested, skip, nested_path, errors);
        // Kubernetes asks this of the root's junctors only, and CRDs in the field rely on it.
        if level == Level::Root {
            complete(map, nested, path, nested_path.to_string(), errors);
        }
    });

    for (name, raw) in properties(map) {
        node(raw, Level::Field, &path.field("properties").key(name), errors);
    }
    if let Some(items) = map.get("items") {
        node(items, Level::Item, &path.field("items"), errors);
    }
    if let Some(additional) = map.get("additionalProperties") {
        node(additional, Level::Field, &path.field("additionalProperties"), errors);
    }
}

fn unsupported(map: &Map<String, Value>, path: &Path<'_>, errors: &mut Errors) {
    for name in UNSUPPORTED {
        if map.get(name).is_some_and(|value| !value.is_null()) {
            let detail = format!("{name} is not supported");
            errors.push(FieldError::forbidden(&path.field(name), &detail));
        }
    }
    if is_set(map, "uniqueItems") {
        let detail =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&path.field("uniqueItems"), detail));
    }
    if map.get("items").is_some_and(Value::is_array) {
        let detail = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(&path.field("items"), detail));
    }
}

fn type_of(map: &Map<String, Value>, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(map, "type");
    let at = path.field("type");
    if kind == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(&at, detail));
    }
    if !kind.is_empty() && Type::of_name(kind).is_none() {
        let names: Vec<Value> = Type::ALL.iter().map(|kind| json!(kind.name())).collect();
        errors.push(FieldError::not_supported(&at, &json!(kind), names.iter()));
    }
    if is_set(map, EMBEDDED) && kind != "object" {
        wrong_type(map, "must be object if x-kubernetes-embedded-resource is true", path, errors);
    } else if kind.is_empty() && !is_set(map, INT_OR_STRING) && !is_set(map, PRESERVE) {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&at, detail));
    }
    if level == Level::Root {
        if !kind.is_empty() && kind != "object" {
            errors.push(FieldError::invalid(&at, &json!(kind), "must be object at the root"));
        }
        if is_set(map, "nullable") {
            let at = path.field("nullable");
            errors.push(FieldError::forbidden(&at, "nullable cannot be true at the root"));
        }
    }
}

/// Reports that `type` is not the one that an extension needs.
fn wrong_type(map: &Map<String, Value>, detail: &str, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(map, "type");
    let at = path.field("type");
    errors.push(if kind.is_empty() {
        FieldError::required(&at, detail)
    } else {
        FieldError::invalid(&at, &json!(kind), detail)
    });
}

fn object_shape(map: &Map<String, Value>, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let Some(additional) = map.get("additionalProperties") else { return };
    let at = path.field("additionalProperties");
    if additional != &Value::Bool(true) && properties(map).next().is_some() {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(&at, detail));
    }
    if level == Level::Root {
        errors.push(FieldError::forbidden(&at, "must not be used at the root"));
    }
    if is_set(map, EMBEDDED) {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(&at, detail));
    }
}

fn extensions(map: &Map<String, Value>, path: &Path<'_>, errors: &mut Errors) {
    if map.get(PRESERVE) == Some(&Value::Bool(false)) {
        let detail = "must be true or undefined";
        errors.push(FieldError::invalid(&path.field(PRESERVE), &json!(false), detail));
    }
    if is_set(map, INT_OR_STRING) {
        for name in [PRESERVE, EMBEDDED] {
            if is_set(map, name) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                errors.push(FieldError::invalid(&path.field(name), &json!(true), detail));
            }
        }
    }
    let map_type = text(map, "x-kubernetes-map-type");
    if !map_type.is_empty() {
        let known = [json!("atomic"), json!("granular")];
        if !known.iter().any(|name| name == map_type) {
            let at = path.field("x-kubernetes-map-type");
            errors.push(FieldError::not_supported(&at, &json!(map_type), known.iter()));
        }
        if text(map, "type") != "object" {
            let detail = "must be object if x-kubernetes-map-type is specified";
            wrong_type(map, detail, path, errors);
        }
    }
}

/// `apiVersion`, `kind` and `metadata` of the object itself and of embedded ones.
fn implicit_fields(map: &Map<String, Value>, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let embedded = is_set(map, EMBEDDED);
    if embedded && !is_set(map, PRESERVE) && properties(map).next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&path.field("properties"), detail));
    }
    if level != Level::Root && !embedded {
        return;
    }
    let at = path.field("properties");
    for (name, expected) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        let Some((_, raw)) = properties(map).find(|(known, _)| *known == name) else { continue };
        let found = raw.get("type").and_then(Value::as_str).unwrap_or_default();
        if found != expected {
            let detail = format!("must be {expected}");
            let at = at.key(name);
            errors.push(FieldError::invalid(&at.field("type"), &json!(found), detail));
        }
        if name == "metadata" && level == Level::Root && !is_plain_metadata(raw) {
            let detail = "must not specify anything other than name and generateName, but \
                          metadata is implicitly specified";
            errors.push(FieldError::forbidden(&at.key(name), detail));
        }
    }
}

fn is_plain_metadata(raw: &Value) -> bool {
    let Some(map) = raw.as_object() else { return false };
    map.keys().all(|key| matches!(key.as_str(), "type" | "properties" | "description"))
        && properties(map).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"))
}

/// Whether these branches are the one use of `type` below a junctor that is allowed.
fn is_int_or_string_pattern(any_of: Option<&Value>) -> bool {
    any_of.is_some_and(|any| *any == json!([{"type": "integer"}, {"type": "string"}]))
}

/// Called with a branch, whether to skip its own `anyOf`, and its path.
type Visit<'v> = dyn FnMut(&Map<String, Value>, bool, &Path<'_>) + 'v;

/// Calls `visit` for each branch of the junctors of `map`.
fn junctors(
    map: &Map<String, Value>,
    skip_any_of: bool,
    skip_first_all_of: bool,
    path: &Path<'_>,
    visit: &mut Visit<'_>,
) {
    for name in JUNCTORS {
        if name == "anyOf" && skip_any_of {
            continue;
        }
        let branches = map.get(name).and_then(Value::as_array).into_iter().flatten();
        for (index, branch) in branches.enumerate() {
            let skip = name == "allOf" && index == 0 && skip_first_all_of;
            if let Some(branch) = branch.as_object() {
                visit(branch, skip, &path.field(name).index(index));
            }
        }
    }
    if let Some(branch) = map.get("not").and_then(Value::as_object) {
        visit(branch, false, &path.field("not"));
    }
}

fn nested_node(map: &Map<String, Value>, skip_any_of: bool, path: &Path<'_>, errors: &mut Errors) {
    unsupported(map, path, errors);
    for (name, detail) in OUTER_ONLY {
        let is_unset = match map.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Bool(false)) => detail.contains("false"),
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(_) => false,
        };
        if !is_unset {
            errors.push(FieldError::forbidden(&path.field(name), detail));
        }
    }
    junctors(map, skip_any_of, false, path, &mut |nested, skip, path| {
        nested_node(nested, skip, path, errors);
    });
    for (name, raw) in properties(map) {
        let at = path.field("properties");
        if name == "metadata" {
            let detail = "must not be specified in a nested context";
            errors.push(FieldError::forbidden(&at.key(name), detail));
        }
        if let Some(raw) = raw.as_object() {
            nested_node(raw, false, &at.key(name), errors);
        }
    }
    if let Some(items) = map.get("items").and_then(Value::as_object) {
        nested_node(items, false, &path.field("items"), errors);
    }
}

/// Reports each field that a branch constrains and the outer schema does not specify.
fn complete(
    outer: &Map<String, Value>,
    branch: &Map<String, Value>,
    outer_path: &Path<'_>,
    branch_path: String,
    errors: &mut Errors,
) {
    let because = |at: &str| format!("because it is defined in {branch_path}{at}");
    for (name, raw) in properties(branch) {
        let Some(raw) = raw.as_object() else { continue };
        let found =
            outer.get("properties").and_then(|all| all.get(name)).and_then(Value::as_object);
        let suffix = format!(".properties[{name}]");
        match found {
            Some(found) => {
                let at = outer_path.field("properties");
                complete(found, raw, &at.key(name), format!("{branch_path}{suffix}"), errors);
            }
            None => {
                let at = outer_path.field("properties");
                errors.push(FieldError::required(&at.key(name), &because(&suffix)));
            }
        }
    }
    if let Some(raw) = branch.get("items").and_then(Value::as_object) {
        match outer.get("items").and_then(Value::as_object) {
            Some(found) => {
                let at = outer_path.field("items");
                complete(found, raw, &at, format!("{branch_path}.items"), errors);
            }
            None => {
                let at = outer_path.field("items");
                errors.push(FieldError::required(&at, &because(".items")));
            }
        }
    }
    let at = Path::root(&branch_path);
    junctors(branch, false, false, &at, &mut |nested, _, path| {
        complete(outer, nested, outer_path, path.to_string(), errors);
    });
}
