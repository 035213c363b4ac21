//! One operation on a path, and how each version of OpenAPI writes it.

use serde_json::{Map, Value, json};

use super::{Dialect, names};

/// A parameter: its name and type.
pub(super) type Parameter = (&'static str, &'static str);

/// What a request carries.
pub(super) enum Body {
    Nothing,
    /// An object of this component.
    Object(String),
    /// `DeleteOptions`, which may be left out.
    Options,
    /// A patch in one of these media types.
    Patch(&'static [&'static str]),
}

/// What a request gets.
pub(super) enum Answer {
    /// An object of this component.
    Object(String),
    /// A stream or a text.
    Text,
}

/// One operation.
pub(super) struct Operation {
    /// In lower case.
    pub(super) method: &'static str,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    /// Group, version and kind of what it is about.
    pub(super) kind: Option<(String, String, String)>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Body,
    pub(super) answer: Answer,
    /// The codes of success.
    pub(super) codes: &'static [&'static str],
}

const JSON: &str = "application/json";
const STREAM: &str = "application/json;stream=watch";

impl Operation {
    pub(super) fn write(&self, dialect: Dialect) -> Value {
        let mut parameters: Vec<Value> = self
            .parameters
            .iter()
            .map(|(name, kind)| parameter(dialect, "query", name, kind))
            .collect();
        let mut fields = Map::new();
        fields.insert("operationId".to_owned(), self.id.as_str().into());
        fields.insert("tags".to_owned(), json!([self.tag]));
        if !self.action.is_empty() {
            fields.insert("x-kubernetes-action".to_owned(), self.action.into());
        }
        if let Some((group, version, kind)) = &self.kind {
            fields.insert(
                "x-kubernetes-group-version-kind".to_owned(),
                json!({"group": group, "version": version, "kind": kind}),
            );
        }
        if let Some((schema, required, media_types)) = self.sent(dialect) {
            match dialect {
                Dialect::V2 => {
                    parameters.push(json!({
                        "name": "body", "in": "body", "required": required, "schema": schema,
                    }));
                    fields.insert("consumes".to_owned(), json!(media_types));
                }
                Dialect::V3 => {
                    let content: Map<String, Value> = media_types
                        .iter()
                        .map(|media| ((*media).to_owned(), json!({"schema": schema})))
                        .collect();
                    let body = json!({"content": content, "required": required});
                    fields.insert("requestBody".to_owned(), body);
                }
            }
        }
        if dialect == Dialect::V2 {
            fields.insert("produces".to_owned(), json!(self.media_types()));
        }
        if !parameters.is_empty() {
            fields.insert("parameters".to_owned(), parameters.into());
        }
        fields.insert("responses".to_owned(), self.responses(dialect));
        Value::Object(fields)
    }

    /// The schema of the body, whether it must be there, and its media types.
    fn sent(&self, dialect: Dialect) -> Option<(Value, bool, &'static [&'static str])> {
        match &self.body {
            Body::Nothing => None,
            Body::Object(component) => Some((dialect.reference(component), true, &["*/*"])),
            Body::Options => {
                Some((dialect.reference(&names::of_meta("DeleteOptions")), false, &["*/*"]))
            }
            Body::Patch(media_types) => {
                Some((dialect.reference(&names::of_meta("Patch")), true, media_types))
            }
        }
    }

    fn media_types(&self) -> &'static [&'static str] {
        match (&self.answer, self.action) {
            (Answer::Text, _) => &["*/*"],
            (_, "list") => &[JSON, STREAM],
            _ => &[JSON],
        }
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let schema = match &self.answer {
            Answer::Object(component) => dialect.reference(component),
            Answer::Text => json!({"type": "string"}),
        };
        let mut responses = Map::new();
        for code in self.codes {
            let description = match *code {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            let response = match dialect {
                Dialect::V2 => json!({"description": description, "schema": schema}),
                Dialect::V3 => {
                    let content: Map<String, Value> = self
                        .media_types()
                        .iter()
                        .map(|media| ((*media).to_owned(), json!({"schema": schema})))
                        .collect();
                    json!({"description": description, "content": content})
                }
            };
            responses.insert((*code).to_owned(), response);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(responses)
    }
}

/// A parameter in a path or query. Those in paths are always there.
pub(super) fn parameter(dialect: Dialect, place: &str, name: &str, kind: &str) -> Value {
    let mut parameter = json!({"name": name, "in": place});
    if let Some(fields) = parameter.as_object_mut() {
        if place == "path" {
            fields.insert("required".to_owned(), true.into());
        }
        match dialect {
            Dialect::V2 => {
                fields.insert("type".to_owned(), kind.into());
                fields.insert("uniqueItems".to_owned(), true.into());
            }
            Dialect::V3 => {
                fields.insert("schema".to_owned(), json!({"type": kind, "uniqueItems": true}));
            }
        }
    }
    parameter
}
