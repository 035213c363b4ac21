//! Finds what a part of an object was before a write. Only parts that have a name or a key can be
//! followed from one state to the next.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::node::{ListType, Node};

/// The entries of a list as they were before, by their keys; empty for a list without keys.
pub(crate) struct Entries<'v> {
    keys: Box<[Arc<str>]>,
    by_key: HashMap<String, &'v Value>,
}

impl<'v> Entries<'v> {
    /// `node` is the list's own.
    pub(crate) fn of(node: &Node, old: Option<&'v Value>) -> Self {
        let ListType::Map(keys) = &node.list else {
            return Self { keys: Box::default(), by_key: HashMap::new() };
        };
        let schema = node.items.as_deref();
        let old = old.and_then(Value::as_array).into_iter().flatten();
        let keyed = old.filter_map(|item| Some((map_key(item, keys, schema)?.to_string(), item)));
        Self { keys: keys.clone(), by_key: keyed.collect() }
    }

    /// What `item` was, if there was an entry of its keys.
    pub(crate) fn before(&self, item: &Value, schema: &Node) -> Option<&'v Value> {
        if self.by_key.is_empty() {
            return None;
        }
        let key = map_key(item, &self.keys, Some(schema))?.to_string();
        self.by_key.get(&key).copied()
    }
}

/// The fields of an object as they were before, unless the object is replaced as a whole.
pub(crate) fn fields<'v>(node: &Node, old: Option<&'v Value>) -> Option<&'v Map<String, Value>> {
    old.filter(|_| node.atomic_map != Some(true)).and_then(Value::as_object)
}

/// What identifies an entry of a list of type map: the values of its keys, or their defaults.
pub(crate) fn map_key(item: &Value, keys: &[Arc<str>], schema: Option<&Node>) -> Option<Value> {
    let item = item.as_object()?;
    let mut identity = Map::new();
    for key in keys {
        let default =
            || schema.and_then(|node| node.property(key)).and_then(|node| node.default.as_deref());
        if let Some(value) = item.get(key.as_ref()).or_else(default) {
            identity.insert(key.to_string(), value.clone());
        }
    }
    Some(Value::Object(identity))
}
