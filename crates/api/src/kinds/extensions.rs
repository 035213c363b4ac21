//! The row of CustomResourceDefinitions. What their schemas may say is judged where schemas are.

use serde_json::{Value, json};

use super::{ROW, SPEC_AND_STATUS, admission, map_in, set_default, status_of};
use crate::{
    meta::{items_at, text_at},
    resource::{BuiltIn, Strategy},
};

/// CustomResourceDefinitions.
pub static CUSTOM_RESOURCE_DEFINITION: BuiltIn = BuiltIn {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    list_kind: "CustomResourceDefinitionList",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[status_of("apiextensions.k8s.io", "v1", "CustomResourceDefinition")],
    strategy: Strategy { initial_status: first_status, ..SPEC_AND_STATUS },
    message: "apiextensions.CustomResourceDefinition",
    default: defaults,
    ..ROW
};

fn defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    let conversion = spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    if let Some(webhook) = conversion.get_mut("webhook").and_then(Value::as_object_mut) {
        admission::service_defaults(webhook);
    }
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else { return };
    let Some(kind) = names.get("kind").and_then(Value::as_str).map(str::to_owned) else { return };
    set_default(names, "singular", kind.to_lowercase());
    set_default(names, "listKind", format!("{kind}List"));
}

/// The version that is stored from the beginning is known from the beginning.
fn first_status(object: &Value) -> Value {
    let stored: Vec<&str> = items_at(object, &["spec", "versions"])
        .filter(|version| version.get("storage") == Some(&Value::Bool(true)))
        .filter_map(|version| text_at(version, &["name"]))
        .collect();
    json!({"storedVersions": stored})
}
