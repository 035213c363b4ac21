//! One version of a definition: its schema, subresources, columns, selectable fields.

use serde_json::Value;
use toono_api::{
    FieldError,
    error::FieldReason,
    meta::{items_at, text_at},
};
use toono_schema::Schema;

use crate::custom::{behaviour::field_error, view::flag};

const WARNING_MAX_BYTES: usize = 256;
const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// As in Kubernetes: each costs a comparison of every object.
const SELECTABLE_FIELDS_MAX: usize = 8;

/// What is wrong with a version, which stands at `path`.
pub(super) fn check(version: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = deprecation(version, &format!("{path}.deprecationWarning"));
    let field = format!("{path}.schema.openAPIV3Schema");
    let raw = version.get("schema").and_then(|schema| schema.get("openAPIV3Schema"));
    let mut schema = None;
    match raw.filter(|raw| !raw.is_null()) {
        None => errors.push(FieldError::required(field, "schemas are required")),
        Some(raw) => match Schema::compile(raw, &field) {
            Ok(compiled) => schema = Some(compiled),
            Err(wrong) => errors.extend(wrong.into_iter().map(field_error)),
        },
    }
    errors.extend(scale(version, &format!("{path}.subresources.scale")));
    for (index, column) in items_at(version, &["additionalPrinterColumns"]).enumerate() {
        errors.extend(printer_column(column, &format!("{path}.additionalPrinterColumns[{index}]")));
    }
    if let Some(schema) = schema {
        errors.extend(selectable(version, &schema, &format!("{path}.selectableFields")));
    }
    errors
}

fn deprecation(version: &Value, field: &str) -> Vec<FieldError> {
    let Some(warning) = text_at(version, &["deprecationWarning"]) else { return Vec::new() };
    let invalid = |why: &str| FieldError::invalid_text(field, warning, why);
    if !flag(version, "deprecated") {
        return vec![invalid("can only be set for deprecated versions")];
    }
    let mut errors = Vec::new();
    if warning.len() > WARNING_MAX_BYTES {
        errors.push(invalid("must be <= 256 characters long"));
    }
    if warning.is_empty() {
        errors.push(invalid("must not be an empty string"));
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        errors.push(invalid(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        )));
    }
    errors
}

fn scale(version: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let scale = version.get("subresources").and_then(|parts| parts.get("scale"));
    let Some(scale) = scale.filter(|scale| scale.is_object()) else { return errors };
    for (name, under, shown) in [
        ("specReplicasPath", &[".spec."][..], ".spec"),
        ("statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ] {
        let field = format!("{path}.{name}");
        let text = text_at(scale, &[name]).unwrap_or_default();
        if text.is_empty() {
            if name != "labelSelectorPath" {
                errors.push(FieldError::required(field, ""));
            }
        } else if !text.starts_with('.') {
            let why = "must be a simple json path starting with .";
            errors.push(FieldError::invalid_text(field, text, why));
        } else if !under.iter().any(|prefix| text.starts_with(prefix)) || text.contains('[') {
            let why = format!("should be a json path under {shown}");
            errors.push(FieldError::invalid_text(field, text, &why));
        }
    }
    errors
}

fn printer_column(column: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |name: &str| text_at(column, &[name]).unwrap_or_default();
    let at = |name: &str| format!("{path}.{name}");
    if text("name").is_empty() {
        errors.push(FieldError::required(at("name"), ""));
    }
    let why = format!("must be one of {COLUMN_TYPES}");
    match text("type") {
        "" => errors.push(FieldError::required(at("type"), &why)),
        kind if COLUMN_TYPES.split(',').any(|known| known == kind) => {}
        kind => errors.push(FieldError::invalid_text(at("type"), kind, &why)),
    }
    let format = text("format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
        errors.push(FieldError::invalid_text(at("format"), format, &why));
    }
    match text("jsonPath") {
        "" => errors.push(FieldError::required(at("JSONPath"), "")),
        path if path.starts_with('.') => {}
        path => {
            let why = "must be a simple json path starting with .";
            errors.push(FieldError::invalid_text(at("JSONPath"), path, why));
        }
    }
    errors
}

fn selectable(version: &Value, schema: &Schema, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in items_at(version, &["selectableFields"]).enumerate() {
        let at = format!("{path}[{index}].jsonPath");
        let text = text_at(field, &["jsonPath"]).unwrap_or_default();
        if text.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        if seen.contains(&text) {
            errors.push(FieldError::duplicate(at, text));
            continue;
        }
        seen.push(text);
        errors.extend(
            selectable_path(text, schema).map(|why| FieldError::invalid_text(at, text, &why)),
        );
    }
    if seen.len() > SELECTABLE_FIELDS_MAX {
        errors.push(FieldError {
            reason: FieldReason::TooMany,
            field: path.to_owned(),
            message: format!(
                "Too many: {}: must have at most {SELECTABLE_FIELDS_MAX} items",
                seen.len()
            ),
        });
    }
    errors
}

/// Why objects cannot be selected by the field at a path.
fn selectable_path(text: &str, schema: &Schema) -> Option<String> {
    let Some(names) = text.strip_prefix('.') else {
        return Some(format!("is an invalid path: expected [ or . but got: {text}"));
    };
    if text.contains('[') {
        return Some("is an invalid path: array notation is not allowed".to_owned());
    }
    let names: Vec<&str> = names.split('.').collect();
    if names.first() == Some(&"metadata") {
        return Some("must not point to fields in metadata".to_owned());
    }
    if !schema.has_field(&names) {
        return Some("is an invalid path: does not refer to a valid field".to_owned());
    }
    let is_selectable = matches!(schema.scalar_at(&names), Some("string" | "boolean" | "integer"));
    (!is_selectable).then(|| {
        "must point to a field of type string, boolean or integer. Enum string fields and strings with \
         formats are allowed."
            .to_owned()
    })
}
