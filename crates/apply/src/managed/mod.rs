//! Server-side apply: who owns which fields of an object, and what a write does to that.
//!
//! The rules are those of Kubernetes' structured merge. Pure: time comes in as text, objects as
//! JSON. It does not default, validate or decode objects, and does not know what a client may do.
//!
//! # How a server uses it
//!
//! `place` is that of the resource's behaviour (`toono_api::resource::Behaviour::place`); `reset` is
//! [`reset_fields`]; both are the same for every request to one path. The manager of a plain write is
//! its `fieldManager`, else its `User-Agent` up to the first slash; of an apply it is `fieldManager`,
//! which is then required. [`manager_name_error`] checks it.
//!
//! - `PATCH` with `application/apply-patch+yaml` (or `+cbor`): parse the body as an object, decode it
//!   strictly for its types but give [`apply`] what the client sent, not the defaulted object. The
//!   live object is `Value::Null` when there is none: the result is then to be created. Default,
//!   prepare, validate and store [`Applied::object`]; before storing, [`keep_times`]. Write nothing
//!   when the result equals the live object. [`ApplyError::Conflicts`] is answered with
//!   [`Conflicts::causes`] and code 409, the other errors with 400. There is no retry on a changed
//!   `resourceVersion` of the client's: only the server's own read and write must be atomic.
//! - `POST`, `PUT` and the other patches: after decoding and defaulting, and before storing, call
//!   [`update`] with the live object (`Value::Null` on creation) and the new one, which keeps the
//!   `managedFields` that the client sent: `kubectl` rewrites them by a JSON patch to move an object
//!   from client-side to server-side apply. Then [`keep_times`].
//! - The `scale` subresource: [`update`] with the scaled object and subresource `scale`. Writes of
//!   the server itself that are not of a client (defaults, deletion timestamps) are not tracked.
//! - `create` needs no name in the applied object beyond the path's; the caller checks both.

mod compare;
mod conflict;
mod created;
#[cfg(test)]
mod examples;
mod field_set;
mod identity;
mod items;
mod last_applied;
mod managers;
mod merge;
mod owned;
mod path;
mod plain;
mod settled;
mod timeless;
mod walk;

use std::sync::LazyLock;

use serde_json::{Map, Value};
use toono_api::Place;

pub use conflict::{Conflict, Conflicts};
pub use field_set::{FIELD_SET_MAX_DEPTH, FIELD_SET_MAX_PLACES, FieldSet, FieldSetError};
pub use identity::ItemError;
pub use managers::{
    ANCIENT_CHANGES, BEFORE_FIRST_APPLY, MANAGER_NAME_MAX_BYTES, ManagedFieldsError, ManagerId,
    Managers, Operation, Owned, UPDATE_MANAGERS_MAX, manager_name_error,
};
pub use path::{Element, ElementError, path_text};
pub use walk::ShapeError;

use compare::Comparison;
use owned::merge_and_own;

/// Who writes what, when.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// How objects of the kind are merged.
    pub place: Place<'a>,
    /// `group/version` in which the object is written.
    pub api_version: &'a str,
    /// Other versions in which the kind is served with the same fields. Entries of a version that is
    /// in neither are dropped, since nobody can tell what their fields are today.
    pub other_versions: &'a [&'a str],
    /// Name of the manager.
    pub manager: &'a str,
    /// Subresource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// Fields that a write through this path cannot change, whatever it says.
    pub reset: &'a FieldSet,
    /// The time, as RFC 3339 in UTC and whole seconds.
    pub now: &'a str,
}

/// What an apply makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The object, with its `managedFields`.
    pub object: Value,
    /// Whether it differs from the live one in anything.
    pub changed: bool,
}

