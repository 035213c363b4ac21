//! What the built-in kinds are made of, as one table: every message, its fields and their types.
//!
//! `types.txt` has a line for each message and, indented below it, one for each of its fields:
//! protobuf number, JSON name (`.` for a message whose fields are inlined), type, facts. They are
//! what Kubernetes' Go types say in their tags. Of a type, `*` marks a field whose zero is not the
//! same as its absence, `[]` a list, `map` a map with text keys. The facts, words after the type:
//!
//! | word | Kubernetes' term |
//! |---|---|
//! | `required` | the field must be there |
//! | `merge`, `merge=KEY` | `patchStrategy: merge`, with `patchMergeKey` for a list of objects |
//! | `retainKeys`, `replace` | the same words of `patchStrategy` |
//! | `atomic`, `set`, `map=KEY,KEY`, `granular` | `listType` with `listMapKeys`, `mapType`, `structType` |
//! | `default=VALUE` | the default that the schema gives; a value of a list's key is known by it |
//!
//! Behind a message's name, `kind` says that it has `apiVersion` and `kind` besides, and `atomic`
//! that it is merged as a whole wherever it occurs (`structType: atomic`).
//!
//! JSON, protobuf, strategic merge, server-side apply and OpenAPI all go by this table: generated
//! types would be megabytes of code that say the same.

mod parse;

use std::{collections::HashMap, fmt, sync::LazyLock};

/// Every message that the server knows.
static TABLE: LazyLock<HashMap<&'static str, Message>> =
    LazyLock::new(|| parse::table(include_str!("types.txt")));

/// The message of that name, such as `core.Pod`.
#[must_use]
pub fn message(name: &str) -> Option<&'static Message> {
    TABLE.get(name)
}

/// Every message, in no order.
pub fn messages() -> impl Iterator<Item = &'static Message> {
    TABLE.values()
}

/// The message of a built-in kind.
#[must_use]
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or_default();
    match kind {
        // Written in the group of what is deleted.
        "DeleteOptions" => message("meta.DeleteOptions"),
        kind if version == "v1" => message(&format!("{group}.{kind}")),
        _ => None,
    }
}

/// One message: an object with named fields.
#[derive(Debug, Default)]
pub struct Message {
    name: &'static str,
    has_kind: bool,
    atomic: bool,
    /// Ordered by number.
    by_number: Vec<Field>,
    /// Ordered by name, those of inlined messages among them.
    by_name: Vec<Field>,
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// In protobuf.
    pub number: u32,
    /// JSON name; `.` when the fields of the message are inlined.
    pub name: &'static str,
    /// Its type.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
    /// How a strategic merge patch treats it.
    pub patch: Patch,
    /// How server-side apply treats it, if the field says it.
    pub merge_type: Option<MergeType>,
    /// The schema's default, as text.
    pub default: Option<&'static str>,
}

/// The `patchStrategy` of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Patch {
    /// A list is merged, not replaced.
    pub merge: bool,
    /// The field by which items of a merged list of objects are matched.
    pub merge_key: Option<&'static str>,
    /// `$retainKeys` may clear the object's other fields.
    pub retain_keys: bool,
    /// An object is replaced, not merged.
    pub replace: bool,
}

/// The `listType`, `mapType` or `structType` of a field: how it is owned and merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeType {
    /// As a whole.
    Atomic,
    /// Field by field, entry by entry: what maps and objects are if nothing is said.
    Granular,
    /// A list of values, each there once.
    Set,
    /// A list of objects, each known by these of its fields.
    Map(Keys),
}

/// The `listMapKeys` of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys(&'static str);

