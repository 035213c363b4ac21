//! What the control plane must know of one kind: the shape of a row of the resource table.
//!
//! The server is generic over these rows. Adding a kind is adding a row, never a handler.

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    decode::{DecodeError, Decoded, decode},
    error::{FieldError, GroupResource},
    merge::MergeSchema,
};

/// Every verb that stored resources have.
pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One kind.
#[derive(Debug)]
pub struct Resource {
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
    /// What is wrong with a change: `(new, old)`.
    pub validate_update: fn(&Value, &Value) -> Vec<FieldError>,
    /// Fields that select, beside `metadata.name` and `metadata.namespace`.
    pub field_selectors: &'static [&'static str],
    /// How lists are merged by a strategic merge patch.
    pub merge: &'static MergeSchema,
}

/// A path below an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// Last segment of the path.
    pub name: &'static str,
    /// Group of the kind that it speaks, if it differs from the resource's.
    pub group: &'static str,
    /// Version of that kind.
    pub version: &'static str,
    /// Kind that it speaks.
    pub kind: &'static str,
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
    /// What names may look like.
    pub name_rule: fn(&str) -> Vec<String>,
    /// The status that a new object starts with, whatever the client sent.
    pub initial_status: fn(&Value) -> Value,
}

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Header.
    pub name: &'static str,
    /// JSON type: `string`, `integer`, `boolean`, `number`.
    pub kind: &'static str,
    /// `name` for the first column, else empty.
    pub format: &'static str,
    /// 0 always shown; above, only in wide output.
    pub priority: i32,
    /// What it means.
    pub description: &'static str,
}

impl Resource {
    /// Decodes strictly: see [`decode`].
    ///
    /// # Errors
    /// When a value has a wrong type.
    pub fn decode(&self, object: Value) -> Result<Decoded, DecodeError> {
        decode(self.message, object)
    }

    /// `group/version`, or the version alone for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// What errors call it.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.to_owned(), resource: self.plural.to_owned() }
    }

    /// The subresource of that name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// All fields that a field selector may compare.
    #[must_use]
    pub fn selectable_fields(&self) -> Vec<&'static str> {
        let mut fields = vec!["metadata.name"];
        if self.namespaced {
            fields.push("metadata.namespace");
        }
        fields.extend(self.field_selectors);
        fields
    }
}
