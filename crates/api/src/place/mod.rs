//! What a merge must know of each place of an object: is it one thing, or do its parts have owners
//! of their own, and what tells the items of a list apart.
//!
//! A [`Place`] is a way through the table of types, or through what is left of an OpenAPI schema
//! ([`SchemaPlace`]); it holds nothing itself. It knows no values and merges none.

mod schema;

use serde_json::Value;

use crate::types::{self, Field, MergeType, Message, Shape, Type};

use schema::{ListSchema, ObjectSchema};
pub use schema::{SCHEMA_MAX_DEPTH, SchemaPlace};

/// How a place of an object is merged. A value that has not the shape of its place (a text where a
/// list is expected) is one thing.
#[derive(Debug, Clone, Copy)]
pub enum Place<'p> {
    /// One thing: a scalar, an atomic list, an atomic map.
    Atomic,
    /// Nothing is known: each key of a map has its owner, a list is one thing.
    Deduced,
    /// A map with named fields that have owners.
    Object(Object<'p>),
    /// A map of free names, each of which has an owner.
    Map(Values<'p>),
    /// A list whose items are scalars, each there once.
    Set,
    /// A list of maps, told apart by keys.
    List(List<'p>),
}

/// What a map's field is.
#[derive(Debug, Clone, Copy)]
pub struct Child<'p> {
    /// How it is merged.
    pub place: Place<'p>,
    /// Whether the type names it. A named field that holds a map or a list is owned through its
    /// parts; under other names the place itself has an owner too.
    pub named: bool,
    /// The name as the table of types has it, if it does.
    pub name: Option<&'static str>,
}

impl<'p> Child<'p> {
    fn of(place: Place<'p>, named: bool) -> Self {
        Self { place, named, name: None }
    }
}

/// A map with named fields.
#[derive(Debug, Clone, Copy)]
pub struct Object<'p> {
    fields: Fields<'p>,
    always: bool,
}

#[derive(Debug, Clone, Copy)]
enum Fields<'p> {
    Table(&'static Message),
    Schema(&'p ObjectSchema),
    /// Of an object of the API of which nothing is known.
    Unknown,
}

/// What is under the free names of a map.
#[derive(Debug, Clone, Copy)]
pub struct Values<'p>(Content<'p>);

#[derive(Debug, Clone, Copy)]
enum Content<'p> {
    Table(Type),
    Schema(&'p SchemaPlace),
}

/// A list of maps, told apart by keys.
#[derive(Debug, Clone, Copy)]
pub struct List<'p>(Items<'p>);

#[derive(Debug, Clone, Copy)]
enum Items<'p> {
    Table(types::Keys, &'static Message),
    Schema(&'p ListSchema),
}

/// A field that tells the items of a list apart.
#[derive(Debug, Clone, Copy)]
pub struct Key<'p> {
    /// Name of the field.
    pub name: &'p str,
    /// What it is if it is left out.
    pub default: Option<KeyDefault<'p>>,
}