/// How often a field occurs, and what its absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Absent and zero are one.
    Plain(Type),
    /// A zero is said.
    Optional(Type),
    /// A list.
    List(Type),
    /// From text.
    Map(Type),
    /// From text to lists of texts: what a user's `extra` is.
    MapOfLists,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// UTF-8.
    Text,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// A number with a fraction.
    Double,
    /// True or false.
    Boolean,
    /// Base64 in JSON.
    Bytes,
    /// RFC 3339, to the second.
    Time,
    /// RFC 3339, to the microsecond.
    MicroTime,
    /// An amount.
    Quantity,
    /// A number or a text.
    IntOrString,
    /// JSON within.
    Raw,
    /// An `apiextensions.JSONSchemaProps` or a truth value.
    SchemaOrBool,
    /// One or a list of them.
    SchemaOrArray,
    /// One or a list of texts.
    SchemaOrTexts,
    /// An object.
    Message(&'static str),
}

/// What the three types that may be a schema have in them.
pub const SCHEMA: &str = "apiextensions.JSONSchemaProps";

// === impl Message ===

impl Message {
    /// Its name in the table, such as `core.PodSpec`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// `PodSpec` of `core.PodSpec`.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        short_name(self.name)
    }

    /// Whether it has `apiVersion` and `kind` beside its fields.
    #[must_use]
    pub fn has_kind(&self) -> bool {
        self.has_kind
    }

    /// Whether it is owned and merged as a whole, wherever it occurs (`structType: atomic`).
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.atomic
    }

    /// The fields as JSON has them, ordered by name; `apiVersion` and `kind` are not among them.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.by_name
    }

    /// The field of that JSON name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let found = self.by_name.binary_search_by_key(&name, |field| field.name);
        found.ok().and_then(|at| self.by_name.get(at))
    }

    /// The fields as protobuf has them, ordered by number, inlined messages as one.
    #[must_use]
    pub fn numbered(&self) -> &[Field] {
        &self.by_number
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<&Field> {
        let found = self.by_number.binary_search_by_key(&number, |field| field.number);
        found.ok().and_then(|at| self.by_number.get(at))
    }
}

// === impl Field ===

impl Field {
    /// The message that it holds, that its list has as items or its map as values.
    #[must_use]
    pub fn message(&self) -> Option<&'static Message> {
        match self.shape.of() {
            Type::Message(name) => message(name),
            _ => None,
        }
    }

    /// How server-side apply owns and merges it: what the field says, else what its patch strategy
    /// and its type imply.
    #[must_use]
    pub fn merges_as(&self) -> MergeType {
        if let Some(said) = self.merge_type {
            return said;
        }
        match (self.shape, self.patch) {
            (Shape::List(_), Patch { merge: true, merge_key: Some(key), .. }) => {
                MergeType::Map(Keys(key))
            }
            (Shape::List(_), Patch { merge: true, .. }) => MergeType::Set,
            (Shape::List(_), _) => MergeType::Atomic,
            (Shape::Map(_) | Shape::MapOfLists, _) => MergeType::Granular,
            (Shape::Plain(Type::Message(name)) | Shape::Optional(Type::Message(name)), _)
                if !message(name).is_some_and(Message::is_atomic) =>
            {
                MergeType::Granular
            }
            (Shape::Plain(_) | Shape::Optional(_), _) => MergeType::Atomic,
        }
    }
}

// === impl Keys ===

impl Keys {
    /// Each of the keys.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        self.0.split(',')
    }
}

// === impl Shape ===

impl Shape {
    /// The type of the value, of the items or of the map's values.
    #[must_use]
    pub fn of(self) -> Type {
        match self {
            Self::Plain(kind) | Self::Optional(kind) | Self::List(kind) | Self::Map(kind) => kind,
            Self::MapOfLists => Type::Text,
        }
    }
}

