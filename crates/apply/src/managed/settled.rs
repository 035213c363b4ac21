//! The record of a plain write that changes no ownership, which most are: whoever renews a lease or
//! reports a status owns those fields already. Such a record is told by looking at what was written,
//! without reading all that everybody owns.

use serde_json::{Map, Value};

use super::{
    Write,
    field_set::{FIELDS_TYPE, FieldSet, ITSELF},
    managers::Operation,
};

/// Most entries that are looked at, each of them for every place that a write sets: few objects have ten.
const LOOKED_AT_MAX: usize = 32;

/// The new record, when only the time of the writer's entry is new in it; `None` when it takes more
/// than a look to tell. `set` are the places that the write sets, `removed` those that are gone by it.
pub(super) fn record(
    write: &Write<'_>,
    recorded: &Value,
    sent: Option<&Value>,
    set: &FieldSet,
    removed: &FieldSet,
) -> Option<Value> {
    let entries = recorded.as_array().filter(|entries| !entries.is_empty())?;
    if entries.len() > LOOKED_AT_MAX {
        return None;
    }
    if sent.is_some_and(|sent| !sent.is_null() && sent != recorded) {
        return None;
    }
    let mut own = None;
    for (at, entry) in entries.iter().enumerate() {
        let fields = fields_of(write, entry)?;
        if is_own(write, entry) {
            own = Some(at);
            if !covers(fields, set) {
                return None;
            }
        } else if touches(fields, set) {
            return None;
        }
        if touches(fields, removed) {
            return None;
        }
    }
    let mut entries = entries.clone();
    if !set.is_empty() {
        let mut entry = entries.remove(own?);
        entry.as_object_mut()?.insert("time".to_owned(), write.now.into());
        let at = entries.partition_point(|other| order(other) <= order(&entry));
        entries.insert(at, entry);
    }
    Some(Value::Array(entries))
}

fn word<'v>(entry: &'v Value, field: &str) -> &'v str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// What an entry owns, if the entry is one that the server would write today.
fn fields_of<'v>(write: &Write<'_>, entry: &'v Value) -> Option<&'v Map<String, Value>> {
    let version = word(entry, "apiVersion");
    let known = version == write.api_version || write.other_versions.contains(&version);
    let operation = word(entry, "operation");
    let written = [Operation::Apply, Operation::Update].iter().any(|one| one.wire() == operation);
    if !known || !written || word(entry, "fieldsType") != FIELDS_TYPE {
        return None;
    }
    entry.get("fieldsV1")?.as_object()
}

fn is_own(write: &Write<'_>, entry: &Value) -> bool {
    word(entry, "operation") == Operation::Update.wire()
        && word(entry, "manager") == write.manager
        && word(entry, "apiVersion") == write.api_version
        && word(entry, "subresource") == write.subresource
}

/// By what entries are listed: see [`super::Managers::encode`]. Times that the server wrote are
/// ordered as their texts are.
fn order(entry: &Value) -> [&str; 5] {
    ["operation", "time", "manager", "apiVersion", "subresource"].map(|field| word(entry, field))
}

/// Whether a place of the set may be among the fields, or is a whole of which parts are.
fn touches(fields: &Map<String, Value>, set: &FieldSet) -> bool {
    let mut step = String::new();
    set.nodes().iter().any(|node| {
        step.clear();
        node.element.write(&mut step);
        let Some(Value::Object(below)) = fields.get(&step) else { return false };
        let member = below.is_empty() || below.contains_key(ITSELF);
        node.member && (member || node.below.is_empty()) || touches(below, &node.below)
    })
}

/// Whether every place of the set is among the fields, none as a whole of which parts are.
fn covers(fields: &Map<String, Value>, set: &FieldSet) -> bool {
    let mut step = String::new();
    set.nodes().iter().all(|node| {
        step.clear();
        node.element.write(&mut step);
        let Some(Value::Object(below)) = fields.get(&step) else { return false };
        let member = below.is_empty() || below.contains_key(ITSELF);
        let parts = below.len() > usize::from(below.contains_key(ITSELF));
        (!node.member || (member && (!parts || !node.below.is_empty())))
            && covers(below, &node.below)
    })
}
