//! Walks values along their places: which places a value has, and which differ between two values.
//!
//! Both answers are field sets. Nothing is changed here.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value};
use toono_api::place::{Child, Place};

use super::{
    field_set::{FieldSet, Node, kind_of},
    identity::{ItemError, identity},
    path::Element,
};

/// What a map's field is. Of a field that the type does not have nothing is known: an object that was
/// stored under an older schema may have such.
pub(super) fn child<'p>(place: Place<'p>, name: &str) -> Child<'p> {
    let unknown = Child { place: Place::Deduced, named: false, name: None };
    place.field(name).unwrap_or(unknown)
}

/// The step to a field.
fn field_step(child: Child<'_>, name: &str) -> Element {
    child.name.map_or_else(|| Element::field(name), Element::known_field)
}

/// What is under a step of a path, and whether the step is a field that the type names.
fn step<'p>(place: Place<'p>, element: &Element) -> (Place<'p>, bool) {
    match element {
        Element::Field(name) => {
            let child = child(place, name);
            (child.place, child.named)
        }
        _ => (place.item(), false),
    }
}

/// The map that an absent map which is always there stands for.
static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// A value seen through its place.
pub(super) enum Shape<'v> {
    /// One thing.
    Leaf,
    /// A map whose fields have owners.
    Map(&'v Map<String, Value>),
    /// A list whose items have owners.
    List(Items<'v>),
}

/// The items of a list by what tells them apart. An object may come with several equal items, since
/// only what is applied is checked for them.
#[derive(Default)]
pub(super) struct Items<'v> {
    /// In the list's order, each once.
    pub(super) order: Vec<Element>,
    /// Never an empty vector.
    pub(super) by_element: BTreeMap<Element, Vec<&'v Value>>,
}

impl<'v> Items<'v> {
    fn of(items: &'v [Value], place: Place<'_>) -> Result<Self, ItemError> {
        let mut found = Self::default();
        for item in items {
            let element = identity(place, item)?;
            let same = found.by_element.entry(element.clone()).or_default();
            if same.is_empty() {
                found.order.push(element);
            }
            same.push(item);
        }
        Ok(found)
    }

    /// The items that an element tells; more than one if they are duplicates.
    pub(super) fn all(&self, element: &Element) -> &[&'v Value] {
        self.by_element.get(element).map_or(&[], Vec::as_slice)
    }
}

impl<'v> Shape<'v> {
    fn fields(&self) -> Option<&'v Map<String, Value>> {
        if let Self::Map(fields) = self { Some(fields) } else { None }
    }

    fn items(&self) -> Option<&Items<'v>> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// A list whose items cannot be told apart is one thing.
    pub(super) fn of(value: &'v Value, place: Place<'_>) -> Self {
        match (place, value) {
            (place, Value::Object(fields)) if place.divides_maps() => Self::Map(fields),
            (Place::Set | Place::List(_), Value::Array(items)) => {
                Items::of(items, place).map_or(Self::Leaf, Self::List)
            }
            _ => Self::Leaf,
        }
    }
}

/// Checks that a value has the shape of its place: what is applied must.
pub(super) fn check(
    value: &Value,
    place: Place<'_>,
    at: &mut Vec<Element>,
) -> Result<(), ShapeError> {
    let wrong =
        |why: String, at: &[Element]| Err(ShapeError { path: super::path::path_text(at), why });
    match (place, value) {
        (_, Value::Null) => Ok(()),
        (Place::Object(_) | Place::Map(_) | Place::Deduced, Value::Object(fields)) => {
            for (name, value) in fields {
                at.push(Element::field(name));
                let Some(Child { place, .. }) = place.field(name) else {
                    return wrong("field not declared in schema".to_owned(), at);
                };
                check(value, place, at)?;
                at.pop();
            }
            Ok(())
        }
        (Place::Object(_) | Place::Map(_), other) => {
            wrong(format!("expected map, got {}", kind_of(other)), at)
        }
        (Place::Set | Place::List(_), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let element = identity(place, item).map_err(|why| ShapeError {
                    path: super::path::path_text(at),
                    why: format!("element {index}: {why}"),
                })?;
                at.push(element);
                check(item, place.item(), at)?;
                at.pop();
            }
            let distinct = Items::of(items, place).map(|items| items.order.len());
            match distinct {
                Ok(distinct) if distinct != items.len() => {
                    wrong("duplicate entries for key".to_owned(), at)
                }
                _ => Ok(()),
            }
        }
        (Place::Set | Place::List(_), other) => {
            wrong(format!("expected list, got {}", kind_of(other)), at)
        }
        (Place::Atomic | Place::Deduced, _) => Ok(()),
    }
}

