//! A schema back as JSON, as OpenAPI v3 publishes it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::node::{Additional, Checks, Docs, ListType, Node, Type};
use crate::rules::Rule;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const API_VERSION: &str = "The version of the API that this object's form follows: the group, a \
                           slash, the version.";
const KIND: &str = "The kind of object that this is. Set at creation, never changed.";
const METADATA: &str = "Name, labels and what else every object has.";

/// What a published schema is named by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKind {
    /// As `apps.openyurt.io`.
    pub group: String,
    /// As `v1beta2`.
    pub version: String,
    /// As `NodePool`.
    pub kind: String,
    /// As `NodePoolList`.
    pub list_kind: String,
}

impl PublishedKind {
    /// The name of a component: the group reversed, the version, the kind.
    #[must_use]
    pub fn component(&self, kind: &str) -> String {
        let group: Vec<&str> = self.group.rsplit('.').collect();
        format!("{}.{}.{kind}", group.join("."), self.version)
    }

    fn identity(&self, kind: &str) -> Value {
        json!([{"group": self.group, "version": self.version, "kind": kind}])
    }
}

/// The components of a kind and of its list, by name. Both refer to the components of `ObjectMeta`
/// and `ListMeta`, which the document that they go into must have.
pub(crate) fn components(root: &Node, kind: &PublishedKind) -> Map<String, Value> {
    let name = kind.component(&kind.kind);
    let mut object = to_json(root);
    if let Some(map) = object.as_object_mut() {
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            add_implicit(properties, OBJECT_META);
        }
        map.insert("x-kubernetes-group-version-kind".to_owned(), kind.identity(&kind.kind));
    }
    let items = json!({"type": "array", "items": reference(&name)});
    let mut properties = Map::from_iter([("items".to_owned(), items)]);
    add_implicit(&mut properties, LIST_META);
    let list = json!({
        "type": "object",
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "required": ["items"],
        "properties": properties,
        "x-kubernetes-group-version-kind": kind.identity(&kind.list_kind),
    });
    Map::from_iter([(name, object), (kind.component(&kind.list_kind), list)])
}

fn reference(component: &str) -> Value {
    // A reference may have no siblings in OpenAPI 3.0, so it goes into an allOf where it has some.
    json!({"$ref": format!("#/components/schemas/{component}")})
}

fn add_implicit(properties: &mut Map<String, Value>, metadata: &str) {
    for (name, description) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let implicit = json!({"type": "string", "description": description});
        properties.entry(name).or_insert(implicit);
    }
    let metadata = json!({"allOf": [reference(metadata)], "description": METADATA, "default": {}});
    properties.insert("metadata".to_owned(), metadata);
}

/// A node as `JSONSchemaProps`.
pub(crate) fn to_json(node: &Node) -> Value {
    let mut out = Out(Map::new());
    if let Some(docs) = &node.docs {
        write_docs(&mut out, docs);
    }
    out.set("type", node.kind.map(Type::name));
    out.flag("nullable", node.nullable);
    out.set("default", node.default.as_deref().cloned());
    if let Some(checks) = &node.checks {
        write_checks(&mut out, checks);
    }
    out.list("required", node.required.iter().map(|name| json!(name.as_ref())));
    if !node.properties.is_empty() {
        let properties = node.properties.iter();
        let properties: Map<String, Value> =
            properties.map(|(name, node)| (name.to_string(), to_json(node))).collect();
        out.set("properties", Some(properties));
    }
    match &node.additional {
        Additional::Unspecified => {}
        Additional::Any => out.flag("additionalProperties", true),
        Additional::Of(node) => out.set("additionalProperties", Some(to_json(node))),
    }
    out.set("items", node.items.as_deref().map(to_json));
    write_extensions(&mut out, node);
    Value::Object(out.0)
}

fn write_docs(out: &mut Out, docs: &Docs) {
    out.set("title", docs.title.as_deref());
    out.set("description", docs.description.as_deref());
    out.set("externalDocs", docs.external_docs.clone());
    out.set("example", docs.example.clone());
}

fn write_checks(out: &mut Out, checks: &Checks) {
    out.set("format", checks.format.as_ref().map(|format| format.name()));
    out.set("maximum", checks.maximum.map(number));
    out.flag("exclusiveMaximum", checks.exclusive_maximum);
    out.set("minimum", checks.minimum.map(number));
    out.flag("exclusiveMinimum", checks.exclusive_minimum);
    out.set("multipleOf", checks.multiple_of.map(number));
    out.set("maxLength", checks.max_length);
    out.set("minLength", checks.min_length);
    out.set("pattern", checks.pattern.as_ref().map(|pattern| pattern.as_str()));
    out.set("maxItems", checks.max_items);
    out.set("minItems", checks.min_items);
    out.flag("uniqueItems", checks.unique_items);
    out.set("maxProperties", checks.max_properties);
    out.set("minProperties", checks.min_properties);
    out.set("enum", checks.allowed.as_ref().map(|allowed| allowed.to_vec()));
    out.list("allOf", checks.all_of.iter().map(to_json));
    out.list("anyOf", checks.any_of.iter().map(to_json));
    out.list("oneOf", checks.one_of.iter().map(to_json));
    out.set("not", checks.not.as_deref().map(to_json));
}

fn write_extensions(out: &mut Out, node: &Node) {
    out.flag("x-kubernetes-preserve-unknown-fields", node.preserve_unknown);
    out.flag("x-kubernetes-embedded-resource", node.embedded);
    out.flag("x-kubernetes-int-or-string", node.int_or_string);
    let map_type = node.atomic_map.map(|atomic| if atomic { "atomic" } else { "granular" });
    out.set("x-kubernetes-map-type", map_type);
    let list_type = match &node.list {
        ListType::Unspecified => None,
        ListType::Atomic => Some("atomic"),
        ListType::Set => Some("set"),
        ListType::Map(_) => Some("map"),
    };
    out.set("x-kubernetes-list-type", list_type);
    if let ListType::Map(keys) = &node.list {
        out.list("x-kubernetes-list-map-keys", keys.iter().map(|key| json!(key.as_ref())));
    }
    out.list("x-kubernetes-validations", node.rules.iter().map(rule));
}

fn rule(rule: &Rule) -> Value {
    let mut out = Out(Map::new());
    out.set("rule", Some(rule.source.as_ref()));
    out.set("message", rule.message.as_deref());
    let expression = rule.message_expression.as_ref();
    out.set("messageExpression", expression.map(|(source, _): &(Arc<str>, _)| source.as_ref()));
    out.set("reason", rule.reason_name.as_deref());
    let field_path = rule.field_path.as_ref();
    out.set("fieldPath", field_path.map(|path| path.source.as_ref()));
    out.set("optionalOldSelf", rule.optional_old_self);
    Value::Object(out.0)
}

/// Whole numbers without a fraction, as they were written.
fn number(float: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "only used where the cast is exact")]
    let whole = float as i64;
    #[expect(clippy::cast_precision_loss, reason = "the comparison is what detects a loss")]
    let is_exact = (whole as f64).to_bits() == float.to_bits();
    if is_exact { json!(whole) } else { json!(float) }
}

struct Out(Map<String, Value>);

impl Out {
    fn set(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.set(name, value.then_some(true));
    }

    fn list(&mut self, name: &str, values: impl Iterator<Item = Value>) {
        let values: Vec<Value> = values.collect();
        self.set(name, (!values.is_empty()).then_some(values));
    }
}
