//! Walks one value along its places: which places it has, and whether it has the shape of its place.
//!
//! Nothing is changed here; two values are compared in `compare` and merged in `merge`.

use serde_json::{Map, Value};
use toono_api::place::{Child, Place};

use super::{
    field_set::{FieldSet, Node, kind_of},
    identity::identity,
    items::Items,
    merge::without,
    path::{Element, path_text},
};

/// What a map's field is. Of a field that the type does not have nothing is known: an object that was
/// stored under an older schema may have such.
pub(super) fn child<'p>(place: Place<'p>, name: &str) -> Child<'p> {
    let unknown = Child { place: Place::Deduced, named: false, name: None };
    place.field(name).unwrap_or(unknown)
}

/// The step to a field.
pub(super) fn field_step(child: Child<'_>, name: &str) -> Element {
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

/// A value seen through its place.
pub(super) enum Shape<'v> {
    /// One thing.
    Leaf,
    /// A map whose fields have owners.
    Map(&'v Map<String, Value>),
    /// A list whose items have owners.
    List(Items<'v>),
}

impl<'v> Shape<'v> {
    pub(super) fn fields(&self) -> Option<&'v Map<String, Value>> {
        if let Self::Map(fields) = self { Some(fields) } else { None }
    }

    pub(super) fn items(&self) -> Option<&Items<'v>> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// Whether a field that holds this has an owner itself, beside those of its parts.
    pub(super) fn is_member(&self, child: Child<'_>) -> bool {
        match self {
            Self::Leaf => true,
            Self::Map(fields) => !child.named || fields.is_empty(),
            Self::List(_) => !child.named,
        }
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

/// A place on the way down; its path is put together only when there is something to say of it.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    Root,
    Field(&'a At<'a>, &'a str),
    Item(&'a At<'a>, &'a Element),
}

impl At<'_> {
    fn path(self) -> Vec<Element> {
        let (before, own) = match self {
            Self::Root => return Vec::new(),
            Self::Field(before, name) => (before, Element::field(name)),
            Self::Item(before, element) => (before, element.clone()),
        };
        let mut path = before.path();
        path.push(own);
        path
    }

    fn wrong(self, why: String) -> ShapeError {
        ShapeError { path: path_text(&self.path()), why }
    }
}

/// Checks that a value has the shape of its place: what is applied must.
pub(super) fn check(value: &Value, place: Place<'_>, at: At<'_>) -> Result<(), ShapeError> {
    match (place, value) {
        (_, Value::Null) => Ok(()),
        (Place::Object(_) | Place::Map(_) | Place::Deduced, Value::Object(fields)) => {
            for (name, value) in fields {
                let at = At::Field(&at, name);
                let Some(Child { place, .. }) = place.field(name) else {
                    return Err(at.wrong("field not declared in schema".to_owned()));
                };
                check(value, place, at)?;
            }
            Ok(())
        }
        (Place::Object(_) | Place::Map(_), other) => {
            Err(at.wrong(format!("expected map, got {}", kind_of(other))))
        }
        (Place::Set | Place::List(_), Value::Array(items)) => check_items(items, place, at),
        (Place::Set | Place::List(_), other) => {
            Err(at.wrong(format!("expected list, got {}", kind_of(other))))
        }
        (Place::Atomic | Place::Deduced, _) => Ok(()),
    }
}

fn check_items(list: &[Value], place: Place<'_>, at: At<'_>) -> Result<(), ShapeError> {
    let Ok(items) = Items::of(list, place) else {
        // Of several mistakes the first in the list is told.
        for (index, item) in list.iter().enumerate() {
            let element =
                identity(place, item).map_err(|why| at.wrong(format!("element {index}: {why}")))?;
            check(item, place.item(), At::Item(&at, &element))?;
        }
        return Ok(());
    };
    for item in items.in_order() {
        check(item.value, place.item(), At::Item(&at, &item.element))?;
    }
    if items.has_duplicates() {
        return Err(at.wrong("duplicate entries for key".to_owned()));
    }
    Ok(())
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
    places_in(&Shape::of(value, place), place)
}

/// Every place that a value has that is seen so.
pub(super) fn places_in(shape: &Shape<'_>, place: Place<'_>) -> FieldSet {
    let mut set = FieldSet::new();
    match shape {
        Shape::Leaf => {}
        Shape::Map(fields) => {
            for (name, value) in *fields {
                let child = child(place, name);
                let shape = Shape::of(value, child.place);
                let below = places_in(&shape, child.place);
                let member = shape.is_member(child);
                set.put(Node { element: field_step(child, name), member, below });
            }
        }
        Shape::List(items) => {
            for (element, same) in items.groups() {
                let below = match same {
                    [item] => places(item.value, place.item()),
                    _ => FieldSet::new(),
                };
                set.put(Node { element: element.clone(), member: true, below });
            }
        }
    }
    set
}

/// The places of what is left when some are removed: those of [`without`], which is not made.
pub(super) fn places_without(
    value: &Value,
    remove: &FieldSet,
    place: Place<'_>,
) -> Option<FieldSet> {
    places_left(value, &Shape::of(value, place), remove, place)
}

/// As [`places_without`], of a value that is seen so.
fn places_left(
    value: &Value,
    shape: &Shape<'_>,
    remove: &FieldSet,
    place: Place<'_>,
) -> Option<FieldSet> {
    if remove.is_empty() {
        return Some(places_in(shape, place));
    }
    match shape {
        Shape::Leaf => Some(FieldSet::new()),
        Shape::Map(fields) => fields_left(fields, remove, place),
        Shape::List(items) => match items_left(items, remove, place) {
            Some(left) => left,
            None => without(value, remove, place).map(|left| places(&left, place)),
        },
    }
}

fn fields_left(
    fields: &Map<String, Value>,
    remove: &FieldSet,
    place: Place<'_>,
) -> Option<FieldSet> {
    let (mut set, mut any) = (FieldSet::new(), fields.is_empty());
    for (name, value) in fields {
        let node = remove.field(name);
        if node.is_some_and(|node| node.member) {
            continue;
        }
        let child = child(place, name);
        let shape = Shape::of(value, child.place);
        let below = match node {
            Some(node) => places_left(value, &shape, &node.below, child.place),
            None => Some(places_in(&shape, child.place)),
        };
        let Some(below) = below else { continue };
        any = true;
        let member = shape.is_member(child);
        set.put(Node { element: field_step(child, name), member, below });
    }
    any.then_some(set)
}

/// None when an item loses a part of what tells it from others: then the list is another one.
fn items_left(items: &Items<'_>, remove: &FieldSet, place: Place<'_>) -> Option<Option<FieldSet>> {
    let (mut set, mut any) = (FieldSet::new(), items.groups().next().is_none());
    for (element, same) in items.groups() {
        let mut left = Vec::with_capacity(same.len());
        match remove.node(element) {
            Some(node) if node.member => {}
            Some(node) => {
                for item in same {
                    if let Some(kept) = without(item.value, &node.below, place.item()) {
                        identity(place, &kept).ok().filter(|kept| kept == element)?;
                        left.push(places(&kept, place.item()));
                    }
                }
            }
            None => left.extend(same.iter().map(|item| places(item.value, place.item()))),
        }
        // Of items that are alike none has its parts for itself.
        let alone = left.len() == 1;
        let Some(first) = left.pop() else { continue };
        any = true;
        let below = if alone { first } else { FieldSet::new() };
        set.put(Node { element: element.clone(), member: true, below });
    }
    Some(any.then_some(set))
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
