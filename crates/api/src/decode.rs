//! Strict decoding by the table of types: values have their types, unknown fields and nulls fall
//! out, times and quantities get one form. Errors are Kubernetes' own words.

#[cfg(test)]
mod tests;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    quantity::Quantity,
    types::{self, SCHEMA, Shape, Type, short_name},
};

/// An object that has its kind's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object without the unknown fields.
    pub object: Value,
    /// Paths of the unknown fields that were dropped, such as `spec.containers[0].imag`.
    pub unknown_fields: Vec<String>,
}

/// A field has the wrong type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct DecodeError {
    /// Where, such as `spec.replicas`.
    pub path: String,
    /// What, in the words of Go's decoder.
    pub why: String,
}

/// Most unknown fields that are remembered of one object.
const MAX_UNKNOWN_FIELDS: usize = 64;

/// A path that is longer is told as three dots: a name in it can be as long as a body.
const MAX_PATH_BYTES: usize = 1024;

/// Most maps with named fields that one object may have. Defaults and rules make some hundred bytes and take
/// some hundred nanoseconds for each, while a body has room for a million of `{}`. Real objects have thousands;
/// a definition with the largest schemas has tens of thousands, and etcd's limit of 1.5 MiB leaves Kubernetes
/// no room for many more.
pub const MAX_MESSAGES: usize = 1 << 16;

/// Quantities' own words for what they are not.
const NO_QUANTITY: &str = "quantities must match the regular expression \
                           '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Decodes an object of the kind whose message is `root`, such as `apps.Deployment`.
///
/// # Errors
/// [`DecodeError`] for the first value of a wrong type.
pub fn decode(root: &'static str, mut object: Value) -> Result<Decoded, DecodeError> {
    let mut walk = Walk { messages_left: MAX_MESSAGES, unknown_fields: Vec::new() };
    let at = At { before: None, step: Step::Root };
    let Value::Object(fields) = &mut object else {
        return Err(at.mismatch(short_name(root), &object, short_name(root)));
    };
    walk.message(root, fields, at)?;
    Ok(Decoded { object, unknown_fields: walk.unknown_fields })
}

/// A place, as its last step and the place before it. Its path is put together only when there is something to
/// say of it.
#[derive(Clone, Copy)]
struct At<'a> {
    before: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Item(usize),
}

struct Walk {
    messages_left: usize,
    unknown_fields: Vec<String>,
}

/// Fields that may be left out, and that Go's types yet write when they are empty.
const ALWAYS_WRITTEN: [(&str, &str); 3] =
    [("rbac.ClusterRole", "rules"), ("rbac.Role", "rules"), ("discovery.EndpointSlice", "ports")];

