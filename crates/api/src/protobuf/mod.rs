//! Kubernetes' protobuf encoding, read into the JSON form of the same object.
//!
//! Clients generated since 1.32 write built-in kinds in it, without asking whether the server takes
//! it. Answers are JSON, which they all read. One generic decoder goes by a table of fields; there
//! are no generated types.

mod wire;

#[cfg(test)]
mod tests;

use std::cell::Cell;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    decode::MAX_MESSAGES,
    types::{self, Field, Message, SCHEMA, Shape, Type},
};
use wire::{Fields, Wire, varint};

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Every body begins with it.
const MAGIC: &[u8] = b"k8s\0";

/// How deep messages may nest. Only schemas nest without end; JSON is cut at a like depth.
const MAX_DEPTH: usize = 100;

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
    /// Schemas within schemas without end.
    #[error("the message nests more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More of them than JSON may have either.
    #[error("it has more than {MAX_MESSAGES} objects within it")]
    TooMany,
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
    let Some(message) = types::of_kind(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut fields = Map::new();
    let left = Cell::new(MAX_MESSAGES);
    decode_message(message, object, &mut fields, Room { depth: 0, left: &left })?;
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(fields))
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Malformed)
}

/// What may still be read.
#[derive(Clone, Copy)]
struct Room<'a> {
    /// How deep the message is.
    depth: usize,
    /// How many more there may be.
    left: &'a Cell<usize>,
}

impl Room<'_> {
    fn below(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    /// Before a message is read.
    fn enter(self) -> Result<(), ProtobufError> {
        if self.depth > MAX_DEPTH {
            return Err(ProtobufError::TooDeep);
        }
        let left = self.left.get().checked_sub(1).ok_or(ProtobufError::TooMany)?;
        self.left.set(left);
        Ok(())
    }
}

/// Reads a message into `object`.
fn decode_message(
    message: &Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    room: Room<'_>,
) -> Result<(), ProtobufError> {
    room.enter()?;
    for entry in Fields::of(bytes) {
        let (number, wire) = entry?;
        match message.by_number(number) {
            None => {
                object.insert(number.to_string(), Value::Bool(true));
            }
            Some(field) => decode_field(field, wire, object, room)?
                .ok_or(ProtobufError::WrongType { message: message.name(), field: field.name })?,
        }
    }
    Ok(())
}

/// What was read; none for a wrong type, an error for what is wrong deeper.
type Read<T> = Result<Option<T>, ProtobufError>;

fn decode_field(
    field: &Field,
    wire: Wire<'_>,
    object: &mut Map<String, Value>,
    room: Room<'_>,
) -> Read<()> {
    match field.shape {
        Shape::Plain(Type::Message(name)) | Shape::Optional(Type::Message(name)) => {
            let (Wire::Bytes(bytes), Some(message)) = (wire, types::message(name)) else {
                return Ok(None);
            };
            if field.name == "." {
                return decode_message(message, bytes, object, room.below()).map(Some);
            }
            // A message that occurs twice is merged.
            let inner = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Some(inner) = inner.as_object_mut() else { return Ok(None) };
            decode_message(message, bytes, inner, room.below()).map(Some)
        }
        Shape::Plain(kind) => Ok(value(kind, wire, room)?.map(|value| {
            if is_zero(&value) {
                object.remove(field.name);
            } else {
                object.insert(field.name.to_owned(), value);
            }
        })),
        Shape::Optional(kind) => Ok(value(kind, wire, room)?.map(|value| {
            object.insert(field.name.to_owned(), value);
        })),
        Shape::List(kind) => {
            let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Some(list) = list.as_array_mut() else { return Ok(None) };
            push_items(kind, wire, list, room)
        }
        Shape::Map(_) | Shape::MapOfLists => {
            let Wire::Bytes(bytes) = wire else { return Ok(None) };
            let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Some(map) = map.as_object_mut() else { return Ok(None) };
            insert_entry(field.shape, bytes, map, room)
        }
    }
}

fn push_items(kind: Type, wire: Wire<'_>, list: &mut Vec<Value>, room: Room<'_>) -> Read<()> {
    match (kind, wire) {
        // Packed, which readers must take even where writers do not pack.
        (Type::Int32 | Type::Int64 | Type::Boolean, Wire::Bytes(mut packed)) => {
            while !packed.is_empty() {
                let item = scalar(kind, Wire::Varint(varint(&mut packed)?));
                let Some(item) = item else { return Ok(None) };
                list.push(item);
            }
            Ok(Some(()))
        }
        _ => Ok(value(kind, wire, room)?.map(|item| list.push(item))),
    }
}

/// A map's entry is a message: 1 the key, 2 the value, each absent when empty.
fn insert_entry(
    shape: Shape,
    bytes: &[u8],
    map: &mut Map<String, Value>,
    room: Room<'_>,
) -> Read<()> {
    let (mut key, mut inner) = (String::new(), Wire::Bytes(&[]));
    for field in Fields::of(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => inner = wire,
            _ => {}
        }
    }
    let entry = match (shape, inner) {
        (Shape::MapOfLists, Wire::Bytes(bytes)) => Some(texts(bytes, 1)?.into()),
        (Shape::MapOfLists, _) => None,
        (shape, wire) => value(shape.of(), wire, room)?,
    };
    Ok(entry.map(|entry| {
        map.insert(key, entry);
    }))
}

/// The texts of field `number`.
fn texts(bytes: &[u8], number: u32) -> Result<Vec<Value>, ProtobufError> {
    let mut items = Vec::new();
    for field in Fields::of(bytes) {
        if let (found, Wire::Bytes(bytes)) = field?
            && found == number
        {
            items.push(text(bytes)?.into());
        }
    }
    Ok(items)
}

/// The JSON form of any value.
fn value(kind: Type, wire: Wire<'_>, room: Room<'_>) -> Read<Value> {
    let Wire::Bytes(bytes) = wire else { return Ok(scalar(kind, wire)) };
    match kind {
        Type::Message(name) => {
            let Some(message) = types::message(name) else { return Ok(None) };
            let mut fields = Map::new();
            decode_message(message, bytes, &mut fields, room.below())?;
            Ok(Some(Value::Object(fields)))
        }
        Type::SchemaOrBool | Type::SchemaOrArray | Type::SchemaOrTexts => {
            schema_or(kind, bytes, room.below())
        }
        _ => Ok(scalar(kind, wire)),
    }
}

/// A schema, or what may stand in its place: for a truth value 1 that and 2 the schema; else 1 the
/// schema and 2 each item.
fn schema_or(kind: Type, bytes: &[u8], room: Room<'_>) -> Read<Value> {
    let (mut schema, mut allows, mut items) = (None, false, Vec::new());
    for field in Fields::of(bytes) {
        match (kind, field?) {
            (Type::SchemaOrBool, (1, Wire::Varint(truth))) => allows = truth != 0,
            (Type::SchemaOrBool, (2, wire)) | (_, (1, wire)) => {
                schema = value(Type::Message(SCHEMA), wire, room)?;
            }
            (Type::SchemaOrArray, (2, wire)) => {
                items.extend(value(Type::Message(SCHEMA), wire, room)?);
            }
            (Type::SchemaOrTexts, (2, wire)) => items.extend(scalar(Type::Text, wire)),
            _ => {}
        }
    }
    Ok(Some(match (schema, kind) {
        (Some(schema), _) if items.is_empty() => schema,
        (_, Type::SchemaOrBool) => Value::Bool(allows),
        _ => Value::Array(items),
    }))
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
        (Type::Double, Wire::Fixed64(bits)) => Some(f64::from_bits(bits).into()),
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
