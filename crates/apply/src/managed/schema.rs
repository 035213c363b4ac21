//! What a merge must know of each place of an object: is it one thing, or do its parts have owners
//! of their own, and what tells the items of a list apart.
//!
//! A [`Place`] comes from the resource table (`built_in`), from an OpenAPI schema with Kubernetes'
//! extensions ([`Place::of_open_api`]), or from nothing at all ([`Place::of_unknown`]).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::Element;

/// How deep an OpenAPI schema is followed; below, nothing is known. No kind comes near it.
pub const SCHEMA_MAX_DEPTH: usize = 64;

/// How a place of an object is merged. A value that has not the shape of its place (a text where a
/// list is expected) is one thing.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// One thing: a scalar, an atomic list, an atomic map.
    Atomic,
    /// Nothing is known: each key of a map has its owner, a list is one thing.
    Deduced,
    /// A type of which only this is known: its maps have named fields, its lists are one thing.
    Open,
    /// A map whose parts have owners.
    Map(MapPlace),
    /// A list whose items are scalars, each there once.
    Set,
    /// A list of maps, told apart by keys.
    List(ListPlace),
}

/// A map whose parts have owners.
#[derive(Debug, Clone, PartialEq)]
pub struct MapPlace {
    /// The fields that are named in the type.
    pub fields: BTreeMap<Box<str>, Place>,
    /// What is under all other names.
    pub rest: Box<Place>,
    /// Whether the map is there even if it is empty, as those are that Kubernetes' types embed by
    /// value (`spec`, `metadata`). Nobody adds or removes such a place.
    pub always: bool,
}

/// A list of maps, told apart by keys.
#[derive(Debug, Clone, PartialEq)]
pub struct ListPlace {
    /// The fields that together tell an item.
    pub keys: Vec<ListKey>,
    /// Its items.
    pub item: Box<Place>,
}

/// A field that tells items apart.
#[derive(Debug, Clone, PartialEq)]
pub struct ListKey {
    /// Name of the field.
    pub name: Box<str>,
    /// What it is if it is left out.
    pub default: Option<Value>,
}

impl Place {
    /// A map of which nothing is known but that it is an object of the API.
    #[must_use]
    pub fn of_unknown() -> Self {
        Self::map([], Self::Deduced).with_metadata()
    }

    pub(super) fn map<const N: usize>(fields: [(&str, Self); N], rest: Self) -> Self {
        let fields = fields.into_iter().map(|(name, place)| (name.into(), place)).collect();
        Self::Map(MapPlace { fields, rest: Box::new(rest), always: false })
    }

    pub(super) fn list(keys: &[(&str, Option<&str>)], item: Self) -> Self {
        let key = |(name, default): &(&str, Option<&str>)| ListKey {
            name: (*name).into(),
            default: default.map(Value::from),
        };
        Self::List(ListPlace { keys: keys.iter().map(key).collect(), item: Box::new(item) })
    }

    /// What an object's field is, and whether the type names it. A named field that holds a map or
    /// a list is owned through its parts; under other names the place itself has an owner too.
    pub(super) fn child(&self, name: &str) -> (&Self, bool) {
        match self {
            Self::Map(map) => match map.fields.get(name) {
                Some(place) => (place, true),
                None => (&map.rest, matches!(*map.rest, Self::Open)),
            },
            Self::Open => (&Self::Open, true),
            Self::Deduced => (&Self::Deduced, false),
            Self::List(_) | Self::Set | Self::Atomic => (&Self::Atomic, false),
        }
    }

    /// What the items of a list are.
    pub(super) fn item(&self) -> &Self {
        match self {
            Self::List(list) => &list.item,
            _ => &Self::Atomic,
        }
    }

    /// What is under a step of a path, and whether the step is a field that the type names.
    pub(super) fn step(&self, element: &Element) -> (&Self, bool) {
        match element {
            Element::Field(name) => self.child(name),
            _ => (self.item(), false),
        }
    }

    /// Whether the fields of a value here have owners of their own.
    pub(super) fn divides_maps(&self) -> bool {
        matches!(self, Self::Map(_) | Self::Open | Self::Deduced)
    }

    pub(super) fn is_always_there(&self) -> bool {
        matches!(self, Self::Map(map) if map.always)
    }

    /// The place of an object of a custom resource: `schema` is its `openAPIV3Schema`.
    #[must_use]
    pub fn of_open_api(schema: &Value) -> Self {
        open_api(schema, SCHEMA_MAX_DEPTH).with_metadata()
    }

    /// With `metadata` as every object has it, whatever the schema says.
    fn with_metadata(self) -> Self {
        match self {
            Self::Map(mut map) => {
                map.fields.insert("metadata".into(), super::built_in::metadata());
                Self::Map(map)
            }
            other => Self::map([("metadata", super::built_in::metadata())], other),
        }
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn word<'v>(schema: &'v Value, name: &str) -> Option<&'v str> {
    schema.get(name).and_then(Value::as_str)
}

