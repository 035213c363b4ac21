//! Kubernetes' protobuf encoding, read into the JSON form of the same object.
//!
//! Clients generated since 1.32 write built-in kinds in it, without asking whether the server takes
//! it. Answers are JSON, which they all read. One generic decoder goes by a table of fields; there
//! are no generated types.

mod wire;

#[cfg(test)]
mod tests;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::types::{self, Field, Message, Shape, Type};
use wire::{Fields, Wire, varint};

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Every body begins with it.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The prefix that marks the encoding is missing.
    #[error("the body does not begin as Kubernetes' protobuf does")]
    NoMagic,
    /// A value runs past its end, or is of no known wire type.
    #[error("the body is no protobuf message")]
    Malformed,
    /// The kind is not in the table.
    #[error("{api_version}, Kind={kind} is not understood as protobuf; send it as JSON")]
    UnknownKind {
        /// Group and version.
        api_version: String,
        /// Kind.
        kind: String,
    },
    /// A field has another wire type than its own, or a value that its type does not have.
    #[error("{message}.{field} is not of its type")]
    WrongType {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// Reads a body: an envelope that names the kind, around the object.
///
/// A field that the table does not have is named by its number, so that it meets the fate of every
/// unknown field: the client is told of it, or refused.
///
/// # Errors
/// [`ProtobufError`].
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let (mut api_version, mut kind, mut object) = (String::new(), String::new(), &[][..]);
    for field in Fields::of(envelope) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Fields::of(type_meta) {
                    match field? {
                        (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => object = bytes,
            _ => {}
        }
    }
    let Some((name, message)) = root(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut fields = Map::new();
    decode_message(name, message, object, &mut fields)?;
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(fields))
}

/// The message of a kind.
fn root(api_version: &str, kind: &str) -> Option<(&'static str, &'static Message)> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or_default();
    let name = match kind {
        // Written in the group of what is deleted.
        "DeleteOptions" => "meta.DeleteOptions".to_owned(),
        kind if version == "v1" => format!("{group}.{kind}"),
        _ => return None,
    };
    types::message(&name)
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Malformed)
}

/// Reads a message into `object`. How deep messages nest is the table's matter, not the client's.
fn decode_message(
    name: &'static str,
    message: &Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    for entry in Fields::of(bytes) {
        let (number, wire) = entry?;
        match message.by_number(number) {
            None => {
                object.insert(number.to_string(), Value::Bool(true));
            }
            Some(field) => decode_field(field, wire, object)
                .ok_or(ProtobufError::WrongType { message: name, field: field.name })??,
        }
    }
    Ok(())
}

/// `None` for a wrong type, an error for what is wrong deeper.
fn decode_field(
    field: &Field,
    wire: Wire<'_>,
    object: &mut Map<String, Value>,
) -> Option<Result<(), ProtobufError>> {
    match field.shape {
        Shape::Plain(Type::Message(name)) | Shape::Optional(Type::Message(name)) => {
            let Wire::Bytes(bytes) = wire else { return None };
            let (name, message) = types::message(name)?;
            if field.name == "." {
                return Some(decode_message(name, message, bytes, object));
            }
            // A message that occurs twice is merged.
            let inner = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            Some(decode_message(name, message, bytes, inner.as_object_mut()?))
        }
        Shape::Plain(kind) => {
            let value = scalar(kind, wire)?;
            if is_zero(&value) {
                object.remove(field.name);
            } else {
                object.insert(field.name.to_owned(), value);
            }
            Some(Ok(()))
        }
        Shape::Optional(kind) => {
            object.insert(field.name.to_owned(), scalar(kind, wire)?);
            Some(Ok(()))
        }
        Shape::List(kind) => {
            let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            push_items(kind, wire, list.as_array_mut()?)
        }
        Shape::Map(kind) => {
            let Wire::Bytes(bytes) = wire else { return None };
            let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            insert_entry(kind, bytes, map.as_object_mut()?)
        }
    }
}

