//! A compiled schema in memory: what each node of it holds. Names and texts are shared.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use crate::formats::Format;
use crate::rules::Rule;

/// The JSON type that a node demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(crate) const ALL: [Self; 6] =
        [Self::Array, Self::Boolean, Self::Integer, Self::Number, Self::Object, Self::String];

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) fn is_scalar(self) -> bool {
        !matches!(self, Self::Object | Self::Array)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What may stand beside the named properties of an object.
#[derive(Debug, Clone, Default)]
pub(crate) enum Additional {
    #[default]
    Unspecified,
    Any,
    Of(Box<Node>),
}

/// How a list's entries are told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Unspecified,
    Atomic,
    Set,
    Map(Box<[Arc<str>]>),
}

/// One level of a schema.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) kind: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    pub(crate) int_or_string: bool,
    /// `x-kubernetes-map-type: atomic` if true, `granular` if false.
    pub(crate) atomic_map: Option<bool>,
    pub(crate) list: ListType,
    /// Sorted by name.
    pub(crate) properties: Box<[(Arc<str>, Node)]>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) required: Box<[Arc<str>]>,
    pub(crate) default: Option<Box<Value>>,
    /// Absent where a node says nothing but its shape, which most do.
    pub(crate) checks: Option<Box<Checks>>,
    pub(crate) docs: Option<Box<Docs>>,
    pub(crate) rules: Box<[Rule]>,
}

impl Node {
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        let found = self.properties.binary_search_by(|(key, _)| key.as_ref().cmp(name)).ok()?;
        self.properties.get(found).map(|(_, node)| node)
    }

    /// The schema of the value under `name`: the property's own, else that of the map's values.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.property(name).or(match &self.additional {
            Additional::Of(node) => Some(node),
            _ => None,
        })
    }
}

/// What a value must fulfil besides its type.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checks {
    pub(crate) format: Option<Format>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) max_properties: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) allowed: Option<Box<[Value]>>,
    pub(crate) all_of: Box<[Node]>,
    pub(crate) any_of: Box<[Node]>,
    pub(crate) one_of: Box<[Node]>,
    pub(crate) not: Option<Box<Node>>,
}

/// What a node tells people.
#[derive(Debug, Clone, Default)]
pub(crate) struct Docs {
    pub(crate) title: Option<Arc<str>>,
    pub(crate) description: Option<Arc<str>>,
    pub(crate) external_docs: Option<Value>,
    pub(crate) example: Option<Value>,
}
