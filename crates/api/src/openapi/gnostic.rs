//! A version 2 document as protobuf: the messages of `openapi.v2` (gnostic's `OpenAPIv2.proto`), which
//! kubectl before 1.27 and Helm ask for.
//!
//! What the messages have no field for is left out; [`version_2`](super::version_2) makes none of it.

use serde_json::{Map, Value};

/// How the JSON of a field is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    Boolean,
    Integer,
    Double,
    /// `Any`: JSON as text, of which YAML readers know all.
    Json,
    /// A list of `Any`.
    Jsons,
    /// A message with these fields.
    Message(&'static Fields),
    /// A list of messages.
    Messages(&'static Fields),
    /// A message whose field 1 is repeated: a name (1) and a message (2) for each entry.
    Entries(&'static Fields),
    /// The same where entries are in another field.
    EntriesIn(u32, &'static Fields),
    /// `TypeItem`: field 1 repeats texts.
    Type,
    /// `ItemsItem`: field 1 repeats schemas.
    Items,
    /// `AdditionalPropertiesItem`: 1 a schema, 2 a truth value.
    Additional,
    /// `ParametersItem`s: in the body or not.
    Parameters,
    /// `Responses`: named `ResponseValue`s, whose field 1 is a response.
    Responses,
    /// `SchemaItem`: field 1 is a schema.
    SchemaItem,
}

/// The fields of a message, and the number of its extensions (`x-…`), if it has them.
struct Fields {
    named: &'static [(&'static str, u32, Form)],
    extensions: u32,
}

static DOCUMENT: Fields = Fields {
    named: &[
        ("swagger", 1, Form::Text),
        ("info", 2, Form::Message(&INFO)),
        ("paths", 8, Form::EntriesIn(2, &PATH)),
        ("definitions", 9, Form::Entries(&SCHEMA)),
    ],
    extensions: 16,
};
static INFO: Fields =
    Fields { named: &[("title", 1, Form::Text), ("version", 2, Form::Text)], extensions: 7 };
static PATH: Fields = Fields {
    named: &[
        ("get", 2, Form::Message(&OPERATION)),
        ("put", 3, Form::Message(&OPERATION)),
        ("post", 4, Form::Message(&OPERATION)),
        ("delete", 5, Form::Message(&OPERATION)),
        ("patch", 8, Form::Message(&OPERATION)),
        ("parameters", 9, Form::Parameters),
    ],
    extensions: 10,
};
static OPERATION: Fields = Fields {
    named: &[
        ("tags", 1, Form::Texts),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Texts),
        ("consumes", 7, Form::Texts),
        ("parameters", 8, Form::Parameters),
        ("responses", 9, Form::Responses),
    ],
    extensions: 13,
};
static BODY_PARAMETER: Fields = Fields {
    named: &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Boolean),
        ("schema", 5, Form::Message(&SCHEMA)),
    ],
    extensions: 6,
};
static QUERY_PARAMETER: Fields = Fields {
    named: &[
        ("required", 1, Form::Boolean),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 6, Form::Text),
        ("uniqueItems", 20, Form::Boolean),
    ],
    extensions: 23,
};
static PATH_PARAMETER: Fields = Fields {
    named: &[
        ("required", 1, Form::Boolean),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 5, Form::Text),
        ("uniqueItems", 19, Form::Boolean),
    ],
    extensions: 22,
};
static RESPONSE: Fields = Fields {
    named: &[("description", 1, Form::Text), ("schema", 2, Form::SchemaItem)],
    extensions: 5,
};
static SCHEMA: Fields = Fields {
    named: &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("title", 3, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Json),
        ("multipleOf", 6, Form::Double),
        ("maximum", 7, Form::Double),
        ("exclusiveMaximum", 8, Form::Boolean),
        ("minimum", 9, Form::Double),
        ("exclusiveMinimum", 10, Form::Boolean),
        ("maxLength", 11, Form::Integer),
        ("minLength", 12, Form::Integer),
        ("pattern", 13, Form::Text),
        ("maxItems", 14, Form::Integer),
        ("minItems", 15, Form::Integer),
        ("uniqueItems", 16, Form::Boolean),
        ("maxProperties", 17, Form::Integer),
        ("minProperties", 18, Form::Integer),
        ("required", 19, Form::Texts),
        ("enum", 20, Form::Jsons),
        ("additionalProperties", 21, Form::Additional),
        ("type", 22, Form::Type),
        ("items", 23, Form::Items),
        ("allOf", 24, Form::Messages(&SCHEMA)),
        ("properties", 25, Form::Entries(&SCHEMA)),
        ("example", 30, Form::Json),
    ],
    extensions: 31,
};

