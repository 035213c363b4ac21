//! The table as a whole, and each kind's rules: a small object passes, and what is wrong with it is told
//! as Kubernetes tells it.

mod cluster;
mod core;
mod networking;
mod pods;
mod storage;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::types;

/// A change of a small object: where, to what (`null` removes), and what is then said.
type Case = (&'static str, Value, &'static str);

/// The object with something else at a place.
fn changed(object: &Value, pointer: &str, value: &Value) -> Value {
    let mut object = object.clone();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}")) {
        Value::Object(fields) if value.is_null() => {
            fields.remove(last);
        }
        Value::Object(fields) => {
            fields.insert(last.to_owned(), value.clone());
        }
        Value::Array(items) => match last.parse::<usize>() {
            Ok(position) if position < items.len() => items[position] = value.clone(),
            _ => items.push(value.clone()),
        },
        other => panic!("{other} at {parent}"),
    }
    object
}

fn filled(row: &BuiltIn, object: &Value) -> Value {
    let mut object = row.decode(object.clone()).unwrap().object;
    (row.default)(&mut object);
    let once = object.clone();
    (row.default)(&mut object);
    assert_eq!(object, once, "filling {} twice changes nothing", row.kind);
    object
}

fn said(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The object passes, decodes without unknown fields, and each change of it is told.
fn rules(row: &BuiltIn, object: &Value, cases: &[Case]) {
    let decoded = row.decode(object.clone()).unwrap();
    assert_eq!(decoded.unknown_fields, [""; 0], "{}", row.kind);
    assert_eq!(said(&(row.validate)(&filled(row, object))), "", "{}", row.kind);
    for (pointer, value, expected) in cases {
        let wrong = filled(row, &changed(object, pointer, value));
        assert_eq!(said(&(row.validate)(&wrong)), *expected, "{} {pointer} {value}", row.kind);
    }
}

/// Each change of a stored object is told; an empty text says that it is allowed.
fn updates(row: &BuiltIn, object: &Value, cases: &[Case]) {
    let old = filled(row, object);
    assert_eq!(said(&(row.validate_update)(&old, &old)), "", "{}", row.kind);
    for (pointer, value, expected) in cases {
        let new = changed(&old, pointer, value);
        assert_eq!(said(&(row.validate_update)(&new, &old)), *expected, "{} {pointer}", row.kind);
    }
}

/// The cells of an object's row at a fixed time.
fn cells(row: &BuiltIn, object: &Value) -> Vec<Value> {
    (row.row)(object, "2030-01-01T00:10:00Z".parse().unwrap())
}

#[test]
fn the_table_is_consistent() {
    for row in RESOURCES {
        assert_eq!(row.list_kind, format!("{}List", row.kind));
        assert_eq!(row.singular, row.kind.to_lowercase());
        assert!(std::ptr::eq(find(row.group, row.version, row.plural).unwrap(), *row));
        assert!(std::ptr::eq(find_kind(&row.api_version(), row.kind).unwrap(), *row));
        assert!(types::message(row.message).is_some(), "{}", row.message);
        let status = row.subresources.iter().any(|sub| sub.name == "status");
        assert_eq!(row.strategy.has_status, status, "{}", row.kind);
        let empty = json!({"metadata": {}});
        let shown = (row.row)(&empty, Timestamp::UNIX_EPOCH).len();
        assert_eq!(shown, row.columns.len(), "{}", row.kind);
        let mut object = empty;
        (row.default)(&mut object);
        let _ = (row.validate)(&object);
        let _ = (row.validate_update)(&object, &object);
        let mut names: Vec<&str> = row.subresources.iter().map(|sub| sub.name).collect();
        names.sort_unstable();
        assert_eq!(names, row.subresources.iter().map(|sub| sub.name).collect::<Vec<_>>());
    }
}
