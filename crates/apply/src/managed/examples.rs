//! Objects for tests.

use proptest::prelude::*;
use serde_json::Value;

/// Objects with the fields in which places of all forms meet, and with what does not belong there.
pub(super) fn objects() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        "[a\"]{0,2}".prop_map(Value::from),
    ];
    let names = [
        "apiVersion",
        "metadata",
        "name",
        "uid",
        "labels",
        "finalizers",
        "ownerReferences",
        "spec",
        "containers",
        "ports",
        "containerPort",
        "resources",
        "limits",
        "status",
        "conditions",
        "type",
        "unknown",
    ];
    let name = prop::sample::select(names.to_vec()).prop_map(str::to_owned);
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
