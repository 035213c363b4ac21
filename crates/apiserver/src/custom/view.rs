//! A CustomResourceDefinition's parts by name.

use serde_json::Value;
use toono_api::meta::{at, items_at, text_at};

/// What keeps a definition until its objects are gone.
pub(super) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A definition.
#[derive(Clone, Copy)]
pub(super) struct View<'v>(pub(super) &'v Value);

impl<'v> View<'v> {
    fn text(self, path: &[&str]) -> &'v str {
        text_at(self.0, path).unwrap_or_default()
    }

    pub(super) fn name(self) -> &'v str {
        self.text(&["metadata", "name"])
    }

    pub(super) fn uid(self) -> &'v str {
        self.text(&["metadata", "uid"])
    }

    pub(super) fn generation(self) -> Option<i64> {
        at(self.0, &["metadata", "generation"]).and_then(Value::as_i64)
    }

    pub(super) fn group(self) -> &'v str {
        self.text(&["spec", "group"])
    }

    pub(super) fn plural(self) -> &'v str {
        self.text(&["spec", "names", "plural"])
    }

    pub(super) fn is_namespaced(self) -> bool {
        self.text(&["spec", "scope"]) == "Namespaced"
    }

    pub(super) fn is_terminating(self) -> bool {
        text_at(self.0, &["metadata", "deletionTimestamp"]).is_some()
    }

    pub(super) fn waits_for_objects(self) -> bool {
        items_at(self.0, &["metadata", "finalizers"]).any(|one| one == FINALIZER)
    }

    pub(super) fn versions(self) -> impl Iterator<Item = &'v Value> {
        items_at(self.0, &["spec", "versions"])
    }

    pub(super) fn storage_version(self) -> &'v str {
        self.versions()
            .find(|version| flag(version, "storage"))
            .and_then(|version| text_at(version, &["name"]))
            .unwrap_or_default()
    }

    /// The names that were asked for.
    pub(super) fn names(self) -> Names<'v> {
        Names(at(self.0, &["spec", "names"]).unwrap_or(&Value::Null))
    }

    /// The names that are its own.
    pub(super) fn accepted(self) -> Names<'v> {
        Names(at(self.0, &["status", "acceptedNames"]).unwrap_or(&Value::Null))
    }

    pub(super) fn condition(self, kind: &str) -> Option<&'v Value> {
        items_at(self.0, &["status", "conditions"])
            .find(|condition| text_at(condition, &["type"]) == Some(kind))
    }

    pub(super) fn is_true(self, kind: &str) -> bool {
        let condition = self.condition(kind);
        condition.is_some_and(|condition| text_at(condition, &["status"]) == Some("True"))
    }

    /// Whether its names were accepted once, so that there may be objects.
    pub(super) fn is_established(self) -> bool {
        self.is_true("Established")
    }
}

/// The names of a kind.
#[derive(Clone, Copy)]
pub(super) struct Names<'v>(pub(super) &'v Value);

impl<'v> Names<'v> {
    pub(super) fn text(self, field: &str) -> &'v str {
        text_at(self.0, &[field]).unwrap_or_default()
    }

    pub(super) fn texts(self, field: &str) -> impl Iterator<Item = &'v str> {
        self.0.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }
}

/// A flag of a map; false where it is absent.
pub(super) fn flag(map: &Value, field: &str) -> bool {
    map.get(field).and_then(Value::as_bool).unwrap_or(false)
}