fn open_api(schema: &Value, depth_left: usize) -> Place {
    let Some(depth_left) = depth_left.checked_sub(1) else { return Place::Deduced };
    if flag(schema, "x-kubernetes-int-or-string") {
        return Place::Atomic;
    }
    match word(schema, "type") {
        Some("object") => open_api_map(schema, depth_left),
        Some("array") => open_api_list(schema, depth_left),
        Some(_) => Place::Atomic,
        None if schema.get("properties").is_some() => open_api_map(schema, depth_left),
        None => Place::Deduced,
    }
}

fn open_api_map(schema: &Value, depth_left: usize) -> Place {
    if word(schema, "x-kubernetes-map-type") == Some("atomic") {
        return Place::Atomic;
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let fields = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| (name.as_str().into(), open_api(schema, depth_left)))
        .collect();
    let rest = match schema.get("additionalProperties") {
        Some(rest @ Value::Object(_)) => open_api(rest, depth_left),
        _ => Place::Deduced,
    };
    Place::Map(MapPlace { fields, rest: Box::new(rest), always: false })
}

fn open_api_list(schema: &Value, depth_left: usize) -> Place {
    let items = schema.get("items");
    match word(schema, "x-kubernetes-list-type") {
        Some("set") => Place::Set,
        Some("map") => {
            let key = |name: &str| ListKey {
                name: name.into(),
                default: items
                    .and_then(|items| items.get("properties")?.get(name)?.get("default"))
                    .cloned(),
            };
            let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let names = names.into_iter().flatten().filter_map(Value::as_str);
            let item = items.map_or(Place::Deduced, |items| open_api(items, depth_left));
            Place::List(ListPlace { keys: names.map(key).collect(), item: Box::new(item) })
        }
        _ => Place::Atomic,
    }
}

/// An item of a list cannot be told from others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// It is no map.
    #[error("associative list with keys may not have a non-map element")]
    NoMap,
    /// It has none of the keys.
    #[error(
        "associative list with keys has an element that omits all key fields {0:?} (and doesn't \
         have default values for any key fields)"
    )]
    NoKey(Vec<String>),
    /// It is no scalar.
    #[error("associative list without keys has an element that's a list, a map or null")]
    NoScalar,
}

impl Place {
    /// What tells an item of a list here from the others.
    pub(super) fn identity(&self, item: &Value) -> Result<Element, ItemError> {
        match (self, item) {
            (Self::List(list), Value::Object(item)) => list.identity(item),
            (Self::List(_), _) => Err(ItemError::NoMap),
            (_, Value::Array(_) | Value::Object(_) | Value::Null) => Err(ItemError::NoScalar),
            (_, scalar) => Ok(Element::value(scalar)),
        }
    }
}

impl ListPlace {
    fn identity(&self, item: &Map<String, Value>) -> Result<Element, ItemError> {
        let values: BTreeMap<&str, &Value> = self
            .keys
            .iter()
            .filter_map(|key| {
                let value = item.get(&*key.name).or(key.default.as_ref())?;
                Some((&*key.name, value))
            })
            .collect();
        if values.is_empty() {
            let keys = self.keys.iter().map(|key| key.name.to_string()).collect();
            return Err(ItemError::NoKey(keys));
        }
        Ok(Element::key(&values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_open_api_schema_says_how_to_merge() {
        let place = Place::of_open_api(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "ports": {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {"type": "object", "properties": {
                        "port": {"type": "integer"},
                        "protocol": {"type": "string", "default": "TCP"}}}},
                "hosts": {"type": "array", "x-kubernetes-list-type": "set",
                    "items": {"type": "string"}},
                "args": {"type": "array", "items": {"type": "string"}},
                "ref": {"type": "object", "x-kubernetes-map-type": "atomic"},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "amount": {"x-kubernetes-int-or-string": true},
            }},
        }}));
        let (spec, named) = place.child("spec");
        assert!(named);
        let ports = spec.child("ports").0;
        assert_eq!(
            ports.identity(&json!({"port": 80})).unwrap().encode(),
            r#"k:{"port":80,"protocol":"TCP"}"#
        );
        assert_eq!(ports.identity(&json!(1)), Err(ItemError::NoMap));
        assert_eq!(spec.child("hosts").0, &Place::Set);
        assert_eq!(spec.child("args").0, &Place::Atomic);
        assert_eq!(spec.child("ref").0, &Place::Atomic);
        assert_eq!(spec.child("amount").0, &Place::Atomic);
        assert_eq!(spec.child("any").0.child("x"), (&Place::Deduced, false));
        assert_eq!(spec.child("labels").0.child("a"), (&Place::Atomic, false));
        assert_eq!(spec.child("unlisted"), (&Place::Deduced, false));
        let finalizers = place.child("metadata").0.child("finalizers").0;
        assert_eq!(finalizers, &Place::Set);
    }

    #[test]
    fn a_list_without_keys_has_no_items() {
        let place = Place::of_open_api(&json!({"type": "object", "properties": {
            "x": {"type": "array", "x-kubernetes-list-type": "map"}}}));
        assert!(place.child("x").0.identity(&json!({"a": 1})).is_err());
    }
}