/// A version 2 document as protobuf.
#[must_use]
pub fn to_protobuf(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_fields(&mut out, document, &DOCUMENT);
    out
}

fn put_fields(out: &mut Vec<u8>, value: &Value, fields: &'static Fields) {
    let Some(object) = value.as_object() else { return };
    for (name, number, form) in fields.named {
        if let Some(value) = object.get(*name) {
            put(out, *number, value, *form);
        }
    }
    for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
        put_message(out, fields.extensions, |out| {
            put_text(out, 1, name);
            put(out, 2, value, Form::Json);
        });
    }
}

fn put(out: &mut Vec<u8>, number: u32, value: &Value, form: Form) {
    match (form, value) {
        (Form::Text, Value::String(text)) => put_text(out, number, text),
        (Form::Texts | Form::Jsons | Form::Messages(_), Value::Array(items)) => {
            let form = match form {
                Form::Texts => Form::Text,
                Form::Messages(fields) => Form::Message(fields),
                _ => Form::Json,
            };
            items.iter().for_each(|item| put(out, number, item, form));
        }
        (Form::Boolean, Value::Bool(true)) => put_number(out, number, 1),
        (Form::Integer, Value::Number(amount)) => {
            put_number(out, number, amount.as_i64().unwrap_or_default().cast_unsigned());
        }
        (Form::Double, Value::Number(amount)) => {
            put_varint(out, (u64::from(number) << 3) | 1);
            out.extend(amount.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Form::Json, value) => put_message(out, number, |out| put_text(out, 2, &value.to_string())),
        (Form::Message(fields), value) => {
            put_message(out, number, |out| put_fields(out, value, fields));
        }
        (Form::Entries(fields), Value::Object(entries)) => {
            put_message(out, number, |out| put_entries(out, 1, entries, fields));
        }
        (Form::EntriesIn(place, fields), Value::Object(entries)) => {
            put_message(out, number, |out| put_entries(out, place, entries, fields));
        }
        (Form::Type, Value::String(text)) => {
            put_message(out, number, |out| put_text(out, 1, text));
        }
        (Form::Items | Form::SchemaItem, schema @ Value::Object(_)) => {
            put_message(out, number, |out| put(out, 1, schema, Form::Message(&SCHEMA)));
        }
        (Form::Additional, Value::Bool(allowed)) => {
            put_message(out, number, |out| put_number(out, 2, u64::from(*allowed)));
        }
        (Form::Additional, schema) => {
            put_message(out, number, |out| put(out, 1, schema, Form::Message(&SCHEMA)));
        }
        (Form::Parameters, Value::Array(parameters)) => {
            parameters.iter().for_each(|parameter| put_parameter(out, number, parameter));
        }
        (Form::Responses, Value::Object(responses)) => {
            put_message(out, number, |out| put_responses(out, responses));
        }
        _ => {}
    }
}

fn put_entries(
    out: &mut Vec<u8>,
    number: u32,
    entries: &Map<String, Value>,
    fields: &'static Fields,
) {
    for (name, value) in entries {
        put_message(out, number, |out| {
            put_text(out, 1, name);
            put(out, 2, value, Form::Message(fields));
        });
    }
}

/// `ParametersItem` 1 → `Parameter` 1 a body, 2 → `NonBodyParameter` 3 in the query, 4 in the path.
fn put_parameter(out: &mut Vec<u8>, number: u32, parameter: &Value) {
    let (inner, place, fields) = match parameter.get("in").and_then(Value::as_str) {
        Some("body") => (1, None, &BODY_PARAMETER),
        Some("query") => (2, Some(3), &QUERY_PARAMETER),
        _ => (2, Some(4), &PATH_PARAMETER),
    };
    put_message(out, number, |out| {
        put_message(out, 1, |out| match place {
            None => put(out, inner, parameter, Form::Message(fields)),
            Some(place) => put_message(out, inner, |out| {
                put(out, place, parameter, Form::Message(fields));
            }),
        });
    });
}

fn put_responses(out: &mut Vec<u8>, responses: &Map<String, Value>) {
    for (code, response) in responses {
        put_message(out, 1, |out| {
            put_text(out, 1, code);
            put_message(out, 2, |out| put(out, 1, response, Form::Message(&RESPONSE)));
        });
    }
}

fn put_message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    put_bytes(out, number, &inner);
}

fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    put_bytes(out, number, text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, (u64::from(number) << 3) | 2);
    put_varint(out, u64::try_from(bytes.len()).unwrap_or_default());
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}
