//! Fills in defaults. Nulls that a schema does not allow are as if absent, as in Kubernetes.

use serde_json::Value;

use crate::node::Node;

/// Applies defaults below `node`: first drops each null of a property that is not nullable, then
/// sets each absent property that has a default.
pub(crate) fn apply(value: &mut Value, node: &Node) {
    match value {
        Value::Array(items) => {
            if let Some(schema) = &node.items {
                items.iter_mut().for_each(|item| apply(item, schema));
            }
        }
        Value::Object(map) => {
            map.retain(|name, value| {
                let refused = |schema: &Node| !schema.nullable && !allows_any(schema);
                !(value.is_null() && node.child(name).is_some_and(refused))
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

/// A node without a type takes any value, null too.
fn allows_any(node: &Node) -> bool {
    node.kind.is_none() && !node.int_or_string && node.default.is_none()
}
