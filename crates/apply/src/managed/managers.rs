//! `metadata.managedFields`: who owns which places, how that is read, kept small and written.

use std::{cmp::Ordering, collections::BTreeMap};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::field_set::{FIELDS_TYPE, FieldSet, FieldSetError};

/// Most entries of plain writes an object keeps; older ones are merged. As in Kubernetes.
pub const UPDATE_MANAGERS_MAX: usize = 10;

/// Longest name of a manager, as in Kubernetes.
pub const MANAGER_NAME_MAX_BYTES: usize = 128;

/// Who owns what was set by writes that are merged because there were too many.
pub const ANCIENT_CHANGES: &str = "ancient-changes";

/// Who owns what was there before an object was first applied.
pub const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// How an entry came to be. The order is that in which Kubernetes lists the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    /// The word on the wire.
    #[must_use]
    pub fn wire(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells one manager of an object from another.
///
/// Two plain writers of different versions are two managers; one that applies is the same in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagerId {
    /// Name, such as `kubectl`.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// Version of a plain writer; empty for one that applies.
    pub api_version: String,
    /// Subresource that it writes through; empty for the object itself.
    pub subresource: String,
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The version in which the fields are written.
    pub api_version: String,
    /// When the manager last changed something: RFC 3339, UTC, whole seconds.
    pub time: Option<String>,
    /// The places.
    pub fields: FieldSet,
}

/// Everybody who owns places of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers(pub(super) BTreeMap<ManagerId, Owned>);

/// A `managedFields` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagedFieldsError {
    /// It is no list of maps.
    #[error("managedFields must be a list of maps")]
    Shape,
    /// A field of an entry is missing or wrong.
    #[error("metadata.managedFields[{index}].{field}: {why}")]
    Field {
        /// Which entry.
        index: usize,
        /// Which field of it.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// The set of an entry cannot be read.
    #[error("metadata.managedFields[{index}].fieldsV1")]
    Fields {
        /// Which entry.
        index: usize,
        /// What is wrong.
        source: FieldSetError,
    },
}

impl Managers {
    /// Reads a `managedFields` list; absent and null are nobody.
    ///
    /// # Errors
    /// When the list or an entry is malformed.
    pub fn decode(list: Option<&Value>) -> Result<Self, ManagedFieldsError> {
        let entries = match list {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(ManagedFieldsError::Shape),
        };
        let decode = |(index, entry): (usize, &Value)| {
            decode_entry(index, entry.as_object().ok_or(ManagedFieldsError::Shape)?)
        };
        entries.iter().enumerate().map(decode).collect::<Result<_, _>>().map(Self)
    }

    /// The `managedFields` list, in Kubernetes' order: those that apply first, then by time, name,
    /// version and subresource.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut entries: Vec<(&ManagerId, &Owned)> = self.0.iter().collect();
        entries.sort_by(|(id, owned), (other_id, other)| {
            let by = |id: &ManagerId, owned: &Owned| (id.operation, seconds(owned));
            by(id, owned)
                .cmp(&by(other_id, other))
                .then_with(|| id.name.cmp(&other_id.name))
                .then_with(|| owned.api_version.cmp(&other.api_version))
                .then_with(|| id.subresource.cmp(&other_id.subresource))
        });
        entries.into_iter().map(|(id, owned)| encode_entry(id, owned)).collect()
    }

    /// Whether nobody owns anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everybody, with what they own.
    pub fn iter(&self) -> impl Iterator<Item = (&ManagerId, &Owned)> {
        self.0.iter()
    }

    /// Merges the oldest entries of plain writes, version by version, until few enough are left.
    pub(super) fn cap_updates(&mut self) {
        let mut updates: Vec<ManagerId> =
            self.0.keys().filter(|id| id.operation == Operation::Update).cloned().collect();
        let mut count = updates.len();
        if count <= UPDATE_MANAGERS_MAX {
            return;
        }
        updates.sort_by(|one, other| self.age(one, other));
        let mut first_of_version: BTreeMap<String, ManagerId> = BTreeMap::new();
        let mut merged: BTreeMap<ManagerId, Vec<FieldSet>> = BTreeMap::new();
        for id in updates {
            if count <= UPDATE_MANAGERS_MAX {
                break;
            }
            let bucket = ManagerId {
                name: ANCIENT_CHANGES.to_owned(),
                operation: Operation::Update,
                api_version: id.api_version.clone(),
                subresource: String::new(),
            };
            let Some(first) = first_of_version.get(&id.api_version) else {
                first_of_version.insert(id.api_version.clone(), id);
                continue;
            };
            if id == bucket {
                continue;
            }
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), owned);
            }
            if let Some(owned) = self.0.remove(&id)
                && let Some(ancient) = self.0.get_mut(&bucket)
            {
                merged.entry(bucket).or_default().push(owned.fields);
                // The younger one's: it is the last change that the entry stands for.
                ancient.time = owned.time;
                count -= 1;
            }
        }
        for (bucket, mut sets) in merged {
            if let Some(ancient) = self.0.get_mut(&bucket) {
                sets.push(std::mem::take(&mut ancient.fields));
                ancient.fields = FieldSet::union_of(sets);
            }
        }
    }

    fn age(&self, one: &ManagerId, other: &ManagerId) -> Ordering {
        let time = |id: &ManagerId| self.0.get(id).and_then(seconds);
        time(one).cmp(&time(other)).then_with(|| one.cmp(other))
    }
}

fn seconds(owned: &Owned) -> Option<i64> {
    let time: Timestamp = owned.time.as_deref()?.parse().ok()?;
    Some(time.as_second())
}

