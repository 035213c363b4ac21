//! The row of RuntimeClasses.

use serde_json::Value;

use super::{
    ROW,
    checks::{self, Errors},
    field::At,
    limits::canonical,
};
use crate::{names, print::cluster as print, resource::BuiltIn};

/// RuntimeClasses.
pub static RUNTIME_CLASS: BuiltIn = BuiltIn {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    list_kind: "RuntimeClassList",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    columns: print::RUNTIME_CLASS,
    row: print::runtime_class_row,
    message: "node.RuntimeClass",
    default: |object| {
        canonical(object.get_mut("overhead").and_then(|overhead| overhead.get_mut("podFixed")));
    },
    validate: rules,
    validate_update: |new, old| {
        let mut errors = Errors::new();
        let new = At::root(new);
        checks::unchanged(
            new.get("handler"),
            old.get("handler").unwrap_or(&Value::Null),
            &mut errors,
        );
        errors
    },
    ..ROW
};

fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    checks::named(root.get("handler"), names::dns_label, &mut errors);
    let overhead = root.get("overhead");
    checks::amounts(overhead, "podFixed", &mut errors);
    let scheduling = root.get("scheduling");
    checks::labels(scheduling.get("nodeSelector"), &mut errors);
    errors
}
