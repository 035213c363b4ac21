//! `JSONSchemaProps` into a compiled node. Refuses what does not decode; that a schema is
//! structural is `structural`'s to judge, before this.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use regex::Regex;
use serde_json::{Map, Value};

use crate::error::{Errors, FieldError};
use crate::formats::Format;
use crate::node::{Additional, Checks, Docs, ListType, Node, Type};
use crate::path::Path;
use crate::rules::{RawRule, Rule};

/// Most rules that one schema may have, and most different patterns. Each takes some 50 us to compile, and a
/// definition has room for tens of thousands; those of real kinds have some hundred at most.
const MAX_COMPILED: usize = 1000;

/// Compiles `raw`, reporting what does not decode.
pub(crate) fn node(raw: &Value, path: &Path<'_>, errors: &mut Errors) -> Node {
    let mut parser = Parser { errors, names: HashSet::new(), patterns: HashMap::new(), rules: 0 };
    parser.node(raw, path)
}

struct Parser<'e> {
    errors: &'e mut Errors,
    /// Every name and text once, however often a schema repeats it.
    names: HashSet<Arc<str>>,
    /// Every pattern once; none for what is not one.
    patterns: HashMap<Arc<str>, Option<Regex>>,
    /// How many rules there were so far.
    rules: usize,
}