/// A value has not the shape of its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct ShapeError {
    /// Where.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

/// Every place that a value has, for who applies it.
pub(super) fn places(value: &Value, place: Place<'_>) -> FieldSet {
    let mut set = FieldSet::new();
    match Shape::of(value, place) {
        Shape::Leaf => {}
        Shape::Map(fields) => {
            for (name, value) in fields {
                let child = child(place, name);
                let Child { place, named, .. } = child;
                let member = match Shape::of(value, place) {
                    Shape::Leaf => true,
                    Shape::Map(fields) => !named || fields.is_empty(),
                    Shape::List(_) => !named,
                };
                let element = field_step(child, name);
                set.put(Node { element, member, below: places(value, place) });
            }
        }
        Shape::List(items) => {
            for (element, same) in &items.by_element {
                let below = match same.as_slice() {
                    [item] => places(item, place.item()),
                    _ => FieldSet::new(),
                };
                set.put(Node { element: element.clone(), member: true, below });
            }
        }
    }
    set
}

/// The set with every named field on the way to a member. Such a field has no owner of its own, but
/// where its parts are removed it is removed with them.
pub(super) fn with_named(set: &FieldSet, place: Place<'_>) -> FieldSet {
    let mut result = FieldSet::new();
    for node in set.nodes() {
        let (place, named) = step(place, &node.element);
        let below = with_named(&node.below, place);
        let member = node.member || (named && !below.is_empty());
        result.put(Node { element: node.element.clone(), member, below });
    }
    result
}

/// Whether nothing is owned in parts that is one thing today.
pub(super) fn is_current(set: &FieldSet, place: Place<'_>) -> bool {
    set.nodes().iter().all(|node| {
        node.below.is_empty() || {
            let (place, _) = step(place, &node.element);
            !matches!(place, Place::Atomic) && is_current(&node.below, place)
        }
    })
}

/// The set as its places are now: what was owned in parts and is one thing today is owned whole.
pub(super) fn reconciled(set: &FieldSet, place: Place<'_>) -> FieldSet {
    let mut result = FieldSet::new();
    for node in set.nodes() {
        let (place, _) = step(place, &node.element);
        let node = if matches!(place, Place::Atomic) {
            Node { element: node.element.clone(), member: true, below: FieldSet::new() }
        } else {
            Node {
                element: node.element.clone(),
                member: node.member,
                below: reconciled(&node.below, place),
            }
        };
        result.put(node);
    }
    result
}

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

    fn below(&mut self, before: Option<&Shape<'_>>, after: Option<&Shape<'_>>, place: Place<'_>) {
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
        let old = before.into_iter().flat_map(|items| items.by_element.keys());
        let new = after.into_iter().flat_map(|items| items.by_element.keys());
        let only_after =
            |element: &&Element| before.is_none_or(|items| items.all(element).is_empty());
        for element in old.chain(new.filter(only_after)) {
            let (old, new) = (
                before.map_or(&[][..], |items| items.all(element)),
                after.map_or(&[][..], |items| items.all(element)),
            );
            if let ([] | [_], [] | [_]) = (old, new) {
                let (old, new) = (old.first().copied(), new.first().copied());
                self.part(element.clone(), old, new, place.item());
            } else {
                let equal =
                    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new));
                self.member(element, !old.is_empty(), !new.is_empty(), equal, Self::default());
            }
        }
    }

    /// One place that at least one of the values has.
    fn part(
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

    fn member(&mut self, element: &Element, before: bool, after: bool, equal: bool, below: Self) {
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
