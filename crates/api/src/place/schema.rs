//! What an OpenAPI schema with Kubernetes' extensions says of merging.
//!
//! It keeps that and nothing else of the schema, so that it can be held for as long as the kind is
//! served.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Place;

/// How deep an OpenAPI schema is followed; below, nothing is known. No kind comes near it.
pub const SCHEMA_MAX_DEPTH: usize = 64;

/// How a custom resource, or a part of it, is merged: what its OpenAPI schema says of that.
#[derive(Debug, Clone, PartialEq)]
pub enum SchemaPlace {
    /// One thing.
    Atomic,
    /// Nothing is known.
    Deduced,
    /// Named fields.
    Object(Box<ObjectSchema>),
    /// Free names.
    Map(Box<Self>),
    /// Scalars, each there once.
    Set,
    /// Maps, told apart by keys.
    List(Box<ListSchema>),
}

/// A map with named fields, of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectSchema {
    pub(super) fields: BTreeMap<Box<str>, SchemaPlace>,
    /// What is under all other names; `None` if there are none.
    pub(super) rest: Option<SchemaPlace>,
    /// Whether it is an object of the API, with `apiVersion`, `kind` and `metadata`.
    pub(super) whole: bool,
}

/// A list of maps, of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct ListSchema {
    pub(super) keys: Vec<(Box<str>, Option<Value>)>,
    pub(super) item: SchemaPlace,
}

// === impl SchemaPlace ===

impl SchemaPlace {
    /// How objects of a custom resource are merged: `schema` is its `openAPIV3Schema`.
    #[must_use]
    pub fn of_open_api(schema: &Value) -> Self {
        match open_api(schema, SCHEMA_MAX_DEPTH) {
            Self::Object(mut object) => {
                object.whole = true;
                Self::Object(object)
            }
            _ => Self::Object(Box::new(ObjectSchema {
                fields: BTreeMap::new(),
                rest: Some(Self::Deduced),
                whole: true,
            })),
        }
    }

    /// The place that it describes.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        match self {
            Self::Atomic => Place::Atomic,
            Self::Deduced => Place::Deduced,
            Self::Object(schema) => Place::of_object_schema(schema),
            Self::Map(values) => Place::of_values(values),
            Self::Set => Place::Set,
            Self::List(list) => Place::of_list_schema(list),
        }
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn word<'v>(schema: &'v Value, name: &str) -> Option<&'v str> {
    schema.get(name).and_then(Value::as_str)
}

fn open_api(schema: &Value, depth_left: usize) -> SchemaPlace {
    let Some(depth_left) = depth_left.checked_sub(1) else { return SchemaPlace::Deduced };
    if flag(schema, "x-kubernetes-int-or-string") {
        return SchemaPlace::Atomic;
    }
    match word(schema, "type") {
        Some("object") => open_api_map(schema, depth_left),
        Some("array") => open_api_list(schema, depth_left),
        Some(_) => SchemaPlace::Atomic,
        None if schema.get("properties").is_some() => open_api_map(schema, depth_left),
        None => SchemaPlace::Deduced,
    }
}

fn open_api_map(schema: &Value, depth_left: usize) -> SchemaPlace {
    if word(schema, "x-kubernetes-map-type") == Some("atomic") {
        return SchemaPlace::Atomic;
    }
    if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
        return SchemaPlace::Map(Box::new(open_api(values, depth_left)));
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return SchemaPlace::Deduced;
    };
    let fields = properties
        .iter()
        .map(|(name, schema)| (name.as_str().into(), open_api(schema, depth_left)))
        .collect();
    let open = flag(schema, "x-kubernetes-preserve-unknown-fields")
        || flag(schema, "additionalProperties");
    SchemaPlace::Object(Box::new(ObjectSchema {
        fields,
        rest: open.then_some(SchemaPlace::Deduced),
        whole: flag(schema, "x-kubernetes-embedded-resource"),
    }))
}

fn open_api_list(schema: &Value, depth_left: usize) -> SchemaPlace {
    let items = schema.get("items");
    match word(schema, "x-kubernetes-list-type") {
        Some("set") => SchemaPlace::Set,
        Some("map") => {
            let default = |name: &str| {
                items.and_then(|items| items.get("properties")?.get(name)?.get("default")).cloned()
            };
            let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let names = names.into_iter().flatten().filter_map(Value::as_str);
            SchemaPlace::List(Box::new(ListSchema {
                keys: names.map(|name| (name.into(), default(name))).collect(),
                item: items.map_or(SchemaPlace::Deduced, |items| open_api(items, depth_left)),
            }))
        }
        _ => SchemaPlace::Atomic,
    }
}
