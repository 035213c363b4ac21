//! What the control plane must know of one kind: a row of the table of built-in kinds, and the same as
//! a value that the server serves.
//!
//! The server is generic over [`Resource`]s. Adding a kind is adding a row ([`BuiltIn`]), never a
//! handler; custom kinds come and go at run time with a [`Behaviour`] of their own.

use std::{borrow::Cow, fmt::Debug, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    decode::{DecodeError, Decoded, decode},
    error::{FieldError, GroupResource},
    place::Place,
    types,
};

/// Every verb that stored resources have.
pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A name that is either in the program or came at run time.
pub type Text = Cow<'static, str>;

/// One built-in kind: a row of the table.
#[derive(Debug)]
pub struct BuiltIn {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind, such as `Pod`.
    pub kind: &'static str,
    /// Kind of the list, such as `PodList`.
    pub list_kind: &'static str,
    /// Name in paths, such as `pods`.
    pub plural: &'static str,
    /// Singular name for people.
    pub singular: &'static str,
    /// Abbreviations for people, such as `po`.
    pub short_names: &'static [&'static str],
    /// Groups of kinds for people, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What may be done with it.
    pub verbs: &'static [&'static str],
    /// Paths below an object.
    pub subresources: &'static [Subresource],
    /// How writes are treated.
    pub strategy: Strategy,
    /// Columns of its tables.
    pub columns: &'static [Column],
    /// Cells of an object's row, one per column.
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
    /// The message of the kind in the table of types, such as `apps.Deployment`.
    pub message: &'static str,
    /// Fills in what the client left out.
    pub default: fn(&mut Value),
    /// What is wrong with an object on its own.
    pub validate: fn(&Value) -> Vec<FieldError>,
    /// What is wrong with an object that is being created, beside that.
    pub validate_create: fn(&Value) -> Vec<FieldError>,
    /// What is wrong with a change: `(new, old)`.
    pub validate_update: fn(&Value, &Value) -> Vec<FieldError>,
    /// Fields that select, beside `metadata.name` and `metadata.namespace`.
    pub field_selectors: &'static [&'static str],
    /// The kind as which its objects are kept, when that is another one.
    pub stored: Option<&'static StoredAs>,
}

/// Objects of one kind that are kept as another, as Events of both groups are.
#[derive(Debug)]
pub struct StoredAs {
    /// API group of the kept kind; empty for the core group.
    pub group: &'static str,
    /// Its plural name.
    pub plural: &'static str,
    /// An object as it is kept, of one as it is served.
    pub to_stored: fn(Value) -> Value,
    /// An object as it is served, of one as it is kept.
    pub to_served: fn(Value) -> Value,
}

/// A path below an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// Last segment of the path.
    pub name: &'static str,
    /// Group of the kind that it speaks, if it differs from the resource's.
    pub group: Text,
    /// Version of that kind.
    pub version: Text,
    /// Kind that it speaks.
    pub kind: Text,
    /// What may be done with it.
    pub verbs: &'static [&'static str],
}

/// How writes of a kind are treated.
#[derive(Debug, Clone, Copy)]
pub struct Strategy {
    /// Whether `status` is written only through its subresource.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    pub counts_generation: bool,
    /// Whether deletion gives grace while it is bound to a node (pods).
    pub graceful: bool,
    /// Whether a deletion is answered with the deleted object; else with a `Status` that names it.
    pub returns_deleted: bool,
    /// What names may look like.
    pub name_rule: fn(&str) -> Vec<String>,
    /// The status that a new object starts with, whatever the client sent.
    pub initial_status: fn(&Value) -> Value,
}

/// What a `scale` subresource shows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// How many replicas it wants.
    pub wanted: i64,
    /// How many there are.
    pub present: i64,
    /// The selector of its pods as a text; empty if it tells none.
    pub selector: String,
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Header.
    pub name: Text,
    /// JSON type: `string`, `integer`, `boolean`, `number`.
    pub kind: &'static str,
    /// `name` for the first column, else a format such as `date`, or empty.
    pub format: Text,
    /// 0 always shown; above, only in wide output.
    pub priority: i32,
    /// What it means.
    pub description: Text,
}

/// One kind as the server serves it.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: Text,
    /// API version.
    pub version: Text,
    /// Kind, such as `Pod`.
    pub kind: Text,
    /// Kind of the list, such as `PodList`.
    pub list_kind: Text,
    /// Name in paths, such as `pods`.
    pub plural: Text,
    /// Singular name for people.
    pub singular: Text,
    /// Abbreviations for people, such as `po`.
    pub short_names: Vec<Text>,
    /// Groups of kinds for people, such as `all`.
    pub categories: Vec<Text>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What may be done with it.
    pub verbs: &'static [&'static str],
    /// Paths below an object.
    pub subresources: Vec<Subresource>,
    /// How writes are treated.
    pub strategy: Strategy,
    /// Columns of its tables.
    pub columns: Vec<Column>,
    /// Fields that select, beside `metadata.name` and `metadata.namespace`.
    pub field_selectors: Vec<Text>,
    /// API group of the kind as which objects are kept.
    pub stored_group: Text,
    /// Plural name of the kind as which objects are kept.
    pub stored_plural: Text,
    /// What is particular to the kind.
    pub behaviour: Arc<dyn Behaviour>,
}

