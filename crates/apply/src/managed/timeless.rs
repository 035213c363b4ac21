//! Whether two versions of an object differ in more than the times of their records. Nothing is changed here.

use serde_json::{Map, Value};

use super::{managed_fields, managers::Managers};

/// The parts of metadata in which such versions may differ.
const ASIDE: [&str; 2] = ["managedFields", "resourceVersion"];

/// Whether the objects are equal, but for their revision and the times of who owns what. Both have metadata, or
/// they are not.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    let (Value::Object(one_fields), Value::Object(other_fields)) = (one, other) else {
        return false;
    };
    same_but_metadata(one_fields, other_fields)
        && match (one_fields.get("metadata"), other_fields.get("metadata")) {
            (Some(Value::Object(one)), Some(Value::Object(other))) => same_metadata(one, other),
            _ => false,
        }
        // Looked at last, since it is much to read.
        && same_owners(managed_fields(one), managed_fields(other))
}

fn same_but_metadata(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((name, one), (other_name, other))| {
            name == other_name && (name == "metadata" || one == other)
        })
}

fn same_metadata(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let kept = |(name, _): &(&String, &Value)| !ASIDE.contains(&name.as_str());
    one.iter().filter(kept).eq(other.iter().filter(kept))
}

/// Whether the records are equal but for their times, however they are written.
fn same_owners(one: Option<&Value>, other: Option<&Value>) -> bool {
    if one == other {
        return true;
    }
    let (Ok(one), Ok(other)) = (Managers::decode(one), Managers::decode(other)) else {
        return false;
    };
    one.0.len() == other.0.len()
        && one.iter().zip(other.iter()).all(|((id, one), (other_id, other))| {
            id == other_id && one.api_version == other.api_version && one.fields == other.fields
        })
}
