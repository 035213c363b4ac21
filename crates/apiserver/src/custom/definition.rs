//! CustomResourceDefinitions as a kind: the table's row, with the rules that need compiled schemas.

use jiff::Timestamp;
use serde_json::{Value, json};
use toono_api::{
    BuiltIn, FieldError,
    decode::{DecodeError, Decoded},
    meta::{items_at, text_at},
    resource::Behaviour,
};

use super::{
    status::set_condition,
    validation,
    view::{FINALIZER, View},
};

/// The kind of definitions.
#[derive(Debug)]
pub(super) struct DefinitionKind(pub(super) &'static BuiltIn);

impl Behaviour for DefinitionKind {
    fn decode(&self, object: Value) -> Result<Decoded, DecodeError> {
        self.0.decode(object)
    }

    fn default(&self, object: &mut Value) {
        self.0.default(object);
        remember_stored_version(object);
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validation::definition(object, old)
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.0.row(object, now)
    }

    /// Objects of the kind go first: the definition waits for them.
    fn begin_deletion(&self, object: &mut Value) {
        let since =
            text_at(object, &["metadata", "deletionTimestamp"]).unwrap_or_default().to_owned();
        if !View(object).waits_for_objects()
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
            if let Some(finalizers) = finalizers.as_array_mut() {
                finalizers.push(FINALIZER.into());
            }
        }
        set_condition(
            object,
            ("Terminating", true),
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            &since,
        );
    }

    fn built_in(&self) -> Option<&'static BuiltIn> {
        Some(self.0)
    }
}

/// Adds the storage version to those in which there may be objects.
fn remember_stored_version(object: &mut Value) {
    let stored = View(object).storage_version().to_owned();
    let is_known = items_at(object, &["status", "storedVersions"]).any(|one| *one == stored);
    if stored.is_empty() || is_known {
        return;
    }
    // A new definition gets its first status after its defaults.
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let versions = status.entry("storedVersions").or_insert_with(|| json!([]));
        if let Some(versions) = versions.as_array_mut() {
            versions.push(stored.into());
        }
    }
}
