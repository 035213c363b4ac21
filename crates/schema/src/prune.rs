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
pub(crate) const IMPLICIT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes an object below `node`, which is a whole object (`apiVersion`, `kind`, `metadata` stay)
/// if `whole`. At most [`MAX_ERRORS`] of the removed fields are named.
pub(crate) fn prune(value: &mut Value, node: &Node, whole: bool) -> Vec<UnknownField> {
    let mut pruner = Pruner { unknown: Vec::new() };
    pruner.below(value, Some(node), whole, false, &Path::root(""));
    pruner.unknown
}

struct Pruner {
    unknown: Vec<UnknownField>,
}

impl Pruner {
    /// Without a schema no field of an object is known. `keep` is set inside a list of a node that
    /// preserves unknown fields: its entries keep theirs, fields that are known are pruned.
    fn below(
        &mut self,
        value: &mut Value,
        node: Option<&Node>,
        whole: bool,
        keep: bool,
        path: &Path<'_>,
    ) {
        let keep = keep || node.is_some_and(|node| node.preserve_unknown);
        match value {
            Value::Array(items) => {
                let schema = node.and_then(|node| node.items.as_deref());
                if keep && schema.is_none() {
                    return;
                }
                let whole = schema.is_some_and(|schema| schema.embedded);
                for (index, item) in items.iter_mut().enumerate() {
                    self.below(item, schema, whole, keep, &path.index(index));
                }
            }
            Value::Object(map) => map.retain(|name, value| {
                // An object's metadata has a type of its own, whatever a schema says of it.
                if whole && IMPLICIT.contains(&name.as_str()) {
                    return true;
                }
                let at = path.field(name);
                let known =
                    node.is_some_and(|node| !matches!(node.additional, Additional::Unspecified));
                match node.and_then(|node| node.child(name)) {
                    Some(schema) => self.below(value, Some(schema), schema.embedded, false, &at),
                    // Any value may stand here, but what is inside an object is not known.
                    None if known => self.below(value, None, false, false, &at),
                    None if keep => {}
                    None => {
                        if self.unknown.len() < MAX_ERRORS {
                            self.unknown.push(UnknownField(at.to_string()));
                        }
                        return false;
                    }
                }
                true
            }),
            _ => {}
        }
    }
}
