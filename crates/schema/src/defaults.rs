//! Fills in defaults. Nulls that a schema does not allow are as if absent, as in Kubernetes.

use serde_json::Value;

use crate::node::{Additional, Node};

/// Applies defaults below `node`: a null that the schema does not allow becomes its default or goes
/// away, then each absent property that has a default is set. In a list such a null stays if there
/// is no default, as the places of the other entries must not change.
pub(crate) fn apply(value: &mut Value, node: &Node) {
    match value {
        Value::Array(items) => {
            let Some(schema) = &node.items else { return };
            for item in items {
                if let (true, Some(default)) = (is_refused(item, schema), &schema.default) {
                    *item = (**default).clone();
                }
                apply(item, schema);
            }
        }
        Value::Object(map) => {
            map.retain(|name, value| {
                let schema = node.child(name);
                let Some(schema) = schema.filter(|schema| is_refused(value, schema)) else {
                    return true;
                };
                if let Some(default) = &schema.default {
                    *value = (**default).clone();
                }
                schema.default.is_some()
            });
            for (name, schema) in &node.properties {
                if let Some(default) = &schema.default
                    && !map.contains_key(name.as_ref())
                {
                    map.insert(name.to_string(), (**default).clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(schema) = node.child(name) {
                    apply(value, schema);
                }
            }
        }
        _ => {}
    }
}

fn is_refused(value: &Value, schema: &Node) -> bool {
    value.is_null() && !schema.nullable
}

/// Whether anything below the node has a default.
pub(crate) fn any(node: &Node) -> bool {
    node.default.is_some()
        || node.properties.iter().any(|(_, child)| any(child))
        || node.items.as_deref().is_some_and(any)
        || matches!(&node.additional, Additional::Of(child) if any(child))
}