/// What a key is if it is left out.
#[derive(Debug, Clone, Copy)]
pub enum KeyDefault<'p> {
    /// A text.
    Text(&'p str),
    /// Any value.
    Value(&'p Value),
}

// === impl Place ===

impl<'p> Place<'p> {
    /// An object of the API of which nothing else is known.
    pub const UNKNOWN: Place<'static> =
        Place::Object(Object { fields: Fields::Unknown, always: false });

    /// Objects of a message of the table of types.
    #[must_use]
    pub fn of_message(message: &'static Message) -> Self {
        Self::Object(Object { fields: Fields::Table(message), always: false })
    }

    /// What a map's field is; `None` when the type has no such field.
    #[must_use]
    pub fn field(self, name: &str) -> Option<Child<'p>> {
        match self {
            Self::Object(object) => object.field(name),
            Self::Map(Values(Content::Table(kind))) => Some(Child::of(Self::of_type(kind), false)),
            Self::Map(Values(Content::Schema(values))) => Some(Child::of(values.place(), false)),
            Self::Deduced => Some(Child::of(Self::Deduced, false)),
            Self::Atomic | Self::Set | Self::List(_) => Some(Child::of(Self::Atomic, false)),
        }
    }

    /// What the items of a list are.
    #[must_use]
    pub fn item(self) -> Self {
        match self {
            Self::List(List(Items::Table(_, message))) => {
                if message.is_atomic() {
                    Self::Atomic
                } else {
                    Self::of_message(message)
                }
            }
            Self::List(List(Items::Schema(list))) => list.item.place(),
            _ => Self::Atomic,
        }
    }

    /// Whether the fields of a value here have owners of their own.
    #[must_use]
    pub fn divides_maps(self) -> bool {
        matches!(self, Self::Object(_) | Self::Map(_) | Self::Deduced)
    }

    /// Whether the map is there even if it is empty, as those are that Kubernetes' types embed by
    /// value (`spec`, `metadata`). Nobody adds or removes such a place.
    #[must_use]
    pub fn is_always_there(self) -> bool {
        matches!(self, Self::Object(object) if object.always)
    }

    pub(super) fn of_object_schema(schema: &'p ObjectSchema) -> Self {
        Self::Object(Object { fields: Fields::Schema(schema), always: false })
    }

    pub(super) fn of_values(values: &'p SchemaPlace) -> Self {
        Self::Map(Values(Content::Schema(values)))
    }

    pub(super) fn of_list_schema(list: &'p ListSchema) -> Self {
        Self::List(List(Items::Schema(list)))
    }

    fn metadata() -> Self {
        match types::message("meta.ObjectMeta") {
            Some(message) => Self::Object(Object { fields: Fields::Table(message), always: true }),
            None => Self::Deduced,
        }
    }

    fn of_field(field: &'static Field) -> Self {
        match (field.merges_as(), field.shape) {
            (MergeType::Set, _) => Self::Set,
            (MergeType::Map(keys), _) => match field.message() {
                Some(message) => Self::List(List(Items::Table(keys, message))),
                None => Self::Atomic,
            },
            (MergeType::Granular, Shape::Map(kind)) => Self::Map(Values(Content::Table(kind))),
            // The lists within are one thing each.
            (MergeType::Granular, Shape::MapOfLists) => {
                Self::Map(Values(Content::Table(Type::Text)))
            }
            (MergeType::Granular, shape) => match field.message() {
                Some(message) => Self::Object(Object {
                    fields: Fields::Table(message),
                    always: matches!(shape, Shape::Plain(_)),
                }),
                None => Self::Atomic,
            },
            (MergeType::Atomic, Shape::Plain(Type::Raw) | Shape::Optional(Type::Raw)) => {
                Self::Deduced
            }
            (MergeType::Atomic, _) => Self::Atomic,
        }
    }

    fn of_type(kind: Type) -> Self {
        match kind {
            Type::Message(name) => match types::message(name) {
                Some(message) if !message.is_atomic() => Self::of_message(message),
                _ => Self::Atomic,
            },
            Type::Raw => Self::Deduced,
            _ => Self::Atomic,
        }
    }
}

// === impl Object ===

impl<'p> Object<'p> {
    fn field(self, name: &str) -> Option<Child<'p>> {
        match self.fields {
            Fields::Table(message) => match message.field(name) {
                Some(field) => Some(Child {
                    place: Place::of_field(field),
                    named: true,
                    name: Some(field.name),
                }),
                None if message.has_kind() => of_whole(name),
                None => None,
            },
            Fields::Schema(schema) => match schema.fields.get(name) {
                _ if schema.whole && of_whole(name).is_some() => of_whole(name),
                Some(place) => Some(Child::of(place.place(), true)),
                None => schema.rest.as_ref().map(|rest| Child::of(rest.place(), false)),
            },
            Fields::Unknown => of_whole(name).or(Some(Child::of(Place::Deduced, false))),
        }
    }
}

/// What every object of the API has.
fn of_whole(name: &str) -> Option<Child<'static>> {
    let (name, place) = match name {
        "apiVersion" => ("apiVersion", Place::Atomic),
        "kind" => ("kind", Place::Atomic),
        "metadata" => ("metadata", Place::metadata()),
        _ => return None,
    };
    Some(Child { place, named: true, name: Some(name) })
}

// === impl List ===

impl<'p> List<'p> {
    /// The fields that together tell an item.
    pub fn keys(self) -> impl Iterator<Item = Key<'p>> {
        let (table, schema) = match self.0 {
            Items::Table(keys, message) => (Some((keys, message)), None),
            Items::Schema(list) => (None, Some(list)),
        };
        let table = table.into_iter().flat_map(|(keys, message)| {
            keys.iter().map(|name| {
                let default = message.field(name).and_then(|field| field.default);
                Key { name, default: default.map(KeyDefault::Text) }
            })
        });
        let schema = schema.into_iter().flat_map(|list| &list.keys);
        table.chain(
            schema.map(|(name, default)| Key {
                name,
                default: default.as_ref().map(KeyDefault::Value),
            }),
        )
    }
}