/// As Go names it, for messages that Kubernetes' users know.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(kind) | Self::Optional(kind) => kind.fmt(f),
            Self::List(kind) => write!(f, "[]{kind}"),
            Self::Map(kind) => write!(f, "map[string]{kind}"),
            Self::MapOfLists => f.write_str("map[string]v1.ExtraValue"),
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
            Self::Double => "float64",
            Self::Boolean => "bool",
            Self::Bytes => "[]uint8",
            Self::Time => "v1.Time",
            Self::MicroTime => "v1.MicroTime",
            Self::Quantity => "resource.Quantity",
            Self::IntOrString => "intstr.IntOrString",
            Self::Raw => "runtime.RawExtension",
            Self::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
            Self::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
            Self::SchemaOrTexts => "v1.JSONSchemaPropsOrStringArray",
            Self::Message(name) => return write!(f, "v1.{}", short_name(name)),
        })
    }
}

/// `PodSpec` of `core.PodSpec`.
pub(crate) fn short_name(message: &str) -> &str {
    message.rsplit('.').next().unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_there_and_has_no_field_twice() {
        for message in messages() {
            let name = message.name();
            for field in message.numbered() {
                if let Type::Message(inner) = field.shape.of() {
                    assert!(TABLE.contains_key(inner), "{name}.{}: no {inner}", field.name);
                }
                assert!(field.number > 0, "{name}.{} has no number", field.name);
            }
            let mut numbers: Vec<_> = message.numbered().iter().map(|field| field.number).collect();
            numbers.dedup();
            assert_eq!(numbers.len(), message.numbered().len(), "{name} has a number twice");
            let names: Vec<_> = message.fields().iter().map(|field| field.name).collect();
            let mut once = names.clone();
            once.dedup();
            assert_eq!(names, once, "{name} has a field twice");
        }
    }

    #[test]
    fn keys_of_merged_lists_are_fields_of_their_items() {
        for message in messages() {
            for field in message.fields() {
                let place = format!("{}.{}", message.name(), field.name);
                let mut keys: Vec<&str> = field.patch.merge_key.into_iter().collect();
                match field.merge_type {
                    Some(MergeType::Map(map)) => keys.extend(map.iter()),
                    Some(MergeType::Set) => {
                        assert!(matches!(field.shape, Shape::List(_)), "{place} is no list");
                    }
                    _ => {}
                }
                for key in keys {
                    assert!(matches!(field.shape, Shape::List(_)), "{place} is no list");
                    let items = field.message().unwrap_or_else(|| panic!("{place} has no objects"));
                    assert!(items.field(key).is_some(), "{place} is keyed by {key}");
                }
            }
        }
    }

    #[test]
    fn facts_are_read() {
        let spec = message("core.PodSpec").unwrap();
        let volumes = spec.field("volumes").unwrap();
        assert_eq!(
            volumes.patch,
            Patch { merge: true, merge_key: Some("name"), retain_keys: true, replace: false }
        );
        assert!(spec.field("containers").unwrap().required && !volumes.required);
        let ports = message("core.Container").unwrap().field("ports").unwrap();
        let MergeType::Map(keys) = ports.merges_as() else { panic!("ports are no map") };
        assert_eq!(keys.iter().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        assert_eq!(ports.message().unwrap().field("protocol").unwrap().default, Some("TCP"));
        let metadata = message("meta.ObjectMeta").unwrap();
        assert_eq!(metadata.field("finalizers").unwrap().merges_as(), MergeType::Set);
        assert_eq!(metadata.field("labels").unwrap().merges_as(), MergeType::Granular);
        assert_eq!(spec.field("tolerations").unwrap().merges_as(), MergeType::Atomic);
        let claim = message("core.PersistentVolumeSpec").unwrap().field("claimRef").unwrap();
        assert_eq!(claim.merges_as(), MergeType::Granular);
        assert!(claim.message().unwrap().is_atomic());
        assert_eq!(spec.field("nodeSelector").unwrap().merges_as(), MergeType::Atomic);
    }

    #[test]
    fn inlined_fields_are_found_by_name() {
        let volume = message("core.Volume").unwrap();
        assert_eq!(volume.field("emptyDir").map(|field| field.name), Some("emptyDir"));
        assert_eq!(volume.field("."), None);
    }
}
