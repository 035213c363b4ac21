//! What is particular to a custom kind: everything goes by its schema.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Map, Value};
use toono_api::{
    FieldError,
    decode::{DecodeError, Decoded, decode},
    error::FieldReason,
    meta::text_at,
    place::{Place, SchemaPlace},
    print::human_duration,
    resource::{Behaviour, Scale},
};
use toono_schema::{Budget, Cell, Column, FieldErrorKind, PublishedKind, ScalePaths, Schema};

use crate::encode;

/// Longest that the rules of one write may take; Kubernetes bounds their cost instead.
const RULES_TIME_MAX: Duration = Duration::from_secs(1);

/// One version of a custom kind.
#[derive(Debug)]
pub(super) struct CustomKind {
    pub(super) api_version: String,
    pub(super) stored_api_version: String,
    /// Absent where the stored definition no longer compiles: objects can then only be removed.
    pub(super) schema: Option<Schema>,
    /// How objects are merged and their fields owned.
    pub(super) place: SchemaPlace,
    pub(super) published: PublishedKind,
    /// Without the first one, the name.
    pub(super) columns: Vec<Column>,
    pub(super) scale: Option<ScalePaths>,
    pub(super) warning: Option<String>,
    /// Whether stored objects may differ from served ones.
    pub(super) converts: bool,
}

impl Behaviour for CustomKind {
    fn decode(&self, mut object: Value) -> Result<Decoded, DecodeError> {
        let mut unknown_fields = Vec::new();
        let metadata = object.get_mut("metadata").map(Value::take);
        if let Some(metadata) = metadata {
            let decoded = decode("meta.ObjectMeta", metadata)?;
            unknown_fields
                .extend(decoded.unknown_fields.into_iter().map(|path| format!("metadata.{path}")));
            encode::set(&mut object, "metadata", decoded.object);
        }
        if let Some(schema) = &self.schema {
            // Nulls fall out, and unknown fields in defaults were refused with the schema.
            schema.default(&mut object);
            unknown_fields.extend(schema.prune(&mut object).into_iter().map(|field| field.0));
        }
        Ok(Decoded { object, unknown_fields })
    }

    fn default(&self, object: &mut Value) {
        if let Some(schema) = &self.schema {
            schema.default(object);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let Some(schema) = &self.schema else { return Vec::new() };
        let deadline = Instant::now() + RULES_TIME_MAX;
        let stop = Arc::new(move || Instant::now() > deadline);
        let budget = Budget { stop: Some(stop), ..Budget::default() };
        schema.validate(object, old, &budget).into_iter().map(field_error).collect()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = text_at(object, &["metadata", "name"]).unwrap_or_default();
        let cells = self.columns.iter().map(|column| cell(column.cell(object), now));
        std::iter::once(name.into()).chain(cells).collect()
    }

    fn converts(&self) -> bool {
        self.converts
    }

    fn to_stored(&self, mut object: Value) -> Value {
        encode::set(&mut object, "apiVersion", self.stored_api_version.as_str());
        object
    }

    fn to_served(&self, mut object: Value) -> Value {
        encode::set(&mut object, "apiVersion", self.api_version.as_str());
        if let Some(schema) = &self.schema {
            schema.default(&mut object);
            schema.prune(&mut object);
        }
        object
    }

    fn place(&self) -> Place<'_> {
        self.place.place()
    }

    fn components(&self) -> Map<String, Value> {
        let schema = self.schema.as_ref();
        schema.map(|schema| schema.openapi_components(&self.published)).unwrap_or_default()
    }

    fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn scale(&self, object: &Value) -> Option<Scale> {
        let paths = self.scale.as_ref()?;
        Some(Scale {
            wanted: paths.replicas(object)?,
            present: paths.status_replicas(object),
            selector: paths.selector(object).to_owned(),
        })
    }

    fn set_replicas(&self, object: &mut Value, replicas: i64) -> bool {
        self.scale.as_ref().is_some_and(|paths| paths.set_replicas(object, replicas))
    }
}

/// A fault that the schema found, as the API tells it.
pub(super) fn field_error(error: toono_schema::FieldError) -> FieldError {
    let reason = match error.kind {
        FieldErrorKind::Required => FieldReason::Required,
        FieldErrorKind::Invalid => FieldReason::Invalid,
        FieldErrorKind::TypeInvalid => FieldReason::TypeInvalid,
        FieldErrorKind::NotSupported => FieldReason::NotSupported,
        FieldErrorKind::Duplicate => FieldReason::Duplicate,
        FieldErrorKind::Forbidden => FieldReason::Forbidden,
        FieldErrorKind::TooLong => FieldReason::TooLong,
        FieldErrorKind::TooMany => FieldReason::TooMany,
        FieldErrorKind::Internal => FieldReason::Internal,
    };
    FieldError { reason, field: error.field, message: error.message }
}

fn cell(cell: Cell, now: Timestamp) -> Value {
    match cell {
        Cell::Empty => Value::Null,
        Cell::Value(value) => value,
        Cell::Time(moment) => human_duration(now.as_second() - moment).into(),
        Cell::InvalidTime => "<invalid>".into(),
    }
}

/// No status until the kind's controller writes one.
pub(super) fn no_status(_: &Value) -> Value {
    Value::Null
}

/// The status that the client sent, where the kind does not keep it apart.
pub(super) fn sent_status(object: &Value) -> Value {
    object.get("status").cloned().unwrap_or(Value::Null)
}
