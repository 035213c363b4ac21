//! The rows of Events: those of the core group, and those of `events.k8s.io`, which are the same
//! objects under newer field names. They are kept as core Events.

use serde_json::{Map, Value};

use super::{
    ROW,
    checks::{self, Errors},
    field::At,
};
use crate::{
    names,
    print::core as print,
    resource::{BuiltIn, StoredAs},
};

/// Events of the core group.
pub static CORE_EVENT: BuiltIn = BuiltIn {
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    columns: print::EVENT,
    row: print::event_row,
    message: "core.Event",
    validate: core_rules,
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
    ..ROW
};

/// Events of `events.k8s.io`.
pub static EVENT: BuiltIn = BuiltIn {
    group: "events.k8s.io",
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    columns: print::EVENT,
    row: row_of_served,
    message: "events.Event",
    validate: rules,
    validate_update: update_rules,
    field_selectors: &[
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ],
    stored: Some(&StoredAs { group: "", plural: "events", to_stored, to_served }),
    ..ROW
};

/// Field names: as served in `events.k8s.io`, and as kept.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Longest note, in bytes.
const NOTE_MAX_BYTES: usize = 1024;
/// Longest reason, action and name of a reporting instance, in bytes.
const WORD_MAX_BYTES: usize = 128;

fn renamed(
    event: Value,
    api_version: &str,
    rename: impl Fn(&str) -> Option<&'static str>,
) -> Value {
    let Value::Object(fields) = event else { return event };
    let mut renamed = Map::new();
    for (name, value) in fields {
        let name = rename(&name).map_or(name, str::to_owned);
        renamed.insert(name, value);
    }
    renamed.insert("apiVersion".to_owned(), api_version.into());
    Value::Object(renamed)
}

/// A core Event of one of `events.k8s.io`.
#[must_use]
pub fn to_stored(event: Value) -> Value {
    renamed(event, "v1", |name| {
        NAMES.iter().find(|(served, _)| *served == name).map(|(_, stored)| *stored)
    })
}

/// An Event of `events.k8s.io` of a core one.
#[must_use]
pub fn to_served(event: Value) -> Value {
    renamed(event, "events.k8s.io/v1", |name| {
        NAMES.iter().find(|(_, stored)| *stored == name).map(|(served, _)| *served)
    })
}

fn row_of_served(event: &Value, now: jiff::Timestamp) -> Vec<Value> {
    print::event_row(&to_stored(event.clone()), now)
}

/// An Event lives where the object is that it is about; what has no namespace is told in `default`.
fn core_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let involved = root.get("involvedObject");
    place_rules(root.at(), involved, &mut errors);
    errors
}

fn place_rules(root: At<'_, '_>, involved: At<'_, '_>, errors: &mut Errors) {
    let metadata = root.get("metadata");
    let (here, there) = (metadata.get("namespace").text(), involved.get("namespace"));
    if there.text().is_empty() {
        if here != "default" && !here.is_empty() {
            errors.push(there.invalid("does not match event.namespace"));
        }
    } else if there.text() != here {
        errors.push(there.invalid("does not match event.namespace"));
    }
}

fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let regarding = root.get("regarding");
    place_rules(root.at(), regarding, &mut errors);
    if root.get("eventTime").text().is_empty() {
        errors.push(root.get("eventTime").required(""));
    }
    if !matches!(root.get("type").text(), "Normal" | "Warning") {
        let why = "has invalid value: ".to_owned() + root.get("type").text();
        errors.push(root.get("type").invalid(&why));
    }
    checks::required_name(root.get("reportingController"), names::qualified_name, &mut errors);
    for field in ["reportingInstance", "action", "reason"] {
        let place = root.get(field);
        if checks::required(place, &mut errors) && place.text().len() > WORD_MAX_BYTES {
            errors.push(place.invalid("can have at most 128 characters"));
        }
    }
    if root.get("note").text().len() > NOTE_MAX_BYTES {
        errors.push(root.get("note").invalid("can have at most 1024 characters"));
    }
    errors
}

fn update_rules(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    for field in [
        "regarding",
        "reason",
        "note",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingController",
        "reportingInstance",
    ] {
        checks::unchanged(new.get(field), old.get(field).unwrap_or(&Value::Null), &mut errors);
    }
    errors
}