/// Why an apply is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// What is applied is no object.
    #[error("the applied configuration must be an object")]
    NoObject,
    /// It has `managedFields`, which only the server writes.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// It is of another version than the path.
    #[error(
        "Incorrect version specified in apply patch. Specified patch version: {given}, expected: \
         {expected}"
    )]
    Version {
        /// What it says.
        given: String,
        /// What the path says.
        expected: String,
    },
    /// It has not the shape of its kind.
    #[error("failed to create typed patch object: {0}")]
    Shape(#[from] ShapeError),
    /// The live object's `managedFields` cannot be read.
    #[error("failed to decode managed fields: {0}")]
    Live(ManagedFieldsError),
    /// Others own places of it with other values.
    #[error(transparent)]
    Conflicts(#[from] Conflicts),
}

/// Applies a configuration to the live object (`Null` where there is none).
///
/// # Errors
/// When the configuration is malformed, or conflicts with what others own and `force` is not set.
pub fn apply(
    write: &Write<'_>,
    live: &Value,
    applied: &Value,
    force: bool,
) -> Result<Applied, ApplyError> {
    check_applied(write, applied)?;
    let recorded = Managers::decode(managed_fields(live)).map_err(ApplyError::Live)?;
    let managers = if recorded.is_empty() && live.is_object() {
        let first = Write { manager: BEFORE_FIRST_APPLY, ..*write };
        track(&first, recorded, changes(&first, &Value::Null, live))
    } else {
        current(write, recorded)
    };
    let (mut object, managers) = match merge_and_own(write, live, applied, &managers, force) {
        Err(conflicts) if write.manager == last_applied::KUBECTL => {
            match last_applied::places_kept(live, write.api_version, write.place) {
                None => return Err(conflicts.into()),
                Some(kept) => match conflicts.outside(&kept) {
                    Some(conflicts) => return Err(conflicts.into()),
                    None => merge_and_own(write, live, applied, &managers, true)?,
                },
            }
        }
        outcome => outcome?,
    };
    if write.manager == last_applied::KUBECTL {
        last_applied::renew(&mut object, applied);
    }
    set_managed_fields(&mut object, &managers);
    let changed = object != *live;
    Ok(Applied { object, changed })
}

/// Records a write that is no apply: `object`, which is about to be stored, gets its `managedFields`.
/// `live` is `Null` on creation.
///
/// `managedFields` that a client sent with the object replace the recorded ones; an empty list, or
/// one with an empty entry, clears them. Malformed ones, and those sent to a subresource, are
/// ignored. An object that was stored without them stays so until it is first applied.
pub fn update(write: &Write<'_>, live: &Value, object: &mut Value) {
    if live.is_null() && managed_fields(object).is_none_or(Value::is_null) {
        let record = created::record(write, object);
        set_field(object, record);
        return;
    }
    let changes = changes(write, live, object);
    if let Some(recorded) = managed_fields(live) {
        let sent = managed_fields(object).filter(|_| write.subresource.is_empty());
        let (set, removed) = &changes;
        if let Some(record) = settled::record(write, recorded, sent, set, removed) {
            set_field(object, Some(record));
            return;
        }
    }
    let managers = managers_to_update(write, live, object);
    let managers = if managers.is_empty() && live.is_object() {
        managers
    } else {
        track(write, managers, changes)
    };
    set_managed_fields(object, &managers);
}

/// Restores the live object's `managedFields` if nothing but their times differs, so that a write
/// that changes nothing is no write. `resourceVersion` does not count as a change.
pub fn keep_times(live: &Value, object: &mut Value) {
    if !timeless::equal(live, object) {
        return;
    }
    if let (Some(managed), Some(metadata)) =
        (managed_fields(live), object.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("managedFields".to_owned(), managed.clone());
    }
}

/// The fields that writes through a path of a kind of the table cannot change.
#[must_use]
pub fn reset_fields(has_status: bool, subresource: &str) -> &'static FieldSet {
    static NOTHING: FieldSet = FieldSet::new();
    static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["status"]]));
    static ALL_BUT_STATUS: LazyLock<FieldSet> = LazyLock::new(|| {
        FieldSet::of_fields(&[
            &["spec"],
            &["metadata", "labels"],
            &["metadata", "ownerReferences"],
            &["metadata", "deletionTimestamp"],
        ])
    });
    match subresource {
        "status" => &ALL_BUT_STATUS,
        "" if has_status => &STATUS,
        _ => &NOTHING,
    }
}

fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

fn set_managed_fields(object: &mut Value, managers: &Managers) {
    set_field(object, (!managers.is_empty()).then(|| managers.encode()));
}

fn set_field(object: &mut Value, managed_fields: Option<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let Some(metadata) = metadata.as_object_mut() else { return };
    match managed_fields {
        None => metadata.remove("managedFields"),
        Some(fields) => metadata.insert("managedFields".to_owned(), fields),
    };
}

fn check_applied(write: &Write<'_>, applied: &Value) -> Result<(), ApplyError> {
    if !applied.is_object() {
        return Err(ApplyError::NoObject);
    }
    if managed_fields(applied).is_some_and(|fields| !fields.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    let given = applied.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if given != write.api_version {
        return Err(ApplyError::Version {
            given: given.to_owned(),
            expected: write.api_version.to_owned(),
        });
    }
    walk::check(applied, write.place, walk::At::Root)?;
    Ok(())
}

/// Those of the managers whose fields still mean something, in the kind's shape of today.
fn current(write: &Write<'_>, mut managers: Managers) -> Managers {
    managers.0.retain(|_, owned| {
        let version = owned.api_version.as_str();
        version == write.api_version || write.other_versions.contains(&version)
    });
    for owned in managers.0.values_mut() {
        if !walk::is_current(&owned.fields, write.place) {
            owned.fields = walk::reconciled(&owned.fields, write.place);
        }
    }
    managers
}

fn managers_to_update(write: &Write<'_>, live: &Value, object: &Value) -> Managers {
    let recorded = || Managers::decode(managed_fields(live)).unwrap_or_default();
    let managers = if write.subresource.is_empty() {
        match managed_fields(object) {
            Some(Value::Array(entries)) if is_reset(entries) => return Managers::default(),
            sent => match Managers::decode(sent) {
                Ok(managers) if !managers.is_empty() => managers,
                _ => recorded(),
            },
        }
    } else {
        recorded()
    };
    current(write, managers)
}

fn is_reset(entries: &[Value]) -> bool {
    match entries {
        [] => true,
        [only] => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Fields that nobody owns: the server writes them, or they tell the object.
static UNTRACKED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

static UNTRACKED_SET: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(UNTRACKED));

fn tracked(fields: FieldSet) -> FieldSet {
    fields.difference(&UNTRACKED_SET)
}

/// Without what a write sets and what it removes.
fn lose(owned: &mut Owned, set: &FieldSet, removed: &FieldSet) {
    owned.fields = std::mem::take(&mut owned.fields).difference(set).difference(removed);
}

/// The tracked places that a write sets, and those that are gone by it.
fn changes(write: &Write<'_>, live: &Value, object: &Value) -> (FieldSet, FieldSet) {
    let changes = Comparison::of(live, object, write.place).without(write.reset);
    let (set, removed) = changes.split();
    (tracked(set), tracked(removed))
}

/// A plain write: what it changes or adds is the writer's and nobody else's, what it removes is
/// nobody's.
fn track(
    write: &Write<'_>,
    mut managers: Managers,
    (fields, removed): (FieldSet, FieldSet),
) -> Managers {
    managers.0.values_mut().for_each(|owned| lose(owned, &fields, &removed));
    managers.0.retain(|_, owned| !owned.fields.is_empty());
    if !fields.is_empty() {
        let id = ManagerId {
            name: write.manager.to_owned(),
            operation: Operation::Update,
            api_version: write.api_version.to_owned(),
            subresource: write.subresource.to_owned(),
        };
        let before = managers.0.remove(&id).map(|owned| owned.fields).unwrap_or_default();
        let owned = Owned {
            api_version: write.api_version.to_owned(),
            time: Some(write.now.to_owned()),
            fields: before.union(fields),
        };
        managers.0.insert(id, owned);
    }
    managers.cap_updates();
    managers
}
