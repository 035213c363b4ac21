//! Messages of the table of types as schemas, and all that they refer to.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{Dialect, custom, describe, message_of, names};
use crate::{
    Resource,
    types::{self, Field, MergeType, Message, SCHEMA, Shape, Type},
};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

/// The schemas of a document as they come together.
pub(super) struct Schemas<'s> {
    dialect: Dialect,
    /// Every group and version that is served.
    served: &'s [(&'s str, &'s str)],
    made: Map<String, Value>,
    /// What is made or will be.
    known: HashSet<&'static str>,
    pending: Vec<&'static Message>,
}

impl<'s> Schemas<'s> {
    pub(super) fn new(dialect: Dialect, served: &'s [(&'s str, &'s str)]) -> Self {
        let (made, known, pending) = (Map::new(), HashSet::new(), Vec::new());
        Self { dialect, served, made, known, pending }
    }

    /// A message, and later all that it refers to.
    pub(super) fn add_message(&mut self, name: &str) {
        let Some(message) = types::message(name) else { return };
        if self.known.insert(message.name()) {
            self.pending.push(message);
        }
    }

    /// The kind of a resource, its list, the kinds of its subresources, and what requests for them
    /// send and get.
    pub(super) fn add_resource(&mut self, resource: &Resource) {
        for name in ["meta.DeleteOptions", "meta.Status", "meta.WatchEvent", "meta.ListMeta"] {
            self.add_message(name);
        }
        self.made.entry(names::of_meta("Patch")).or_insert_with(
            || json!({"type": "object", "description": "A change in any of the forms of a patch."}),
        );
        for subresource in &resource.subresources {
            let kind = message_of(&subresource.group, &subresource.version, &subresource.kind);
            if let Some(message) = kind {
                self.add_message(message.name());
            }
        }
        let Some(row) = resource.behaviour.built_in() else {
            self.add_message("meta.ObjectMeta");
            for (name, schema) in resource.behaviour.components() {
                let schema =
                    if self.dialect == Dialect::V2 { custom::in_version_2(schema) } else { schema };
                self.made.insert(name, schema);
            }
            // A kind that publishes nothing is an object of which nothing more is known.
            for (name, kind) in [
                (names::component(resource), &resource.kind),
                (names::of_list(resource), &resource.list_kind),
            ] {
                self.made.entry(name).or_insert_with(|| {
                    let mut schema = json!({"type": "object"});
                    identify(&mut schema, &[(&resource.group, &resource.version)], kind);
                    schema
                });
            }
            return;
        };
        self.add_message(row.message);
        let items = self.element(row.message, Type::Message(row.message));
        let metadata = self.sibling(self.dialect.reference(&names::of_meta("ListMeta")), true);
        let mut list = json!({
            "type": "object",
            "description": format!("{} is a list of {}.", resource.list_kind, resource.kind),
            "properties": {
                "items": {"type": "array", "items": items, "description": "The objects."},
                "metadata": metadata,
            },
            "required": ["items"],
        });
        add_kind(&mut list, &[(&resource.group, &resource.version)], &resource.list_kind);
        self.made.insert(names::of_list(resource), list);
    }

    /// Everything that was added, and everything that it refers to.
    pub(super) fn finish(mut self) -> Map<String, Value> {
        while let Some(message) = self.pending.pop() {
            let schema = self.message(message);
            self.made.insert(names::of_message(message.name()), schema);
        }
        self.made
    }

