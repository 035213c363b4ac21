//! What the built-in kinds are made of, as one table: every message, its fields and their types.
//!
//! `types.txt` has a line for each message and, indented below it, one for each of its fields:
//! protobuf number (0 for a field that travels only as JSON), JSON name (`.` for a message whose
//! fields are inlined), type. They are what Kubernetes' Go types say in their tags. `*` marks a
//! field whose zero is not the same as its absence, `[]` a list, `map` a map with text keys.
//!
//! JSON and protobuf are both read by this table ([`decode`](crate::decode), [`protobuf`](crate::protobuf)):
//! generated types would be megabytes of code that say the same.

use std::{collections::HashMap, fmt, sync::LazyLock};

/// Every message that the server takes.
static TABLE: LazyLock<HashMap<&'static str, Message>> =
    LazyLock::new(|| parse(include_str!("types.txt")));

/// The message of that name, such as `core.Pod`.
pub(crate) fn message(name: &str) -> Option<(&'static str, &'static Message)> {
    TABLE.get_key_value(name).map(|(name, message)| (*name, message))
}

/// The fields of one message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Ordered by number.
    by_number: Vec<Field>,
    /// Ordered by name, those of inlined messages among them.
    by_name: Vec<Field>,
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// JSON name; `.` when the fields of the message are inlined.
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
}

/// How often a field occurs, and what its absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
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
pub(crate) enum Type {
    Text,
    Int32,
    Int64,
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

// === impl Message ===

impl Message {
    pub(crate) fn by_number(&self, number: u32) -> Option<&Field> {
        let found = self.by_number.binary_search_by_key(&number, |field| field.number);
        found.ok().and_then(|at| self.by_number.get(at))
    }

    /// The fields that protobuf has, inlined messages as one.
    #[cfg(test)]
    pub(crate) fn numbered(&self) -> impl Iterator<Item = &Field> {
        self.by_number.iter().filter(|field| field.number > 0)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Field> {
        let found = self.by_name.binary_search_by_key(&name, |field| field.name);
        found.ok().and_then(|at| self.by_name.get(at))
    }
}

// === impl Shape ===

/// As Go names it, for messages that Kubernetes' users know.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(kind) | Self::Optional(kind) => kind.fmt(f),
            Self::List(kind) => write!(f, "[]{kind}"),
            Self::Map(kind) => write!(f, "map[string]{kind}"),
        }
    }
}

// === impl Type ===

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "string",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Boolean => "bool",
            Self::Bytes => "[]uint8",
            Self::Time => "v1.Time",
            Self::MicroTime => "v1.MicroTime",
            Self::Quantity => "resource.Quantity",
            Self::IntOrString => "intstr.IntOrString",
            Self::Raw => "runtime.RawExtension",
            Self::Message(name) => return write!(f, "v1.{}", short_name(name)),
        })
    }
}

/// `PodSpec` of `core.PodSpec`.
pub(crate) fn short_name(message: &str) -> &str {
    message.rsplit('.').next().unwrap_or(message)
}

fn parse(text: &'static str) -> HashMap<&'static str, Message> {
    let mut table: HashMap<&str, Message> = HashMap::new();
    let mut message = "";
    for line in text.lines() {
        match line.strip_prefix(' ') {
            None => message = line,
            Some(line) => table.entry(message).or_default().by_number.extend(parse_field(line)),
        }
    }
    let names: Vec<&str> = table.keys().copied().collect();
    for name in names {
        let mut fields = Vec::new();
        flatten(&table, name, &mut fields);
        fields.sort_by_key(|field| field.name);
        if let Some(message) = table.get_mut(name) {
            message.by_number.sort_by_key(|field| field.number);
            message.by_name = fields;
        }
    }
    table
}

/// The fields of a message as JSON has them.
fn flatten(table: &HashMap<&str, Message>, name: &str, into: &mut Vec<Field>) {
    for field in table.get(name).iter().flat_map(|message| &message.by_number) {
        match field.shape {
            Shape::Plain(Type::Message(inner)) | Shape::Optional(Type::Message(inner))
                if field.name == "." =>
            {
                flatten(table, inner, into);
            }
            _ => into.push(*field),
        }
    }
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
        "int32" => Type::Int32,
        "int64" => Type::Int64,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood_and_every_message_is_there() {
        let lines = include_str!("types.txt").lines();
        let fields = lines.clone().filter(|line| line.starts_with(' ')).count();
        let parsed: usize = TABLE.values().map(|message| message.by_number.len()).sum();
        assert_eq!(parsed, fields);
        for (name, message) in TABLE.iter() {
            for field in &message.by_number {
                let (Shape::Plain(kind)
                | Shape::Optional(kind)
                | Shape::List(kind)
                | Shape::Map(kind)) = field.shape;
                if let Type::Message(inner) = kind {
                    assert!(TABLE.contains_key(inner), "{name}.{}: no {inner}", field.name);
                }
            }
            let names: Vec<_> = message.by_name.iter().map(|field| field.name).collect();
            let mut once = names.clone();
            once.dedup();
            assert_eq!(names, once, "{name} has a field twice");
        }
    }

    #[test]
    fn inlined_fields_are_found_by_name() {
        let (_, volume) = message("core.Volume").unwrap();
        assert_eq!(volume.by_name("emptyDir").map(|field| field.name), Some("emptyDir"));
        assert_eq!(volume.by_name("."), None);
    }
}
