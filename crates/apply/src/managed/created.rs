//! The record of a creation: one entry, of who owns all that was sent. Most writes of a busy server that are no
//! renewals are creations, so the entry is made at once of the object, without sets in between; what it says is
//! what comparing the object with nothing says. It reads no records.

use serde_json::{Map, Value};
use toono_api::Place;

use super::{
    UNTRACKED_SET, Write,
    field_set::{FieldSet, ITSELF, Node},
    items::Items,
    managers::{ManagerId, Operation, entry},
    path::Element,
    walk::{Shape, child, field_step},
};

/// What a new object's `managedFields` are; `None` when nobody owns anything of it.
pub(super) fn record(write: &Write<'_>, object: &Value) -> Option<Value> {
    let left_out = LeftOut { reset: Some(write.reset), untracked: Some(&UNTRACKED_SET) };
    let fields = match Shape::of(object, write.place) {
        Shape::Map(fields) => of_fields(fields, write.place, true, left_out),
        Shape::List(_) | Shape::Leaf => Map::new(),
    };
    if fields.is_empty() {
        return None;
    }
    let id = ManagerId {
        name: write.manager.to_owned(),
        operation: Operation::Update,
        api_version: String::new(),
        subresource: write.subresource.to_owned(),
    };
    let entry = entry(&id, write.api_version, Some(write.now), Value::Object(fields));
    Some(Value::Array(vec![entry]))
}

/// What is not recorded, of the fields below a place.
#[derive(Clone, Copy)]
struct LeftOut<'a> {
    /// Nor what is below it.
    reset: Option<&'a FieldSet>,
    /// What is below it is.
    untracked: Option<&'a FieldSet>,
}

impl<'a> LeftOut<'a> {
    const NOTHING: LeftOut<'static> = LeftOut { reset: None, untracked: None };

    fn field(self, name: &str) -> (Option<&'a Node>, Option<&'a Node>) {
        let node = |set: Option<&'a FieldSet>| set.and_then(|set| set.field(name));
        (node(self.reset), node(self.untracked))
    }
}

/// The fields of a map. `is_there` says that the map is there before anything is written.
fn of_fields(
    fields: &Map<String, Value>,
    place: Place<'_>,
    is_there: bool,
    left_out: LeftOut<'_>,
) -> Map<String, Value> {
    let mut record = Map::new();
    for (name, value) in fields {
        let (reset, untracked) = left_out.field(name);
        if reset.is_some_and(|node| node.member) {
            continue;
        }
        let child = child(place, name);
        let is_there = is_there && child.place.is_always_there();
        let shape = Shape::of(value, child.place);
        // Nobody adds what is always there.
        let is_set = !is_there || matches!(shape, Shape::Leaf);
        let member = is_set && !untracked.is_some_and(|node| node.member);
        let left_out = LeftOut {
            reset: reset.map(|node| &node.below),
            untracked: untracked.map(|node| &node.below),
        };
        let below = of_shape(&shape, child.place, is_there, left_out);
        put(&mut record, &field_step(child, name), member, below);
    }
    record
}

fn of_shape(
    shape: &Shape<'_>,
    place: Place<'_>,
    is_there: bool,
    left_out: LeftOut<'_>,
) -> Map<String, Value> {
    match shape {
        Shape::Leaf => Map::new(),
        Shape::Map(fields) => of_fields(fields, place, is_there, left_out),
        Shape::List(items) => of_items(items, place.item()),
    }
}

fn of_items(items: &Items<'_>, item: Place<'_>) -> Map<String, Value> {
    let mut record = Map::new();
    for (element, same) in items.groups() {
        let below = match same {
            [only] => of_shape(&Shape::of(only.value, item), item, false, LeftOut::NOTHING),
            _ => Map::new(),
        };
        put(&mut record, element, true, below);
    }
    record
}

fn put(
    record: &mut Map<String, Value>,
    element: &Element,
    member: bool,
    mut below: Map<String, Value>,
) {
    if !below.is_empty() && member {
        below.insert(ITSELF.to_owned(), Value::Object(Map::new()));
    }
    if member || !below.is_empty() {
        record.insert(element.encode(), Value::Object(below));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toono_api::kinds;

    use super::{
        super::{Managers, changes, examples::objects, reset_fields, track},
        *,
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn it_is_what_comparing_with_nothing_gives(object in objects(), status in any::<bool>()) {
            let reset = reset_fields(true, if status { "status" } else { "" });
            for place in [kinds::pod::POD.place(), kinds::core::SERVICE.place(), Place::UNKNOWN] {
                let write = Write {
                    place,
                    api_version: "v1",
                    other_versions: &[],
                    manager: "test",
                    subresource: "",
                    reset,
                    now: "2024-01-01T00:00:00Z",
                };
                let compared = changes(&write, &Value::Null, &object);
                let managers = track(&write, Managers::default(), compared);
                let expected = (!managers.is_empty()).then(|| managers.encode());
                prop_assert_eq!(record(&write, &object), expected);
            }
        }
    }
}