fn push_items(
    kind: Type,
    wire: Wire<'_>,
    list: &mut Vec<Value>,
) -> Option<Result<(), ProtobufError>> {
    match (kind, wire) {
        (Type::Message(name), Wire::Bytes(bytes)) => {
            let mut item = Map::new();
            let (name, message) = types::message(name)?;
            let read = decode_message(name, message, bytes, &mut item);
            list.push(Value::Object(item));
            Some(read)
        }
        // Packed, which readers must take even where writers do not pack.
        (Type::Int32 | Type::Int64 | Type::Boolean, Wire::Bytes(mut packed)) => {
            while !packed.is_empty() {
                list.push(scalar(kind, Wire::Varint(varint(&mut packed).ok()?))?);
            }
            Some(Ok(()))
        }
        _ => {
            list.push(scalar(kind, wire)?);
            Some(Ok(()))
        }
    }
}

/// A map's entry is a message: 1 the key, 2 the value, each absent when empty.
fn insert_entry(
    kind: Type,
    bytes: &[u8],
    map: &mut Map<String, Value>,
) -> Option<Result<(), ProtobufError>> {
    let mut key = String::new();
    let mut value = scalar(kind, Wire::Bytes(&[]))?;
    for field in Fields::of(bytes) {
        match field {
            Err(error) => return Some(Err(error)),
            Ok((1, Wire::Bytes(bytes))) => key = text(bytes).ok()?,
            Ok((2, wire)) => value = scalar(kind, wire)?,
            Ok(_) => {}
        }
    }
    map.insert(key, value);
    Some(Ok(()))
}

/// Whether a value says nothing where zero and absence are one.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// The JSON form of a value that is no message of the table.
fn scalar(kind: Type, wire: Wire<'_>) -> Option<Value> {
    match (kind, wire) {
        (Type::Int32 | Type::Int64, Wire::Varint(number)) => Some(number.cast_signed().into()),
        (Type::Boolean, Wire::Varint(number)) => Some(Value::Bool(number != 0)),
        (Type::Text, Wire::Bytes(bytes)) => text(bytes).ok().map(Value::String),
        (Type::Bytes, Wire::Bytes(bytes)) => Some(STANDARD.encode(bytes).into()),
        (Type::Time, Wire::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%SZ"),
        (Type::MicroTime, Wire::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%S.%6fZ"),
        (Type::Quantity, Wire::Bytes(bytes)) => quantity(bytes),
        (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes),
        (Type::Raw, Wire::Bytes(bytes)) => raw(bytes),
        _ => None,
    }
}

/// 1 seconds, 2 nanoseconds; none for the zero time.
fn time(bytes: &[u8], format: &str) -> Option<Value> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in Fields::of(bytes) {
        match field.ok()? {
            (1, Wire::Varint(value)) => seconds = value.cast_signed(),
            (2, Wire::Varint(value)) => nanoseconds = i32::try_from(value.cast_signed()).ok()?,
            _ => {}
        }
    }
    if (seconds, nanoseconds) == (0, 0) {
        return Some(Value::Null);
    }
    let moment = Timestamp::new(seconds, nanoseconds).ok()?;
    Some(moment.strftime(format).to_string().into())
}

/// 1 the amount as text.
fn quantity(bytes: &[u8]) -> Option<Value> {
    let mut amount = String::new();
    for field in Fields::of(bytes) {
        if let (1, Wire::Bytes(bytes)) = field.ok()? {
            amount = text(bytes).ok()?;
        }
    }
    Some(if amount.is_empty() { "0".into() } else { amount.into() })
}

/// 1 which of both (1 is text), 2 the number, 3 the text.
fn int_or_string(bytes: &[u8]) -> Option<Value> {
    let (mut is_text, mut number, mut words) = (false, 0, String::new());
    for field in Fields::of(bytes) {
        match field.ok()? {
            (1, Wire::Varint(which)) => is_text = which == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => words = text(bytes).ok()?,
            _ => {}
        }
    }
    Some(if is_text { words.into() } else { number.into() })
}

/// 1 JSON.
fn raw(bytes: &[u8]) -> Option<Value> {
    let mut value = Value::Null;
    for field in Fields::of(bytes) {
        if let (1, Wire::Bytes(bytes)) = field.ok()? {
            value = serde_json::from_slice(bytes).ok()?;
        }
    }
    Some(value)
}
