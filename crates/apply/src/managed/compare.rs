//! What differs between two values, place by place. Nothing is changed here.

use std::sync::LazyLock;

use serde_json::{Map, Value};
use toono_api::Place;

use super::{
    field_set::{FieldSet, Node},
    items::{Item, Items, pairs},
    path::Element,
    walk::{Shape, child, field_step},
};

/// The map that an absent map which is always there stands for.
pub(super) static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// What differs between two values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Places that only the second has.
    pub(super) added: FieldSet,
    /// Places whose values differ.
    pub(super) modified: FieldSet,
    /// Places that only the first has.
    pub(super) removed: FieldSet,
}

impl Comparison {
    /// Between two whole objects; `before` may be `Null` for none.
    pub(super) fn of(before: &Value, after: &Value, place: Place<'_>) -> Self {
        let mut found = Self::default();
        // No object is one without fields, so that its parts that are always there are there.
        let before = if before.is_null() { &*EMPTY } else { before };
        found.below(Some(&Shape::of(before, place)), Some(&Shape::of(after, place)), place);
        found
    }

    /// The places that somebody set, and those that are gone.
    pub(super) fn split(self) -> (FieldSet, FieldSet) {
        (self.added.union(self.modified), self.removed)
    }

    /// Without some places and all below them.
    pub(super) fn without(self, ignored: &FieldSet) -> Self {
        Self {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }

    pub(super) fn below(
        &mut self,
        before: Option<&Shape<'_>>,
        after: Option<&Shape<'_>>,
        place: Place<'_>,
    ) {
        match (before, after) {
            (Some(Shape::List(_)), _) | (_, Some(Shape::List(_))) => {
                self.items(before.and_then(Shape::items), after.and_then(Shape::items), place);
            }
            _ => self.fields(before.and_then(Shape::fields), after.and_then(Shape::fields), place),
        }
    }

    fn fields(
        &mut self,
        before: Option<&Map<String, Value>>,
        after: Option<&Map<String, Value>>,
        place: Place<'_>,
    ) {
        let only_after = |name: &&String| before.is_none_or(|map| !map.contains_key(*name));
        let names = before.into_iter().flat_map(Map::keys);
        let names = names.chain(after.into_iter().flat_map(Map::keys).filter(only_after));
        for name in names {
            let child = child(place, name);
            let place = child.place;
            let stand_in = place.is_always_there().then_some(&*EMPTY);
            let before = before.and_then(|map| map.get(name).or(stand_in));
            let after = after.and_then(|map| map.get(name).or(stand_in));
            self.part(field_step(child, name), before, after, place);
        }
    }

    fn items(&mut self, before: Option<&Items<'_>>, after: Option<&Items<'_>>, place: Place<'_>) {
        for (element, old, new) in pairs(before, after) {
            if let ([] | [_], [] | [_]) = (old, new) {
                let (old, new) = (old.first().map(|item| item.value), new.first());
                self.part(element.clone(), old, new.map(|item| item.value), place.item());
            } else {
                let same = |(old, new): (&Item<'_>, &Item<'_>)| same(old.value, new.value);
                let equal = old.len() == new.len() && old.iter().zip(new).all(same);
                let (old, new) = (!old.is_empty(), !new.is_empty());
                self.member(element, old, new, equal, Self::default());
            }
        }
    }

    /// One place that at least one of the values has.
    pub(super) fn part(
        &mut self,
        element: Element,
        before: Option<&Value>,
        after: Option<&Value>,
        place: Place<'_>,
    ) {
        // Most of an object stays as it is, and that is seen much faster than its parts are told.
        if before.is_some() && before == after {
            return;
        }
        let old = before.map(|value| Shape::of(value, place));
        let new = after.map(|value| Shape::of(value, place));
        let whole = |shape: &Option<Shape<'_>>| matches!(shape, Some(Shape::Leaf));
        let mut below = Self::default();
        below.below(old.as_ref(), new.as_ref(), place);
        let equal = match (before, after) {
            // Parts that differ are told below; a change of shape is one of the place itself.
            (Some(before), Some(after)) if whole(&old) || whole(&new) => same(before, after),
            _ => true,
        };
        self.member(&element, before.is_some(), after.is_some(), equal, below);
    }

    pub(super) fn member(
        &mut self,
        element: &Element,
        before: bool,
        after: bool,
        equal: bool,
        below: Self,
    ) {
        for (set, member, below) in [
            (&mut self.added, !before, below.added),
            (&mut self.removed, !after, below.removed),
            (&mut self.modified, before && after && !equal, below.modified),
        ] {
            if member || !below.is_empty() {
                set.put(Node { element: element.clone(), member, below });
            }
        }
    }
}

/// Whether two values are equal as Kubernetes compares them: numbers by what they are worth.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || a.as_f64() == b.as_f64() && (a.is_f64() || b.is_f64())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => one == other,
    }
}
