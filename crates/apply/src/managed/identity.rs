//! What tells the items of a list from each other.

use serde_json::{Map, Value};
use toono_api::place::{Key, KeyDefault, List, Place};

use super::{path::Element, plain};

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

/// What tells an item of a list at a place from the others.
pub(super) fn identity(place: Place<'_>, item: &Value) -> Result<Element, ItemError> {
    match (place, item) {
        (Place::List(list), Value::Object(item)) => of_map(list, item),
        (Place::List(_), _) => Err(ItemError::NoMap),
        (_, Value::Array(_) | Value::Object(_) | Value::Null) => Err(ItemError::NoScalar),
        (_, scalar) => Ok(Element::value(scalar)),
    }
}

fn of_map(list: List<'_>, item: &Map<String, Value>) -> Result<Element, ItemError> {
    let mut given: Vec<(&str, Given<'_>)> = Vec::with_capacity(2);
    for Key { name, default } in list.keys() {
        let value = match (item.get(name), default) {
            (Some(value), _) | (None, Some(KeyDefault::Value(value))) => Given::Value(value),
            (None, Some(KeyDefault::Text(text))) => Given::Text(text),
            (None, None) => continue,
        };
        given.push((name, value));
    }
    if given.is_empty() {
        return Err(ItemError::NoKey(list.keys().map(|key| key.name.to_owned()).collect()));
    }
    given.sort_unstable_by_key(|(name, _)| *name);
    let mut key = String::with_capacity(64);
    for (name, value) in given {
        key.push(if key.is_empty() { '{' } else { ',' });
        plain::write_text(&mut key, name);
        key.push(':');
        match value {
            Given::Value(value) => plain::write_value(&mut key, value),
            Given::Text(text) => plain::write_text(&mut key, text),
        }
    }
    key.push('}');
    Ok(Element::Key(key.as_str().into()))
}

/// What an item gives for a key, or what stands for it.
enum Given<'v> {
    Value(&'v Value),
    Text(&'v str),
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toono_api::{BuiltIn, kinds, place::SchemaPlace};

    use super::*;

    /// The place at a path of fields; `*` stands for the items of a list.
    fn at<'p>(place: Place<'p>, path: &str) -> Place<'p> {
        path.split('.').fold(place, |place, step| match step {
            "*" => place.item(),
            name => place.field(name).unwrap().place,
        })
    }

    #[test]
    fn items_of_built_in_kinds_are_told_by_their_keys() {
        let deployment = &kinds::workload::DEPLOYMENT;
        let table: [(&BuiltIn, &str, Value, &str); 5] = [
            (
                deployment,
                "spec.template.spec.containers.*.ports",
                json!({"containerPort": 80}),
                r#"k:{"containerPort":80,"protocol":"TCP"}"#,
            ),
            (
                &kinds::pod::POD,
                "spec.initContainers.*.env",
                json!({"name": "A", "value": "1"}),
                r#"k:{"name":"A"}"#,
            ),
            (
                &kinds::core::SERVICE,
                "spec.ports",
                json!({"port": 53, "protocol": "UDP"}),
                r#"k:{"port":53,"protocol":"UDP"}"#,
            ),
            (
                &kinds::pod::POD,
                "spec.topologySpreadConstraints",
                json!({"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}),
                r#"k:{"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule"}"#,
            ),
            (
                &kinds::core::NODE,
                "status.conditions",
                json!({"type": "Ready"}),
                r#"k:{"type":"Ready"}"#,
            ),
        ];
        for (row, list, item, expected) in table {
            assert_eq!(identity(at(row.place(), list), &item).unwrap().encode(), expected);
        }
        for path in [
            "spec.selector",
            "spec.template.spec.nodeSelector",
            "spec.template.spec.containers.*.env.*.valueFrom.secretKeyRef",
            "metadata.ownerReferences.*",
        ] {
            assert!(matches!(at(deployment.place(), path), Place::Atomic), "{path}");
        }
        assert!(at(deployment.place(), "spec.template").is_always_there());
        assert!(!at(deployment.place(), "spec.strategy.rollingUpdate").is_always_there());
        for row in kinds::RESOURCES {
            assert!(
                matches!(at(row.place(), "metadata.finalizers"), Place::Set),
                "{} has no metadata",
                row.kind
            );
        }
    }

    #[test]
    fn an_open_api_schema_says_how_to_merge() {
        let schema = SchemaPlace::of_open_api(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "ports": {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {"type": "object", "properties": {
                        "port": {"type": "integer"},
                        "protocol": {"type": "string", "default": "TCP"}}}},
                "keyless": {"type": "array", "x-kubernetes-list-type": "map"},
                "hosts": {"type": "array", "x-kubernetes-list-type": "set",
                    "items": {"type": "string"}},
                "args": {"type": "array", "items": {"type": "string"}},
                "ref": {"type": "object", "x-kubernetes-map-type": "atomic"},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "amount": {"x-kubernetes-int-or-string": true},
            }},
        }}));
        let place = schema.place();
        assert!(place.field("spec").unwrap().named);
        let spec = at(place, "spec");
        let ports = at(spec, "ports");
        assert_eq!(
            identity(ports, &json!({"port": 80})).unwrap().encode(),
            r#"k:{"port":80,"protocol":"TCP"}"#
        );
        assert_eq!(identity(ports, &json!(1)), Err(ItemError::NoMap));
        assert!(identity(at(spec, "keyless"), &json!({"a": 1})).is_err());
        assert!(matches!(at(spec, "hosts"), Place::Set));
        for atomic in ["args", "ref", "amount"] {
            assert!(matches!(at(spec, atomic), Place::Atomic), "{atomic}");
        }
        assert!(matches!(at(spec, "any.x"), Place::Deduced));
        assert!(matches!(at(spec, "labels.a"), Place::Atomic));
        assert!(!at(spec, "labels").field("a").unwrap().named);
        assert!(spec.field("unlisted").is_none());
        assert!(matches!(at(place, "metadata.finalizers"), Place::Set));
    }
}
