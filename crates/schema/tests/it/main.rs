//! What schemas refuse, keep, fill in and publish, told as tables with Kubernetes' texts.

#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that finds something else than it expects has failed"
)]

mod columns;
mod compile;
mod properties;
mod pruning;
mod publish;
mod rules;
mod values;

use serde_json::Value;
use toono_schema::{Budget, FieldError, Schema};

/// A JSON value from YAML.
pub fn yaml(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

/// A schema whose `spec` is `text`.
pub fn schema(text: &str) -> Schema {
    compile(text).unwrap_or_else(|errors| panic!("{errors:#?} in\n{text}"))
}

/// Compiles a schema whose `spec` is `text`.
pub fn compile(text: &str) -> Result<Schema, Vec<FieldError>> {
    let spec = yaml(text);
    let raw = serde_json::json!({"type": "object", "properties": {"spec": spec}});
    Schema::compile(&raw, "schema")
}

/// The texts of errors, in order.
pub fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What is wrong with an object of this `spec`, after defaulting.
pub fn faults(schema: &Schema, spec: &str) -> Vec<String> {
    faults_since(schema, spec, None)
}

/// What is wrong with an object of this `spec` that was another before.
pub fn faults_since(schema: &Schema, spec: &str, old: Option<&str>) -> Vec<String> {
    let object = |spec: &str| {
        let mut object = serde_json::json!({"spec": yaml(spec)});
        schema.default(&mut object);
        object
    };
    let old = old.map(object);
    texts(&schema.validate(&object(spec), old.as_ref(), &Budget::default()))
}
