//! What is wrong with one field, in Kubernetes' words, and the bounded list of such errors.

use std::fmt;

use serde_json::Value;

use crate::path::Path;

/// Most errors that one check reports: enough for a person to mend an object, and a bound on the
/// answer that a hostile object can cause.
pub const MAX_ERRORS: usize = 100;

/// Longest rendering of a refused value in a message, in bytes.
const MAX_SHOWN_VALUE_BYTES: usize = 1024;

/// What kind of fault a field has; `reason` is what a `Status` cause carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A value is missing.
    Required,
    /// A value breaks a rule.
    Invalid,
    /// A value has the wrong JSON type.
    TypeInvalid,
    /// A value is not among the allowed ones.
    NotSupported,
    /// A list entry occurs twice.
    Duplicate,
    /// A field must not be set here.
    Forbidden,
    /// A string is too long.
    TooLong,
    /// A list or map has too many entries.
    TooMany,
    /// The check itself could not be finished.
    Internal,
}

impl FieldErrorKind {
    /// The machine-readable reason in a `Status` cause.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
        }
    }
}

/// One fault of one field. Shown as `field: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// What kind of fault.
    pub kind: FieldErrorKind,
    /// Where, as `spec.containers[0].name`; `<nil>` for the object itself.
    pub field: String,
    /// What is wrong, as `Invalid value: "x": must be …`.
    pub message: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, path: &Path<'_>, message: String) -> Self {
        let mut field = path.to_string();
        if field.is_empty() {
            field.push_str("<nil>");
        }
        Self { kind, field, message }
    }

    pub(crate) fn required(path: &Path<'_>, detail: &str) -> Self {
        Self::new(FieldErrorKind::Required, path, with_detail("Required value", detail))
    }

    pub(crate) fn invalid(path: &Path<'_>, value: &Value, detail: impl fmt::Display) -> Self {
        let message = format!("Invalid value: {}: {detail}", shown(value));
        Self::new(FieldErrorKind::Invalid, path, message)
    }

    pub(crate) fn type_invalid(path: &Path<'_>, found: &str, detail: impl fmt::Display) -> Self {
        let message = format!("Invalid value: {found:?}: {detail}");
        Self::new(FieldErrorKind::TypeInvalid, path, message)
    }

    pub(crate) fn not_supported<'v>(
        path: &Path<'_>,
        value: &Value,
        supported: impl Iterator<Item = &'v Value>,
    ) -> Self {
        let list: Vec<String> = supported.map(quoted).collect();
        let message =
            format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", "));
        Self::new(FieldErrorKind::NotSupported, path, message)
    }

    pub(crate) fn duplicate(path: &Path<'_>, value: &Value) -> Self {
        let message = format!("Duplicate value: {}", shown(value));
        Self::new(FieldErrorKind::Duplicate, path, message)
    }

    pub(crate) fn forbidden(path: &Path<'_>, detail: &str) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, with_detail("Forbidden", detail))
    }

    pub(crate) fn too_long(path: &Path<'_>, max: u64) -> Self {
        let message = format!("Too long: may not be more than {max} bytes");
        Self::new(FieldErrorKind::TooLong, path, message)
    }

    pub(crate) fn too_many(path: &Path<'_>, actual: usize, max: u64) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {actual}: must have at most {max} {items}");
        Self::new(FieldErrorKind::TooMany, path, message)
    }

    pub(crate) fn internal(path: &Path<'_>, detail: impl fmt::Display) -> Self {
        Self::new(FieldErrorKind::Internal, path, format!("Internal error: {detail}"))
    }

    pub(crate) fn of_kind(kind: FieldErrorKind, path: &Path<'_>, found: &str, text: &str) -> Self {
        let message = match kind {
            FieldErrorKind::Required => with_detail("Required value", text),
            FieldErrorKind::Forbidden => with_detail("Forbidden", text),
            FieldErrorKind::Duplicate => format!("Duplicate value: {found:?}"),
            _ => format!("Invalid value: {found:?}: {text}"),
        };
        Self::new(kind, path, message)
    }
}

fn with_detail(kind: &str, detail: &str) -> String {
    if detail.is_empty() { kind.to_owned() } else { format!("{kind}: {detail}") }
}

fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => format!("\"{other}\""),
    }
}

/// Powers of ten from which Go shows a float with an exponent.
const PLAIN_EXPONENTS: std::ops::Range<i32> = -4..6;

/// A float as Kubernetes' messages show it, which is Go's `%v`: the shortest digits that mean it.
pub(crate) fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if PLAIN_EXPONENTS.contains(&exponent) || value == 0.0 {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// A value as a message shows it, cut where it would be longer than a message should be.
fn shown(value: &Value) -> String {
    let mut text = match value {
        Value::String(text) => format!("{text:?}"),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, float),
        other => other.to_string(),
    };
    if text.len() > MAX_SHOWN_VALUE_BYTES {
        let cut = (0..=MAX_SHOWN_VALUE_BYTES).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or_default());
        text.push('…');
    }
    text
}

/// Errors, up to [`MAX_ERRORS`].
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    pub(crate) fn push(&mut self, error: FieldError) {
        if !self.is_full() {
            self.0.push(error);
        }
    }

    /// Whether rules would be run on values that the schema does not allow, as Kubernetes judges it.
    pub(crate) fn are_blocking(&self) -> bool {
        self.0.iter().any(|error| {
            matches!(
                error.kind,
                FieldErrorKind::NotSupported
                    | FieldErrorKind::Required
                    | FieldErrorKind::TooLong
                    | FieldErrorKind::TooMany
                    | FieldErrorKind::TypeInvalid
            )
        })
    }

    pub(crate) fn extend(&mut self, errors: Self) {
        errors.0.into_iter().for_each(|error| self.push(error));
    }

    /// Drops what was added after the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }
}
