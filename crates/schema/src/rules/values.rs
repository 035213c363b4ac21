//! JSON values as CEL sees them: by the schema's types, with only the fields that it names.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube_cel::cel::objects::{Key, Map, Value as Cel};
use serde_json::{Number, Value};

use crate::formats::{Format, duration};
use crate::node::{Node, Type};
use crate::rules::meter::Meter;
use crate::validate::is_map;

/// Words that cannot be field names in CEL.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name that a rule uses for a field, by the escapes that Kubernetes documents.
pub(crate) fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// Converts a value, or `None` when the budget does not reach.
pub(crate) fn convert(value: &Value, node: Option<&Node>, meter: &Meter) -> Option<Cel> {
    if !meter.pay(1) {
        return None;
    }
    Some(match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => convert_number(number, node),
        Value::String(text) => convert_text(text, node),
        Value::Array(items) => {
            let schema = node.and_then(|node| node.items.as_deref());
            let items: Option<Vec<Cel>> =
                items.iter().map(|item| convert(item, schema, meter)).collect();
            Cel::List(Arc::new(items?))
        }
        Value::Object(map) => convert_map(map, node, meter)?,
    })
}

fn convert_map(
    map: &serde_json::Map<String, Value>,
    node: Option<&Node>,
    meter: &Meter,
) -> Option<Cel> {
    let has_user_keys = node.is_none_or(is_map);
    let mut fields = HashMap::with_capacity(map.len());
    for (name, value) in map {
        let implicit = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        let bare = |child: &Node| {
            child.kind == Some(Type::Object) && child.properties.is_empty() && !is_map(child)
        };
        let schema = node.and_then(|node| node.child(name));
        // Most schemas say no more of metadata than that it is an object.
        let schema = schema.filter(|child| name != "metadata" || !bare(child));
        // What a schema does not name, rules cannot see.
        if schema.is_none() && !has_user_keys && !implicit {
            continue;
        }
        let value = convert(value, schema, meter)?;
        let name = if has_user_keys { name.clone() } else { escaped(name) };
        fields.insert(Key::String(Arc::new(name)), value);
    }
    Some(Cel::Map(Map { map: Arc::new(fields) }))
}

fn convert_number(number: &Number, node: Option<&Node>) -> Cel {
    let is_number = node.is_some_and(|node| node.kind == Some(Type::Number));
    let float = number.as_f64().unwrap_or(f64::NAN);
    match number.as_i64() {
        Some(whole) if !is_number => Cel::Int(whole),
        _ if is_number => Cel::Float(float),
        _ => match number.as_u64() {
            Some(whole) => Cel::UInt(whole),
            None => convert_float(float, node),
        },
    }
}

/// 3.0 is an integer where the schema says so.
fn convert_float(float: f64, node: Option<&Node>) -> Cel {
    let is_integer = node.is_some_and(|node| node.kind == Some(Type::Integer));
    if is_integer && float.fract() == 0.0 && Format::Int64.fits(float) {
        #[expect(clippy::cast_possible_truncation, reason = "checked to fit just above")]
        return Cel::Int(float as i64);
    }
    Cel::Float(float)
}

fn convert_text(text: &str, node: Option<&Node>) -> Cel {
    let format =
        node.and_then(|node| node.checks.as_ref()).and_then(|checks| checks.format.as_ref());
    let plain = || Cel::String(Arc::new(text.to_owned()));
    match format {
        Some(Format::DateTime) => {
            chrono::DateTime::parse_from_rfc3339(text).map_or_else(|_| plain(), Cel::Timestamp)
        }
        Some(Format::Duration) => duration(text).map_or_else(plain, Cel::Duration),
        Some(Format::Byte) => {
            STANDARD.decode(text).map_or_else(|_| plain(), |bytes| Cel::Bytes(Arc::new(bytes)))
        }
        _ => plain(),
    }
}
