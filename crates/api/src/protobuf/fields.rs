//! The field table: which number of which message is which JSON field, of which type.
//!
//! `fields.txt` has a line for each message and, indented below it, one for each of its fields:
//! number, JSON name (`.` for a message whose fields are inlined), type. They are what Kubernetes'
//! Go types say in their tags. `*` marks a field whose zero is not the same as its absence,
//! `[]` a list, `map` a map with text keys.

use std::{collections::HashMap, sync::LazyLock};

/// Every message that the server takes.
pub(super) static TABLE: LazyLock<HashMap<&'static str, Message>> =
    LazyLock::new(|| parse(include_str!("fields.txt")));

/// The fields of one message.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// Ordered by number.
    pub(super) fields: Vec<Field>,
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u32,
    /// JSON name; `.` when the fields of the message are inlined.
    pub(super) name: &'static str,
    pub(super) shape: Shape,
}

/// How often a field occurs, and what its absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Absent and zero are one.
    Plain(Type),
    /// A zero is said.
    Optional(Type),
    List(Type),
    /// From text.
    Map(Type),
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Integer,
    Boolean,
    /// Base64 in JSON.
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON within.
    Raw,
    Message(&'static str),
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        let found = self.fields.binary_search_by_key(&number, |field| field.number);
        found.ok().and_then(|at| self.fields.get(at))
    }
}

fn parse(text: &'static str) -> HashMap<&'static str, Message> {
    let mut table: HashMap<&str, Message> = HashMap::new();
    let mut message = "";
    for line in text.lines() {
        match line.strip_prefix(' ') {
            None => message = line,
            Some(line) => table.entry(message).or_default().fields.extend(parse_field(line)),
        }
    }
    table
}

fn parse_field(line: &'static str) -> Option<Field> {
    let (number, rest) = line.split_once(' ')?;
    let (name, shape) = rest.split_once(' ')?;
    let shape = if let Some(inner) = shape.strip_prefix('*') {
        Shape::Optional(parse_type(inner))
    } else if let Some(inner) = shape.strip_prefix("[]") {
        Shape::List(parse_type(inner))
    } else if let Some(inner) = shape.strip_prefix("map ") {
        Shape::Map(parse_type(inner))
    } else {
        Shape::Plain(parse_type(shape))
    };
    Some(Field { number: number.parse().ok()?, name, shape })
}

fn parse_type(name: &'static str) -> Type {
    match name {
        "string" => Type::Text,
        "int" => Type::Integer,
        "bool" => Type::Boolean,
        "bytes" => Type::Bytes,
        "Time" => Type::Time,
        "MicroTime" => Type::MicroTime,
        "Quantity" => Type::Quantity,
        "IntOrString" => Type::IntOrString,
        "Raw" => Type::Raw,
        message => Type::Message(message),
    }
}