    fn message(&mut self, message: &'static Message) -> Value {
        let mut schema = json!({"type": "object"});
        if let Some(description) = describe::message(message.name()) {
            set(&mut schema, "description", description);
        }
        let properties: Map<String, Value> = message
            .fields()
            .iter()
            .map(|field| (field.name.to_owned(), self.property(message, field)))
            .collect();
        let required: Vec<&str> = message
            .fields()
            .iter()
            .filter(|field| field.required)
            .map(|field| field.name)
            .collect();
        if !properties.is_empty() {
            set(&mut schema, "properties", properties);
        }
        if !required.is_empty() {
            set(&mut schema, "required", required);
        }
        if message.is_atomic() {
            set(&mut schema, "x-kubernetes-map-type", "atomic");
        }
        let kind = message.short_name();
        match message.name() {
            // These are sent to and by every version of every group.
            "meta.DeleteOptions" => add_kind(&mut schema, self.served, kind),
            "meta.WatchEvent" => identify(&mut schema, self.served, kind),
            name if message.has_kind() => {
                let group = names::api_group(name.split('.').next().unwrap_or_default());
                add_kind(&mut schema, &[(&group, "v1")], kind);
            }
            _ => {}
        }
        schema
    }

    fn property(&mut self, owner: &Message, field: &Field) -> Value {
        let mut schema = match field.shape {
            Shape::Plain(kind) => self.single(owner.name(), kind, true),
            Shape::Optional(kind) => self.single(owner.name(), kind, false),
            Shape::List(kind) => {
                json!({"type": "array", "items": self.element(owner.name(), kind)})
            }
            Shape::Map(kind) => {
                json!({"type": "object", "additionalProperties": self.element(owner.name(), kind)})
            }
            Shape::MapOfLists => {
                let items = self.element(owner.name(), Type::Text);
                json!({"type": "object", "additionalProperties": {"type": "array", "items": items}})
            }
        };
        if self.dialect == Dialect::V3 {
            let default = match (field.shape, field.default) {
                (shape, Some(text)) => Some(said(shape.of(), text)),
                (Shape::Plain(kind), None) if field.required => zero(kind),
                _ => None,
            };
            if let Some(default) = default {
                set(&mut schema, "default", default);
            }
        }
        if let Some(description) = describe::field(owner.name(), field.name) {
            set(&mut schema, "description", description);
        }
        Self::merging(&mut schema, field);
        schema
    }

    /// How patches and server-side apply treat the field.
    fn merging(schema: &mut Value, field: &Field) {
        let patch = field.patch;
        let words =
            [(patch.merge, "merge"), (patch.retain_keys, "retainKeys"), (patch.replace, "replace")];
        let words: Vec<&str> =
            words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect();
        let is_list = matches!(field.shape, Shape::List(_));
        let kind = if is_list { "x-kubernetes-list-type" } else { "x-kubernetes-map-type" };
        let merge_type = field.merge_type.map(|merge_type| match merge_type {
            MergeType::Atomic => "atomic",
            MergeType::Granular => "granular",
            MergeType::Set => "set",
            MergeType::Map(_) => "map",
        });
        if words.is_empty() && merge_type.is_none() {
            return;
        }
        if !words.is_empty() {
            set(schema, "x-kubernetes-patch-strategy", words.join(","));
        }
        if let Some(key) = patch.merge_key {
            set(schema, "x-kubernetes-patch-merge-key", key);
        }
        if let Some(merge_type) = merge_type {
            set(schema, kind, merge_type);
        }
        if let Some(MergeType::Map(keys)) = field.merge_type {
            set(schema, "x-kubernetes-list-map-keys", keys.iter().collect::<Vec<_>>());
        }
    }

    /// An item of a list, or a value of a map.
    fn element(&mut self, owner: &str, kind: Type) -> Value {
        let mut schema = self.single(owner, kind, true);
        if let (Dialect::V3, Some(default)) = (self.dialect, zero(kind)) {
            set(&mut schema, "default", default);
        }
        schema
    }

