//! From what a client sent to what may be stored: shape, unknown fields, defaults, rules.

use serde_json::Value;
use toono_api::{ApiError, FieldError, Resource, kinds, meta::text_at};

use crate::{
    encode,
    query::{FieldValidation, WriteOptions},
};

/// Checks the kind that an object says it is, and decodes it: types are right, unknown fields gone.
pub(super) fn decode(
    resource: &Resource,
    mut object: Value,
    options: WriteOptions<'_>,
) -> Result<(Value, Vec<String>), ApiError> {
    if !object.is_object() {
        return Err(ApiError::BadRequest("the body must be an object".to_owned()));
    }
    let expected = resource.api_version();
    for (field, expected, what) in
        [("apiVersion", expected.as_str(), "API version"), ("kind", &*resource.kind, "kind")]
    {
        match text_at(&object, &[field]) {
            None | Some("") => encode::set(&mut object, field, expected),
            Some(given) if given != expected => {
                return Err(ApiError::BadRequest(format!(
                    "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                )));
            }
            Some(_) => {}
        }
    }
    // It is no part of the object, but the record of who wrote it.
    let managed_fields = encode::metadata(&mut object)?.remove("managedFields");
    let mut decoded = resource.behaviour.decode(object).map_err(|error| {
        ApiError::BadRequest(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            resource.kind, resource.version, resource.kind
        ))
    })?;
    if let Some(managed_fields) = managed_fields.filter(Value::is_array) {
        encode::metadata(&mut decoded.object)?.insert("managedFields".to_owned(), managed_fields);
    }
    let repeated = options.repeated.iter().map(|path| format!("duplicate field {path:?}"));
    let unknown = decoded.unknown_fields.iter().map(|path| format!("unknown field {path:?}"));
    let warnings: Vec<String> = repeated.chain(unknown).collect();
    match options.field_validation {
        FieldValidation::Strict if !warnings.is_empty() => Err(ApiError::BadRequest(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            resource.kind,
            resource.version,
            resource.kind,
            warnings.join(", ")
        ))),
        FieldValidation::Ignore => Ok((decoded.object, Vec::new())),
        _ => Ok((decoded.object, warnings)),
    }
}

/// Refuses an object that breaks rules.
pub(super) fn validate(
    resource: &Resource,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    judge(resource, object, resource.behaviour.validate(object, old))
}

/// Refuses an object whose metadata break rules, or that breaks these.
pub(super) fn judge(
    resource: &Resource,
    object: &Value,
    broken: Vec<FieldError>,
) -> Result<(), ApiError> {
    let mut causes: Vec<FieldError> = kinds::metadata::validate(resource, object);
    causes.extend(broken);
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid {
        kind: resource.kind.to_string(),
        group: resource.group.to_string(),
        name: text_at(object, &["metadata", "name"]).unwrap_or_default().to_owned(),
        causes: toono_api::error::bounded(causes),
    })
}

/// Puts the namespace of the path into an object, or refuses another one.
pub(super) fn place(
    resource: &Resource,
    object: &mut Value,
    namespace: &str,
) -> Result<(), ApiError> {
    let metadata = encode::metadata(object)?;
    match metadata.get("namespace").and_then(Value::as_str).unwrap_or_default() {
        "" if resource.namespaced => {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        "" => {
            metadata.remove("namespace");
        }
        given if given == namespace => {}
        _ => {
            return Err(ApiError::BadRequest(
                "the namespace of the provided object does not match the namespace sent on the request"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}
