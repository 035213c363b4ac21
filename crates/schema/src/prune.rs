//! Removes the fields that a schema does not know, and says which.

use std::fmt;

use serde_json::Value;

use crate::error::MAX_ERRORS;
use crate::node::{Additional, Node};
use crate::path::Path;

/// A field that the schema does not know. Shown as `unknown field "spec.foo"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField(pub String);

impl fmt::Display for UnknownField {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "unknown field {:?}", self.0)
    }
}

/// Fields that every object has, whether or not its schema names them.
const IMPLICIT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes an object below `node`, which is a whole object (`apiVersion`, `kind`, `metadata` stay)
/// if `whole`. At most [`MAX_ERRORS`] of the removed fields are named.
pub(crate) fn prune(value: &mut Value, node: &Node, whole: bool) -> Vec<UnknownField> {
    let mut unknown = Vec::new();
    below(value, node, whole, &Path::root(""), &mut unknown);
    unknown
}

fn below(
    value: &mut Value,
    node: &Node,
    whole: bool,
    path: &Path<'_>,
    unknown: &mut Vec<UnknownField>,
) {
    match value {
        Value::Array(items) => {
            let Some(schema) = &node.items else { return };
            for (index, item) in items.iter_mut().enumerate() {
                below(item, schema, schema.embedded, &path.index(index), unknown);
            }
        }
        Value::Object(map) => map.retain(|name, value| {
            // An object's metadata has a type of its own, whatever a schema says of it.
            if whole && IMPLICIT.contains(&name.as_str()) {
                return true;
            }
            let at = path.field(name);
            if let Some(schema) = node.child(name) {
                below(value, schema, schema.embedded, &at, unknown);
                return true;
            }
            if node.preserve_unknown || matches!(node.additional, Additional::Any) {
                return true;
            }
            if unknown.len() < MAX_ERRORS {
                unknown.push(UnknownField(at.to_string()));
            }
            false
        }),
        _ => {}
    }
}
