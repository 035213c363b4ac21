//! Makes values: what is applied merged into what is live, and a value without some places.

use serde_json::{Map, Value};
use toono_api::Place;

use super::{
    field_set::FieldSet,
    path::Element,
    walk::{Items, Shape, child},
};

/// What is live with what is applied over it. Nothing is removed.
pub(super) fn merged(live: &Value, applied: &Value, place: Place<'_>) -> Value {
    match (Shape::of(live, place), Shape::of(applied, place)) {
        (Shape::Map(live), Shape::Map(applied)) => merged_map(live, applied, place),
        (Shape::List(live), Shape::List(applied)) => merged_list(&live, &applied, place.item()),
        // A null says nothing of the parts.
        (Shape::Map(_) | Shape::List(_), _) if applied.is_null() => live.clone(),
        _ => applied.clone(),
    }
}

fn merged_map(live: &Map<String, Value>, applied: &Map<String, Value>, place: Place<'_>) -> Value {
    let mut result = Map::new();
    for (name, value) in live {
        let value = match applied.get(name) {
            Some(applied) => merged(value, applied, child(place, name).place),
            None => value.clone(),
        };
        result.insert(name.clone(), value);
    }
    for (name, value) in applied.iter().filter(|(name, _)| !live.contains_key(*name)) {
        result.insert(name.clone(), value.clone());
    }
    Value::Object(result)
}

/// The applied items in their order; those that only the live list has stay between the same
/// neighbours as far as that order lets them.
fn merged_list(live: &Items<'_>, applied: &Items<'_>, item: Place<'_>) -> Value {
    let mut result = Vec::new();
    let mut rest = live.order.as_slice();
    let mut shared = applied.order.iter().filter(|element| !live.all(element).is_empty());
    let mut next_shared = shared.next();
    for element in &applied.order {
        while let Some((first, after)) = rest.split_first() {
            if Some(first) == next_shared {
                break;
            }
            rest = after;
            if applied.all(first).is_empty() {
                result.extend(live.all(first).iter().map(|item| (*item).clone()));
            }
        }
        if next_shared == Some(element) {
            next_shared = shared.next();
        }
        if let Some((first, after)) = rest.split_first()
            && first == element
        {
            rest = after;
        }
        result.extend(applied.all(element).iter().map(|applied| match live.all(element) {
            [live] => merged(live, applied, item),
            // New, or there several times, in which case the applied one takes the place of all.
            _ => (*applied).clone(),
        }));
    }
    for element in rest.iter().filter(|element| applied.all(element).is_empty()) {
        result.extend(live.all(element).iter().map(|item| (*item).clone()));
    }
    Value::Array(result)
}

/// The value without the places of the set; a map or list that loses its last part goes too.
pub(super) fn without(value: &Value, remove: &FieldSet, place: Place<'_>) -> Option<Value> {
    if remove.is_empty() {
        return Some(value.clone());
    }
    let part = |element: &Element, value: &Value, place: Place<'_>| {
        if remove.contains(std::slice::from_ref(element)) {
            return None;
        }
        match remove.below(element) {
            Some(below) => without(value, below, place),
            None => Some(value.clone()),
        }
    };
    match Shape::of(value, place) {
        Shape::Leaf => Some(value.clone()),
        Shape::Map(fields) => {
            let kept = |(name, value): (&String, &Value)| {
                Some((name.clone(), part(&Element::field(name), value, child(place, name).place)?))
            };
            let kept: Map<String, Value> = fields.iter().filter_map(kept).collect();
            (fields.is_empty() || !kept.is_empty()).then_some(Value::Object(kept))
        }
        Shape::List(items) => {
            let kept: Vec<Value> = items
                .order
                .iter()
                .flat_map(|element| {
                    items.all(element).iter().filter_map(|item| part(element, item, place.item()))
                })
                .collect();
            (items.order.is_empty() || !kept.is_empty()).then_some(Value::Array(kept))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toono_api::kinds;

    use super::*;

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
            let result = merged(&items(live), &items(applied), place);
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
}