/// Whether a list or a map holds nothing.
fn is_empty(shape: Shape, value: &Value) -> bool {
    match (shape, value) {
        (Shape::List(_), Value::Array(items)) => items.is_empty(),
        (Shape::Map(_) | Shape::MapOfLists, Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

impl Walk {
    /// Messages nest as deep as the JSON does, which its parser limits.
    fn message(
        &mut self,
        name: &'static str,
        fields: &mut Map<String, Value>,
        at: At<'_>,
    ) -> Result<(), DecodeError> {
        let Some(message) = types::message(name) else {
            return Err(at.error(format!("{name} is not in the table of types")));
        };
        self.messages_left = self.messages_left.checked_sub(1).ok_or_else(|| {
            at.error(format!("it has more than {MAX_MESSAGES} objects within it"))
        })?;
        let mut failure = None;
        fields.retain(|key, value| {
            if failure.is_some() {
                return true;
            }
            let at = at.field(key);
            let names_kind = message.has_kind() && matches!(key.as_str(), "apiVersion" | "kind");
            match message.field(key) {
                None if names_kind => {
                    failure = self.single(name, Type::Text, value, at).err();
                    true
                }
                None => {
                    self.remember_unknown(at);
                    false
                }
                // To Go's decoder null is absence.
                _ if value.is_null() => false,
                Some(field) => {
                    failure = self.shaped(name, field.shape, value, at).err();
                    // Go leaves out what is empty of all that may be left out.
                    failure.is_some()
                        || field.required
                        || ALWAYS_WRITTEN.contains(&(name, key))
                        || !is_empty(field.shape, value)
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    fn shaped(
        &mut self,
        owner: &'static str,
        shape: Shape,
        value: &mut Value,
        at: At<'_>,
    ) -> Result<(), DecodeError> {
        match (shape, value) {
            (Shape::Plain(kind) | Shape::Optional(kind), value) => {
                self.single(owner, kind, value, at)
            }
            (Shape::List(kind), Value::Array(items)) => items
                .iter_mut()
                .enumerate()
                .try_for_each(|(index, item)| self.element(owner, kind, item, at.item(index))),
            (Shape::Map(kind), Value::Object(entries)) => entries
                .iter_mut()
                .try_for_each(|(key, entry)| self.element(owner, kind, entry, at.field(key))),
            (Shape::MapOfLists, Value::Object(entries)) => {
                entries.iter_mut().try_for_each(|(key, entry)| {
                    self.shaped(owner, Shape::List(Type::Text), entry, at.field(key))
                })
            }
            (shape, value) => Err(at.mismatch(short_name(owner), value, &shape.to_string())),
        }
    }

    /// Null in a list or map is the type's zero; only text has one that means something here.
    fn element(
        &mut self,
        owner: &'static str,
        kind: Type,
        value: &mut Value,
        at: At<'_>,
    ) -> Result<(), DecodeError> {
        if value.is_null() && matches!(kind, Type::Text | Type::Bytes) {
            *value = Value::String(String::new());
        }
        self.single(owner, kind, value, at)
    }

    fn single(
        &mut self,
        owner: &'static str,
        kind: Type,
        value: &mut Value,
        at: At<'_>,
    ) -> Result<(), DecodeError> {
        match (kind, &mut *value) {
            (Type::Raw, _)
            | (Type::Text | Type::IntOrString, Value::String(_))
            | (Type::Double, Value::Number(_))
            | (Type::Boolean | Type::SchemaOrBool, Value::Bool(_)) => Ok(()),
            (Type::Message(name), Value::Object(fields)) => self.message(name, fields, at),
            (
                Type::SchemaOrBool | Type::SchemaOrArray | Type::SchemaOrTexts,
                Value::Object(fields),
            ) => self.message(SCHEMA, fields, at),
            (Type::SchemaOrArray, Value::Array(_)) => {
                self.shaped(owner, Shape::List(Type::Message(SCHEMA)), value, at)
            }
            (Type::SchemaOrTexts, Value::Array(_)) => {
                self.shaped(owner, Shape::List(Type::Text), value, at)
            }
            (Type::Int64, Value::Number(number)) if number.is_i64() => Ok(()),
            (Type::Int32 | Type::IntOrString, Value::Number(number))
                if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                Ok(())
            }
            (Type::Bytes, Value::String(text)) => match STANDARD.decode(&*text) {
                Ok(_) => Ok(()),
                Err(base64::DecodeError::InvalidByte(byte, _)) => {
                    Err(at.error(format!("illegal base64 data at input byte {byte}")))
                }
                Err(_) => {
                    let end = text.len();
                    Err(at.error(format!("illegal base64 data at input byte {end}")))
                }
            },
            (Type::Time, Value::String(text)) => at.time(text, "%Y-%m-%dT%H:%M:%SZ"),
            (Type::MicroTime, Value::String(text)) => at.time(text, "%Y-%m-%dT%H:%M:%S.%6fZ"),
            (Type::Quantity, Value::String(text)) => at.quantity(text),
            // Amounts may be written as numbers (`cpu: 1`); they are texts at rest.
            (Type::Quantity, Value::Number(number)) => {
                let text = number.to_string();
                at.quantity(&text)?;
                *value = Value::String(text);
                Ok(())
            }
            (kind, value) => Err(at.mismatch(short_name(owner), value, &kind.to_string())),
        }
    }

    fn remember_unknown(&mut self, at: At<'_>) {
        if self.unknown_fields.len() < MAX_UNKNOWN_FIELDS {
            let short = at.len() <= MAX_PATH_BYTES;
            self.unknown_fields.push(if short { at.print(true) } else { "...".to_owned() });
        }
    }
}

impl<'a> At<'a> {
    fn field<'b>(&'b self, name: &'b str) -> At<'b> {
        At { before: Some(self), step: Step::Field(name) }
    }

    fn item(&self, index: usize) -> At<'_> {
        At { before: Some(self), step: Step::Item(index) }
    }

    fn time(self, text: &mut String, format: &str) -> Result<(), DecodeError> {
        let moment: Timestamp = text.parse().map_err(|_| {
            self.error(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}"
            ))
        })?;
        *text = moment.strftime(format).to_string();
        Ok(())
    }

    fn quantity(self, text: &str) -> Result<(), DecodeError> {
        text.parse::<Quantity>().map(|_| ()).map_err(|_| self.error(NO_QUANTITY.to_owned()))
    }

    fn mismatch(self, owner: &str, value: &Value, wanted: &str) -> DecodeError {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            // A number that does not fit is told with its digits.
            Value::Number(number) if wanted.starts_with("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let field = self.print(false);
        self.error(format!(
            "json: cannot unmarshal {found} into Go struct field {owner}.{field} of type {wanted}"
        ))
    }

    fn error(self, why: String) -> DecodeError {
        DecodeError { path: self.print(true), why }
    }

    /// How long its path is, but for the numbers in it.
    fn len(self) -> usize {
        let own = if let Step::Field(name) = self.step { name.len() + 1 } else { 0 };
        self.before.map_or(0, |before| before.len()).saturating_add(own)
    }

    /// `spec.containers[0].foo`; Go's own decoder leaves the indexes out.
    fn print(self, with_indexes: bool) -> String {
        let mut steps: Vec<Step<'a>> = Vec::new();
        let mut place = Some(&self);
        while let Some(at) = place {
            steps.push(at.step);
            place = at.before;
        }
        let mut text = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Root => {}
                Step::Item(index) if with_indexes => text.push_str(&format!("[{index}]")),
                Step::Item(_) => {}
                Step::Field(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
            }
        }
        text
    }
}
