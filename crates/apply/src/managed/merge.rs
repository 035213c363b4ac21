//! Makes values: what is applied merged into what is live, and a value without some places.

use serde_json::{Map, Value};
use toono_api::{Place, place::Child};

use super::{
    compare::{Comparison, EMPTY, same},
    field_set::{FieldSet, Node},
    items::{Items, Same, pairs},
    path::Element,
    walk::{Shape, child, field_step, places, places_in},
};

/// What is applied over what is live, with all that is to be known of it: objects may be megabytes, and are gone
/// through once.
pub(super) struct Overlay {
    /// What is live with what is applied over it. Nothing is removed.
    pub(super) merged: Value,
    /// Every place below this one that the applied value has.
    pub(super) places: FieldSet,
    /// What differs below this place between the live and the merged value: only what is applied can.
    pub(super) changes: Comparison,
}

/// Applies a value over the live one. What is applied has no item of a list twice.
pub(super) fn overlay(live: &Value, applied: &Value, place: Place<'_>) -> Overlay {
    overlay_shapes((live, &Shape::of(live, place)), (applied, &Shape::of(applied, place)), place)
}

type Seen<'a, 'v> = (&'v Value, &'a Shape<'v>);

fn overlay_shapes(live: Seen<'_, '_>, applied: Seen<'_, '_>, place: Place<'_>) -> Overlay {
    match (live.1, applied.1) {
        (Shape::Map(live), Shape::Map(applied)) => overlay_map(live, applied, place),
        (Shape::List(live), Shape::List(applied)) => overlay_list(live, applied, place.item()),
        // A null says nothing of the parts.
        (Shape::Map(_) | Shape::List(_), _) if applied.0.is_null() => Overlay {
            merged: live.0.clone(),
            places: FieldSet::new(),
            changes: Comparison::default(),
        },
        (old, new) => {
            let mut changes = Comparison::default();
            changes.below(Some(old), Some(new), place);
            Overlay { merged: applied.0.clone(), places: places_in(new, place), changes }
        }
    }
}

/// A field or an item that both have: gives the merged value and the applied places below, and tells what
/// changes.
fn overlay_part(
    element: &Element,
    live: Seen<'_, '_>,
    applied: Seen<'_, '_>,
    place: Place<'_>,
    changes: &mut Comparison,
) -> (Value, FieldSet) {
    let part = overlay_shapes(live, applied, place);
    let whole = matches!(live.1, Shape::Leaf) || matches!(applied.1, Shape::Leaf);
    let equal = !whole || same(live.0, &part.merged);
    changes.member(element, true, true, equal, part.changes);
    (part.merged, part.places)
}

fn overlay_map(
    live: &Map<String, Value>,
    applied: &Map<String, Value>,
    place: Place<'_>,
) -> Overlay {
    let mut merged = Map::new();
    let (mut all, mut changes) = (FieldSet::new(), Comparison::default());
    for (name, value) in applied {
        let child = child(place, name);
        let Child { place, .. } = child;
        let shape = Shape::of(value, place);
        let (element, member) = (field_step(child, name), shape.is_member(child));
        let (value, below) = if let Some(live) = live.get(name) {
            let live = (live, &Shape::of(live, place));
            overlay_part(&element, live, (value, &shape), place, &mut changes)
        } else {
            let before = place.is_always_there().then_some(&*EMPTY);
            changes.part(element.clone(), before, Some(value), place);
            (value.clone(), places_in(&shape, place))
        };
        all.put(Node { element, member, below });
        merged.insert(name.clone(), value);
    }
    for (name, value) in live.iter().filter(|(name, _)| !applied.contains_key(*name)) {
        merged.insert(name.clone(), value.clone());
    }
    Overlay { merged: Value::Object(merged), places: all, changes }
}

fn overlay_list(live: &Items<'_>, applied: &Items<'_>, item: Place<'_>) -> Overlay {
    let (mut all, mut changes) = (FieldSet::new(), Comparison::default());
    let (mut old_items, mut new_items) = (Vec::new(), Vec::new());
    for (element, old, new) in pairs(Some(live), Some(applied)) {
        let new = new.first();
        if let Some(first) = old.first() {
            old_items.push(Old { at: first.at, same: old, taken: new.map(|new| new.at) });
        }
        let Some(new) = new else { continue };
        let (value, below) = if let [old] = old {
            let (old_shape, new_shape) = (Shape::of(old.value, item), Shape::of(new.value, item));
            let (old, new) = ((old.value, &old_shape), (new.value, &new_shape));
            overlay_part(element, old, new, item, &mut changes)
        } else {
            // New, or there several times, in which case the applied one takes the place of all.
            if old.is_empty() {
                changes.part(element.clone(), None, Some(new.value), item);
            } else {
                changes.member(element, true, true, false, Comparison::default());
            }
            (new.value.clone(), places(new.value, item))
        };
        all.put(Node { element: element.clone(), member: true, below });
        new_items.push(New { at: new.at, value, is_old: !old.is_empty() });
    }
    Overlay { merged: Value::Array(in_order(old_items, new_items)), places: all, changes }
}

/// Items of the live list.
struct Old<'a, 'v> {
    at: usize,
    same: Same<'a, 'v>,
    /// Where the applied list has its item.
    taken: Option<usize>,
}

/// An item of the applied list, merged.
struct New {
    at: usize,
    value: Value,
    is_old: bool,
}

/// The applied items in their order; those that only the live list has stay between the same
/// neighbours as far as that order lets them.
fn in_order(mut old: Vec<Old<'_, '_>>, mut new: Vec<New>) -> Vec<Value> {
    old.sort_unstable_by_key(|old| old.at);
    new.sort_unstable_by_key(|new| new.at);
    let shared: Vec<usize> = new.iter().filter(|new| new.is_old).map(|new| new.at).collect();
    let mut shared = shared.into_iter().peekable();
    let mut rest = old.into_iter().peekable();
    let mut result = Vec::with_capacity(rest.len().max(new.len()));
    let keep = |result: &mut Vec<Value>, old: Old<'_, '_>| {
        if old.taken.is_none() {
            result.extend(old.same.iter().map(|item| item.value.clone()));
        }
    };
    for New { at, value, .. } in new {
        let next = shared.peek().copied();
        while let Some(old) = rest.next_if(|old| old.taken.is_none() || old.taken != next) {
            keep(&mut result, old);
        }
        shared.next_if_eq(&at);
        rest.next_if(|old| old.taken == Some(at));
        result.push(value);
    }
    rest.for_each(|old| keep(&mut result, old));
    result
}

/// The value without the places of the set; a map or list that loses its last part goes too.
pub(super) fn without(value: &Value, remove: &FieldSet, place: Place<'_>) -> Option<Value> {
    if remove.is_empty() {
        return Some(value.clone());
    }
    let part = |node: Option<&Node>, value: &Value, place: Place<'_>| match node {
        Some(node) if node.member => None,
        Some(node) => without(value, &node.below, place),
        None => Some(value.clone()),
    };
    match Shape::of(value, place) {
        Shape::Leaf => Some(value.clone()),
        Shape::Map(fields) => {
            let kept = |(name, value): (&String, &Value)| {
                let value = match remove.field(name) {
                    None => value.clone(),
                    node => part(node, value, child(place, name).place)?,
                };
                Some((name.clone(), value))
            };
            let kept: Map<String, Value> = fields.iter().filter_map(kept).collect();
            (fields.is_empty() || !kept.is_empty()).then_some(Value::Object(kept))
        }
        Shape::List(items) => {
            let kept = items
                .in_order()
                .into_iter()
                .filter_map(|item| part(remove.node(&item.element), item.value, place.item()));
            let kept: Vec<Value> = kept.collect();
            (value.as_array().is_some_and(Vec::is_empty) || !kept.is_empty())
                .then_some(Value::Array(kept))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use toono_api::kinds;

    use super::{
        super::{
            examples::objects,
            items::Item,
            walk::{places_without, with_named},
        },
        *,
    };

    fn names(list: &Value) -> Vec<&str> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
    }

    fn items(names: &str) -> Value {
        names.chars().map(|name| json!({"name": name.to_string()})).collect()
    }

    #[test]
    fn items_take_the_applied_order_and_others_stay_near() {
        let containers = kinds::pod::POD.place().field("spec").unwrap().place.field("containers");
        let place = containers.unwrap().place;
        let table = [
            ("abc", "abc", "abc"),
            ("abc", "cba", "cba"),
            ("abc", "b", "abc"),
            ("", "ba", "ba"),
            ("ab", "", "ab"),
            ("ab", "xb", "axb"),
            ("xaby", "bza", "xbyza"),
            ("ab", "xy", "abxy"),
            ("1a2b3", "ab", "1a2b3"),
        ];
        for (live, applied, expected) in table {
            let result = overlay(&items(live), &items(applied), place).merged;
            assert_eq!(names(&result).concat(), expected, "{applied} over {live}");
        }
    }

    #[test]
    fn what_loses_all_its_parts_goes() {
        let place = Place::UNKNOWN;
        let value = json!({"spec": {"a": {"x": 1}, "b": {}}, "metadata": {"labels": {"k": "v"}}});
        let remove = FieldSet::decode(&json!({
            "f:spec": {"f:a": {"f:x": {}}}, "f:metadata": {"f:labels": {"f:k": {}}}}));
        let left = without(&value, &remove.unwrap(), place).unwrap();
        assert_eq!(left, json!({"spec": {"b": {}}}));
    }

    /// Whether a list has an item twice, which nothing that is applied has.
    fn has_duplicates(value: &Value, place: Place<'_>) -> bool {
        match Shape::of(value, place) {
            Shape::Leaf => false,
            Shape::Map(fields) => {
                fields.iter().any(|(name, value)| has_duplicates(value, child(place, name).place))
            }
            Shape::List(items) => {
                let below = |item: &&Item<'_>| has_duplicates(item.value, place.item());
                items.has_duplicates() || items.in_order().iter().any(below)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_told_of_an_overlay_is_what_a_comparison_tells(
            live in objects(),
            applied in objects(),
        ) {
            for place in [kinds::pod::POD.place(), kinds::core::SERVICE.place(), Place::UNKNOWN] {
                if !live.is_object() || has_duplicates(&applied, place) {
                    continue;
                }
                let over = overlay(&live, &applied, place);
                prop_assert_eq!(&over.changes, &Comparison::of(&live, &over.merged, place));
                prop_assert_eq!(&over.places, &places(&applied, place));
                let again = overlay(&over.merged, &applied, place);
                prop_assert_eq!(again.merged, over.merged);
                prop_assert_eq!(again.changes, Comparison::default());
            }
        }

        #[test]
        fn what_is_left_has_the_places_that_are_told_of_it(
            value in objects(),
            other in objects(),
            removed in objects(),
        ) {
            for place in [kinds::pod::POD.place(), kinds::core::SERVICE.place(), Place::UNKNOWN] {
                let removed = places(&removed, place);
                let some = places(&other, place).difference(&removed);
                let most = places(&value, place).difference(&removed);
                for remove in [removed, some, most.clone(), with_named(&most, place)] {
                    let left = without(&value, &remove, place);
                    let expected = left.map(|left| places(&left, place));
                    prop_assert_eq!(places_without(&value, &remove, place), expected);
                }
            }
        }
    }
}
