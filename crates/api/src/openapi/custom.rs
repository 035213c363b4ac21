//! Schemas of custom kinds, which are made for version 3, as version 2 can say them.

use serde_json::{Map, Value};

/// A schema without what version 2 does not have. It then says less, never something else.
pub(super) fn in_version_2(schema: Value) -> Value {
    let Value::Object(fields) = schema else { return schema };
    let mut said = Map::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("oneOf" | "anyOf" | "not" | "nullable" | "default", _) => {}
            // How version 3 writes a reference that has something beside it.
            ("allOf", Value::Array(all)) => {
                for part in all.into_iter().filter(|part| part.get("$ref").is_some()) {
                    if let Value::Object(part) = in_version_2(part) {
                        said.extend(part);
                    }
                }
            }
            ("properties", Value::Object(properties)) => {
                let properties =
                    properties.into_iter().map(|(name, value)| (name, in_version_2(value)));
                said.insert(name, properties.collect());
            }
            ("items" | "additionalProperties", value) => {
                said.insert(name, in_version_2(value));
            }
            ("$ref", Value::String(reference)) => {
                let reference = reference.replace("#/components/schemas/", "#/definitions/");
                said.insert(name, reference.into());
            }
            (_, value) => {
                said.insert(name, value);
            }
        }
    }
    Value::Object(said)
}