    /// One value; where a message is held itself, absence is its zero.
    fn single(&mut self, owner: &str, kind: Type, held: bool) -> Value {
        let component = match kind {
            Type::Text => return json!({"type": "string"}),
            Type::Int32 => return json!({"type": "integer", "format": "int32"}),
            Type::Int64 => return json!({"type": "integer", "format": "int64"}),
            Type::Double => return json!({"type": "number", "format": "double"}),
            Type::Boolean => return json!({"type": "boolean"}),
            Type::Bytes => return json!({"type": "string", "format": "byte"}),
            Type::Message(name) => {
                self.add_message(name);
                let reference = self.dialect.reference(&names::of_message(name));
                return self.sibling(reference, held);
            }
            Type::Time => names::of_meta("Time"),
            Type::MicroTime => names::of_meta("MicroTime"),
            Type::Quantity => QUANTITY.to_owned(),
            Type::IntOrString => INT_OR_STRING.to_owned(),
            Type::Raw => raw(owner),
            Type::SchemaOrBool => names::of_extension("JSONSchemaPropsOrBool"),
            Type::SchemaOrArray => names::of_extension("JSONSchemaPropsOrArray"),
            Type::SchemaOrTexts => names::of_extension("JSONSchemaPropsOrStringArray"),
        };
        if !self.made.contains_key(&component) {
            if matches!(kind, Type::SchemaOrBool | Type::SchemaOrArray | Type::SchemaOrTexts) {
                self.add_message(SCHEMA);
            }
            self.made.insert(component.clone(), scalar(self.dialect, kind, &component));
        }
        let reference = self.dialect.reference(&component);
        self.sibling(reference, held && component == RAW_EXTENSION)
    }

    /// A reference that may have something beside it: in version 3 it goes into an `allOf`.
    fn sibling(&self, schema: Value, held: bool) -> Value {
        if self.dialect == Dialect::V2 || schema.get("$ref").is_none() {
            return schema;
        }
        if held { json!({"allOf": [schema], "default": {}}) } else { json!({"allOf": [schema]}) }
    }
}

/// The type of JSON within a message.
fn raw(owner: &str) -> String {
    match owner {
        "meta.ManagedFieldsEntry" => names::of_meta("FieldsV1"),
        SCHEMA => names::of_extension("JSON"),
        _ => RAW_EXTENSION.to_owned(),
    }
}

/// The component of a type that is written in a form of its own.
fn scalar(dialect: Dialect, kind: Type, component: &str) -> Value {
    match (kind, dialect) {
        (Type::Time | Type::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Type::Quantity, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}],
            "description": "An amount: a decimal number with an optional suffix such as m, k or Mi."}),
        (Type::Quantity, Dialect::V2) => json!({"type": "string",
            "description": "An amount: a decimal number with an optional suffix such as m, k or Mi."}),
        (Type::IntOrString, Dialect::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Type::IntOrString, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Type::Raw, _) if !component.ends_with(".JSON") => json!({"type": "object"}),
        _ => json!({"description": "A value in one of several forms."}),
    }
}

/// The default that a field gives as text.
fn said(kind: Type, text: &str) -> Value {
    match kind {
        Type::Boolean => Value::Bool(text == "true"),
        _ => text.into(),
    }
}

/// What absence of a value that must be there counts as.
fn zero(kind: Type) -> Option<Value> {
    match kind {
        Type::Text => Some("".into()),
        Type::Int32 | Type::Int64 | Type::Double => Some(0.into()),
        Type::Boolean => Some(false.into()),
        Type::Message(_) => Some(json!({})),
        _ => None,
    }
}

fn set(schema: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(fields) = schema.as_object_mut() {
        fields.insert(name.to_owned(), value.into());
    }
}

/// `apiVersion` and `kind`, and whose kind it is.
fn add_kind(schema: &mut Value, versions: &[(&str, &str)], kind: &str) {
    if let Some(properties) = schema.get_mut("properties") {
        for name in ["apiVersion", "kind"] {
            let description = describe::field("*", name);
            set(properties, name, json!({"type": "string", "description": description}));
        }
    }
    identify(schema, versions, kind);
}

fn identify(schema: &mut Value, versions: &[(&str, &str)], kind: &str) {
    let kinds: Vec<Value> = versions
        .iter()
        .map(|(group, version)| json!({"group": group, "version": version, "kind": kind}))
        .collect();
    set(schema, "x-kubernetes-group-version-kind", kinds);
}