/// What is particular to a kind: its shape, its defaults, its rules.
pub trait Behaviour: Debug + Send + Sync {
    /// Decodes strictly: values have the types of the kind, unknown fields fall out.
    ///
    /// # Errors
    /// When a value has a wrong type.
    fn decode(&self, object: Value) -> Result<Decoded, DecodeError>;
    /// Fills in what the client left out.
    fn default(&self, object: &mut Value);
    /// What is wrong with an object, and with its change if there is an `old` one.
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError>;
    /// Cells of an object's row, one per column.
    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value>;
    /// Whether objects are kept otherwise than they are served.
    fn converts(&self) -> bool {
        false
    }
    /// An object as it is kept, of one as it is served.
    fn to_stored(&self, object: Value) -> Value {
        object
    }
    /// An object as it is served, of one as it is kept.
    fn to_served(&self, object: Value) -> Value {
        object
    }
    /// How objects are merged by server-side apply, and how their fields are owned.
    fn place(&self) -> Place<'_> {
        Place::UNKNOWN
    }
    /// The OpenAPI version 3 components of a custom kind and of its list, by name
    /// ([`component`](crate::openapi::component)); built-in kinds have theirs in the table of types.
    fn components(&self) -> serde_json::Map<String, Value> {
        serde_json::Map::new()
    }
    /// What clients are told at each request, as that the version is deprecated.
    fn warning(&self) -> Option<&str> {
        None
    }
    /// Changes an object whose deletion begins, as by a finalizer that waits for what depends on it.
    fn begin_deletion(&self, _object: &mut Value) {}
    /// What a custom kind's `scale` subresource shows of an object.
    fn scale(&self, _object: &Value) -> Option<Scale> {
        None
    }
    /// Sets the number of replicas that a custom kind's object wants; whether it could.
    fn set_replicas(&self, _object: &mut Value, _replicas: i64) -> bool {
        false
    }
    /// The row of the table of built-in kinds; `None` for custom kinds, which take no strategic merge
    /// patch.
    fn built_in(&self) -> Option<&'static BuiltIn> {
        None
    }
}

impl Behaviour for &'static BuiltIn {
    fn decode(&self, object: Value) -> Result<Decoded, DecodeError> {
        decode(self.message, object)
    }

    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = (self.validate)(object);
        errors.extend(match old {
            Some(old) => (self.validate_update)(object, old),
            None => (self.validate_create)(object),
        });
        errors
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.row)(object, now)
    }

    fn converts(&self) -> bool {
        self.stored.is_some()
    }

    fn to_stored(&self, object: Value) -> Value {
        match self.stored {
            Some(stored) => (stored.to_stored)(object),
            None => object,
        }
    }

    fn to_served(&self, object: Value) -> Value {
        match self.stored {
            Some(stored) => (stored.to_served)(object),
            None => object,
        }
    }

    fn place(&self) -> Place<'_> {
        BuiltIn::place(self)
    }

    fn built_in(&self) -> Option<&'static BuiltIn> {
        Some(self)
    }
}

impl From<&'static BuiltIn> for Resource {
    fn from(row: &'static BuiltIn) -> Self {
        let texts =
            |names: &'static [&'static str]| names.iter().copied().map(Text::from).collect();
        Self {
            group: row.group.into(),
            version: row.version.into(),
            kind: row.kind.into(),
            list_kind: row.list_kind.into(),
            plural: row.plural.into(),
            singular: row.singular.into(),
            short_names: texts(row.short_names),
            categories: texts(row.categories),
            namespaced: row.namespaced,
            verbs: row.verbs,
            subresources: row.subresources.to_vec(),
            strategy: row.strategy,
            columns: row.columns.to_vec(),
            field_selectors: texts(row.field_selectors),
            stored_group: row.stored.map_or(row.group, |stored| stored.group).into(),
            stored_plural: row.stored.map_or(row.plural, |stored| stored.plural).into(),
            behaviour: Arc::new(row),
        }
    }
}

impl BuiltIn {
    /// Decodes strictly: see [`decode`].
    ///
    /// # Errors
    /// When a value has a wrong type.
    pub fn decode(&self, object: Value) -> Result<Decoded, DecodeError> {
        decode(self.message, object)
    }

    /// How objects are merged by server-side apply, and how their fields are owned.
    #[must_use]
    pub fn place(&self) -> Place<'static> {
        types::message(self.message).map_or(Place::UNKNOWN, Place::of_message)
    }

    /// `group/version`, or the version alone for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }
}

impl Resource {
    /// `group/version`, or the version alone for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// What errors call it.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.to_string(), resource: self.plural.to_string() }
    }

    /// Whether it is the built-in kind of that row.
    #[must_use]
    pub fn is(&self, row: &BuiltIn) -> bool {
        self.behaviour.built_in().is_some_and(|own| std::ptr::eq(own, row))
    }

    /// The subresource of that name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// All fields that a field selector may compare.
    #[must_use]
    pub fn selectable_fields(&self) -> Vec<&str> {
        let mut fields = vec!["metadata.name"];
        if self.namespaced {
            fields.push("metadata.namespace");
        }
        fields.extend(self.field_selectors.iter().map(|field| &**field));
        fields
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