impl Parser<'_> {
    fn node(&mut self, raw: &Value, path: &Path<'_>) -> Node {
        let Some(map) = raw.as_object() else {
            self.errors.push(FieldError::type_invalid(path, json_type(raw), "must be a schema"));
            return Node::default();
        };
        Node {
            kind: self.text(map, "type", path).and_then(|name| Type::of_name(&name)),
            nullable: self.flag(map, "nullable", path),
            preserve_unknown: self.flag(map, "x-kubernetes-preserve-unknown-fields", path),
            embedded: self.flag(map, "x-kubernetes-embedded-resource", path),
            int_or_string: self.flag(map, "x-kubernetes-int-or-string", path),
            atomic_map: map
                .get("x-kubernetes-map-type")
                .and_then(Value::as_str)
                .map(|kind| kind == "atomic"),
            list: self.list_type(map, path),
            properties: self.properties(map, path),
            additional: self.additional(map, path),
            items: map.get("items").map(|items| Box::new(self.node(items, &path.field("items")))),
            required: self.texts(map, "required", path),
            // A null is no default, as in Kubernetes.
            default: map.get("default").filter(|raw| !raw.is_null()).cloned().map(Box::new),
            checks: self.checks(map, path),
            docs: self.docs(map, path),
            rules: self.rules(map, path),
        }
    }

    fn properties(&mut self, map: &Map<String, Value>, path: &Path<'_>) -> Box<[(Arc<str>, Node)]> {
        let Some(raw) = map.get("properties") else { return Box::default() };
        let path = path.field("properties");
        let Some(raw) = raw.as_object() else {
            self.errors.push(FieldError::type_invalid(&path, json_type(raw), "must be an object"));
            return Box::default();
        };
        let mut properties: Vec<_> = raw
            .iter()
            .map(|(name, raw)| (self.share(name), self.node(raw, &path.key(name))))
            .collect();
        properties.sort_by(|(left, _), (right, _)| left.cmp(right));
        properties.into()
    }

    fn additional(&mut self, map: &Map<String, Value>, path: &Path<'_>) -> Additional {
        match map.get("additionalProperties") {
            None | Some(Value::Bool(false)) => Additional::Unspecified,
            Some(Value::Bool(true)) => Additional::Any,
            Some(raw) => {
                Additional::Of(Box::new(self.node(raw, &path.field("additionalProperties"))))
            }
        }
    }

    fn list_type(&mut self, map: &Map<String, Value>, path: &Path<'_>) -> ListType {
        match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("atomic") => ListType::Atomic,
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(self.texts(map, "x-kubernetes-list-map-keys", path)),
            _ => ListType::Unspecified,
        }
    }

    fn checks(&mut self, map: &Map<String, Value>, path: &Path<'_>) -> Option<Box<Checks>> {
        const KEYS: [&str; 19] = [
            "format",
            "maximum",
            "exclusiveMaximum",
            "minimum",
            "exclusiveMinimum",
            "multipleOf",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "uniqueItems",
            "maxProperties",
            "minProperties",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !KEYS.iter().any(|key| map.contains_key(*key)) {
            return None;
        }
        Some(Box::new(Checks {
            format: self.text(map, "format", path).map(|name| Format::of_name(&name)),
            maximum: self.number(map, "maximum", path),
            exclusive_maximum: self.flag(map, "exclusiveMaximum", path),
            minimum: self.number(map, "minimum", path),
            exclusive_minimum: self.flag(map, "exclusiveMinimum", path),
            multiple_of: self.number(map, "multipleOf", path),
            max_length: self.count(map, "maxLength", path),
            min_length: self.count(map, "minLength", path),
            pattern: self.pattern(map, path),
            max_items: self.count(map, "maxItems", path),
            min_items: self.count(map, "minItems", path),
            unique_items: self.flag(map, "uniqueItems", path),
            max_properties: self.count(map, "maxProperties", path),
            min_properties: self.count(map, "minProperties", path),
            allowed: map.get("enum").and_then(Value::as_array).map(|all| all.clone().into()),
            all_of: self.junctor(map, "allOf", path),
            any_of: self.junctor(map, "anyOf", path),
            one_of: self.junctor(map, "oneOf", path),
            not: map.get("not").map(|raw| Box::new(self.node(raw, &path.field("not")))),
        }))
    }

    fn junctor(&mut self, map: &Map<String, Value>, name: &str, path: &Path<'_>) -> Box<[Node]> {
        let path = path.field(name);
        let all = map.get(name).and_then(Value::as_array).into_iter().flatten().enumerate();
        all.map(|(index, raw)| self.node(raw, &path.index(index))).collect()
    }

    fn pattern(&mut self, map: &Map<String, Value>, path: &Path<'_>) -> Option<Regex> {
        let source = self.text(map, "pattern", path).filter(|source| !source.is_empty())?;
        if let Some(known @ Some(_)) = self.patterns.get(&source) {
            return known.clone();
        }
        let path = path.field("pattern");
        if self.patterns.len() >= MAX_COMPILED {
            let detail = format!("a schema may have at most {MAX_COMPILED} different patterns");
            self.errors.push(FieldError::forbidden(&path, &detail));
            return None;
        }
        let compiled = Regex::new(&source);
        if let Err(error) = &compiled {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            let value = Value::String(source.to_string());
            self.errors.push(FieldError::invalid(&path, &value, detail));
        }
        let compiled = compiled.ok();
        self.patterns.insert(source, compiled.clone());
        compiled
    }

    fn docs(&mut self, map: &Map<String, Value>, path: &Path<'_>) -> Option<Box<Docs>> {
        let docs = Docs {
            title: self.text(map, "title", path),
            description: self.text(map, "description", path),
            external_docs: map.get("externalDocs").cloned(),
            example: map.get("example").cloned(),
        };
        let empty = docs.title.is_none()
            && docs.description.is_none()
            && docs.external_docs.is_none()
            && docs.example.is_none();
        (!empty).then(|| Box::new(docs))
    }

    fn rules(&mut self, map: &Map<String, Value>, path: &Path<'_>) -> Box<[Rule]> {
        let path = path.field("x-kubernetes-validations");
        let all = map.get("x-kubernetes-validations").and_then(Value::as_array);
        let mut rules = Vec::new();
        for (index, raw) in all.into_iter().flatten().enumerate() {
            let path = path.index(index);
            self.rules += 1;
            if self.rules > MAX_COMPILED {
                let detail = format!("a schema may have at most {MAX_COMPILED} rules");
                self.errors.push(FieldError::forbidden(&path, &detail));
                break;
            }
            let raw = RawRule {
                rule: raw.get("rule").and_then(Value::as_str).unwrap_or_default(),
                message: raw.get("message").and_then(Value::as_str),
                message_expression: raw.get("messageExpression").and_then(Value::as_str),
                reason: raw.get("reason").and_then(Value::as_str),
                field_path: raw.get("fieldPath").and_then(Value::as_str),
                optional_old_self: raw.get("optionalOldSelf").and_then(Value::as_bool),
            };
            rules.extend(Rule::compile(&raw, &path, self.errors));
        }
        rules.into()
    }

    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return known.clone();
        }
        let shared: Arc<str> = text.into();
        self.names.insert(shared.clone());
        shared
    }

    /// Reports a field of the wrong JSON type and goes on as if it were absent.
    fn wrong(&mut self, raw: &Value, name: &str, path: &Path<'_>, expected: &str) {
        let detail = format!("must be {expected}");
        self.errors.push(FieldError::type_invalid(&path.field(name), json_type(raw), detail));
    }

    fn text(&mut self, map: &Map<String, Value>, name: &str, path: &Path<'_>) -> Option<Arc<str>> {
        match map.get(name)? {
            Value::String(text) => Some(self.share(text)),
            other => {
                self.wrong(other, name, path, "a string");
                None
            }
        }
    }

    fn texts(&mut self, map: &Map<String, Value>, name: &str, path: &Path<'_>) -> Box<[Arc<str>]> {
        let mut texts = Vec::new();
        for raw in map.get(name).and_then(Value::as_array).into_iter().flatten() {
            match raw {
                Value::String(text) => texts.push(self.share(text)),
                other => self.wrong(other, name, path, "a list of strings"),
            }
        }
        texts.into()
    }

    fn flag(&mut self, map: &Map<String, Value>, name: &str, path: &Path<'_>) -> bool {
        match map.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.wrong(other, name, path, "a boolean");
                false
            }
        }
    }

    fn number(&mut self, map: &Map<String, Value>, name: &str, path: &Path<'_>) -> Option<f64> {
        let raw = map.get(name)?;
        let number = raw.as_f64();
        if number.is_none() {
            self.wrong(raw, name, path, "a number");
        }
        number
    }

    fn count(&mut self, map: &Map<String, Value>, name: &str, path: &Path<'_>) -> Option<u64> {
        let raw = map.get(name)?;
        let count = raw.as_u64();
        if count.is_none() {
            self.wrong(raw, name, path, "a non-negative integer");
        }
        count
    }
}

/// The name of a value's JSON type, as Kubernetes' messages use it.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