fn decode_entry(
    index: usize,
    entry: &Map<String, Value>,
) -> Result<(ManagerId, Owned), ManagedFieldsError> {
    let wrong = |field, why| ManagedFieldsError::Field { index, field, why };
    let text = |field: &'static str| match entry.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(wrong(field, "must be a text")),
    };
    let operation = match text("operation")? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(wrong("operation", "must be `Apply` or `Update`")),
    };
    let api_version = text("apiVersion")?;
    if api_version.is_empty() {
        return Err(wrong("apiVersion", "must not be empty"));
    }
    if text("fieldsType")? != FIELDS_TYPE {
        return Err(wrong("fieldsType", "must be `FieldsV1`"));
    }
    let time = match text("time")? {
        "" => None,
        time => {
            let time: Timestamp =
                time.parse().map_err(|_| wrong("time", "must be a time of RFC 3339"))?;
            Timestamp::from_second(time.as_second()).ok().map(|time| time.to_string())
        }
    };
    let fields = match entry.get("fieldsV1") {
        None | Some(Value::Null) => FieldSet::new(),
        Some(fields) => FieldSet::decode(fields)
            .map_err(|source| ManagedFieldsError::Fields { index, source })?,
    };
    let id = ManagerId {
        name: text("manager")?.to_owned(),
        operation,
        api_version: match operation {
            Operation::Apply => String::new(),
            Operation::Update => api_version.to_owned(),
        },
        subresource: text("subresource")?.to_owned(),
    };
    Ok((id, Owned { api_version: api_version.to_owned(), time, fields }))
}

fn encode_entry(id: &ManagerId, owned: &Owned) -> Value {
    entry(id, &owned.api_version, owned.time.as_deref(), owned.fields.encode())
}

/// An entry of `managedFields`.
pub(super) fn entry(id: &ManagerId, api_version: &str, time: Option<&str>, fields: Value) -> Value {
    let mut entry = Map::new();
    let mut text = |field: &str, text: &str| {
        if !text.is_empty() {
            entry.insert(field.to_owned(), text.into());
        }
    };
    text("manager", &id.name);
    text("operation", id.operation.wire());
    text("apiVersion", api_version);
    text("time", time.unwrap_or_default());
    text("fieldsType", FIELDS_TYPE);
    text("subresource", &id.subresource);
    entry.insert("fieldsV1".to_owned(), fields);
    Value::Object(entry)
}

/// What is wrong with a `fieldManager` that a client gave, in Kubernetes' words.
#[must_use]
pub fn manager_name_error(name: &str) -> Option<String> {
    if name.len() > MANAGER_NAME_MAX_BYTES {
        return Some(format!("may not be more than {MANAGER_NAME_MAX_BYTES} bytes"));
    }
    let (at, bad) = name.char_indices().find(|(_, letter)| letter.is_control())?;
    Some(format!("invalid character U+{:04X} (at position {at})", u32::from(bad)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, time: &str, field: &str) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": {format!("f:{field}"): {}}})
    }

    #[test]
    fn entries_are_listed_in_order() {
        let list = json!([
            entry("b", "Update", "2024-01-01T00:00:00Z", "a"),
            entry("a", "Update", "2024-01-01T00:00:00Z", "b"),
            entry("z", "Update", "2023-01-01T00:00:00Z", "c"),
            entry("q", "Apply", "2025-01-01T00:00:00Z", "d"),
        ]);
        let managers = Managers::decode(Some(&list)).unwrap();
        let encoded = managers.encode();
        let names: Vec<&str> =
            encoded.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
        assert_eq!(names, ["q", "z", "a", "b"]);
        assert_eq!(Managers::decode(Some(&encoded)).unwrap(), managers);
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let good = entry("a", "Update", "2024-01-01T00:00:00Z", "a");
        for (field, value) in [
            ("operation", json!("Patch")),
            ("operation", json!(null)),
            ("apiVersion", json!("")),
            ("fieldsType", json!("FieldsV2")),
            ("time", json!("yesterday")),
            ("manager", json!(1)),
            ("fieldsV1", json!([])),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(Managers::decode(Some(&json!([bad]))).is_err(), "{field}");
        }
        assert!(Managers::decode(Some(&json!({}))).is_err());
        assert!(Managers::decode(Some(&json!([1]))).is_err());
        assert!(Managers::decode(None).unwrap().is_empty());
    }

    #[test]
    fn the_oldest_plain_writers_are_merged() {
        let list: Value = (0..UPDATE_MANAGERS_MAX + 3)
            .map(|at| {
                let day = format!("2024-01-{:02}T00:00:00Z", at + 1);
                entry(&format!("m{at:02}"), "Update", &day, &format!("x{at}"))
            })
            .collect();
        let mut managers = Managers::decode(Some(&list)).unwrap();
        managers.cap_updates();
        assert_eq!(managers.0.len(), UPDATE_MANAGERS_MAX);
        let (_, ancient) = managers.iter().find(|(id, _)| id.name == ANCIENT_CHANGES).unwrap();
        assert_eq!(
            ancient.fields.encode(),
            json!({"f:x0": {}, "f:x1": {}, "f:x2": {}, "f:x3": {}})
        );
        assert_eq!(ancient.time.as_deref(), Some("2024-01-04T00:00:00Z"));
        let once = managers.clone();
        managers.cap_updates();
        assert_eq!(managers, once);
    }

    #[test]
    fn names_of_managers_are_short_and_can_be_printed() {
        assert!(manager_name_error("kubectl").is_none());
        assert!(manager_name_error(&"a".repeat(129)).is_some());
        assert!(manager_name_error("a\nb").is_some());
    }
}
