//! The row of PriorityClasses.

use serde_json::Value;

use super::{
    ROW,
    checks::{self, Errors},
    field::At,
    set_default,
};
use crate::{
    print::cluster as print,
    resource::{BuiltIn, Strategy},
};

/// PriorityClasses.
pub static PRIORITY_CLASS: BuiltIn = BuiltIn {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    list_kind: "PriorityClassList",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    strategy: Strategy { counts_generation: true, ..super::DATA },
    columns: print::PRIORITY_CLASS,
    row: print::priority_class_row,
    message: "scheduling.PriorityClass",
    default: defaults,
    validate: rules,
    validate_update: update_rules,
    ..ROW
};

/// Highest priority that is not the system's own.
pub const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
/// The system's own classes, and what they are worth.
pub const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

fn defaults(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    set_default(fields, "preemptionPolicy", "PreemptLowerPriority");
    set_default(fields, "value", 0);
}

fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let metadata = root.get("metadata");
    let (name, value) = (metadata.get("name"), root.get("value"));
    let number = value.number().unwrap_or(0);
    if name.text().starts_with("system-") {
        let known =
            SYSTEM_CLASSES.iter().any(|(class, worth)| *class == name.text() && *worth == number);
        if !known {
            errors.push(name.forbidden(
                "priority class names with 'system-' prefix are reserved for system use only. \
                 error: not a system class",
            ));
        }
    } else if number > HIGHEST_USER_PRIORITY {
        errors.push(value.forbidden(&format!(
            "maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        )));
    }
    checks::choice(root.get("preemptionPolicy"), &["Never", "PreemptLowerPriority"], &mut errors);
    errors
}

fn update_rules(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    if new.get("value").number() != old.get("value").and_then(Value::as_i64) {
        errors.push(new.get("value").forbidden("may not be changed in an update."));
    }
    let old = old.get("preemptionPolicy").unwrap_or(&Value::Null);
    checks::unchanged(new.get("preemptionPolicy"), old, &mut errors);
    errors
}
