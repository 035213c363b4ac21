//! Strategic merge patch: a merge patch whose lists are merged by key, with directives.
//!
//! Directives: `$patch: replace | delete | merge` in a map, `$retainKeys` in a map,
//! `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD` beside a list's field. The rules
//! are those of Kubernetes' strategic-merge-patch page.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use toono_api::types::{self, Field, Message, Patch, Shape, Type};

use crate::PatchError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_SET: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

type Fields = Map<String, Value>;

/// Merges a patch into an object by the merge keys of the kind's message; without a message, maps
/// are merged and lists replaced.
///
/// # Errors
/// When a directive is unknown, an item lacks its merge key, or a type does not fit.
pub fn strategic_merge(
    object: &mut Value,
    patch: Value,
    message: Option<&'static Message>,
) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".to_owned()));
    };
    let mut fields = take_map(object);
    merge_map(&mut fields, patch, message.map_or(Place::Unknown, Place::Object))?;
    *object = Value::Object(fields);
    Ok(())
}

/// What the table of types says of a map.
#[derive(Clone, Copy)]
enum Place {
    /// Nothing.
    Unknown,
    /// Its fields are those of this message.
    Object(&'static Message),
    /// It has names of any kind, and values of this message.
    Entries(&'static Message),
}

impl Place {
    fn field(self, name: &str) -> Option<&'static Field> {
        match self {
            Self::Object(message) => message.field(name),
            Self::Unknown | Self::Entries(_) => None,
        }
    }

    fn patch(self, name: &str) -> Patch {
        self.field(name).map(|field| field.patch).unwrap_or_default()
    }

    /// The map below a field or entry, or an item of the list below it.
    fn below(self, name: &str) -> Self {
        if let Self::Entries(message) = self {
            return Self::Object(message);
        }
        match self.field(name).map(|field| field.shape) {
            Some(
                Shape::Plain(Type::Message(name))
                | Shape::Optional(Type::Message(name))
                | Shape::List(Type::Message(name)),
            ) => types::message(name).map_or(Self::Unknown, Self::Object),
            Some(Shape::Map(Type::Message(name))) => {
                types::message(name).map_or(Self::Unknown, Self::Entries)
            }
            _ => Self::Unknown,
        }
    }
}

fn take_map(value: &mut Value) -> Fields {
    match value.take() {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// What a map asks to be done with its counterpart.
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn take_directive(patch: &mut Fields) -> Result<Directive, PatchError> {
    match patch.remove(PATCH).as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => Ok(Directive::Merge),
        Some(Some("replace")) => Ok(Directive::Replace),
        Some(Some("delete")) => Ok(Directive::Delete),
        Some(other) => Err(PatchError::Malformed(format!(
            "unknown patch type: {}",
            other.unwrap_or("no text")
        ))),
    }
}

fn merge_map(fields: &mut Fields, mut patch: Fields, place: Place) -> Result<(), PatchError> {
    match take_directive(&mut patch)? {
        Directive::Merge => {}
        Directive::Replace => {
            *fields = patch;
            return Ok(());
        }
        Directive::Delete => {
            fields.clear();
            return Ok(());
        }
    }
    retain_keys(fields, &mut patch)?;
    let mut orders = HashMap::new();
    for (field, wanted) in take_prefixed(&mut patch, ELEMENT_ORDER) {
        let wanted = list_of(wanted, &field)?;
        orders.insert(field, wanted);
    }
    for (field, deleted) in take_prefixed(&mut patch, DELETE_FROM_SET) {
        let deleted = list_of(deleted, &field)?;
        if let Some(Value::Array(items)) = fields.get_mut(&field) {
            let deleted: HashSet<String> = deleted.iter().map(Value::to_string).collect();
            items.retain(|item| !deleted.contains(&item.to_string()));
        }
    }
    for (field, value) in patch {
        let order = orders.remove(&field);
        merge_field(fields, field, value, order, place)?;
    }
    for (field, wanted) in orders {
        if let Some(Value::Array(items)) = fields.get_mut(&field) {
            let order = Order { key: place.patch(&field).merge_key };
            let (wanted, live) = (order.ranks(&wanted), order.ranks(items));
            order.apply(items, &wanted, &live);
        }
    }
    Ok(())
}

fn retain_keys(fields: &mut Fields, patch: &mut Fields) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys = list_of(keys, RETAIN_KEYS)?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let kept = |field: &str| keys.contains(field);
    if let Some(extra) = patch.iter().find(|(field, value)| !value.is_null() && !kept(field)) {
        return Err(PatchError::Malformed(format!(
            "{RETAIN_KEYS} does not name {}, which the patch sets",
            extra.0
        )));
    }
    fields.retain(|field, _| kept(field));
    Ok(())
}

/// Takes the fields with a directive's prefix out of a patch, without the prefix.
fn take_prefixed(patch: &mut Fields, prefix: &str) -> Vec<(String, Value)> {
    let names: Vec<String> = patch.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| {
            let value = patch.remove(&name)?;
            Some((name.strip_prefix(prefix)?.to_owned(), value))
        })
        .collect()
}

fn list_of(value: Value, field: &str) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(PatchError::Malformed(format!("{field} must be a list"))),
    }
}

fn merge_field(
    fields: &mut Fields,
    field: String,
    value: Value,
    order: Option<Vec<Value>>,
    place: Place,
) -> Result<(), PatchError> {
    let rule = place.patch(&field);
    match value {
        Value::Null => {
            fields.remove(&field);
        }
        Value::Array(patch) if rule.merge => {
            let mut list = take_list(fields, &field);
            let by = Order { key: rule.merge_key };
            let (wanted, live) = (by.ranks(order.as_ref().unwrap_or(&patch)), by.ranks(&list));
            match rule.merge_key {
                Some(key) => merge_list(&mut list, patch, key, place.below(&field))
                    .map_err(|error| within(&field, error))?,
                None => {
                    let mut added = HashSet::with_capacity(patch.len());
                    list.extend(patch.into_iter().filter(|item| {
                        let id = by.id(item);
                        !live.contains_key(&id) && added.insert(id)
                    }));
                }
            }
            by.apply(&mut list, &wanted, &live);
            fields.insert(field, Value::Array(list));
        }
        Value::Object(patch) if !rule.replace => {
            let deletes = patch.get(PATCH).and_then(Value::as_str) == Some("delete");
            let slot = fields.entry(field.as_str()).or_insert(Value::Null);
            let mut inner = take_map(slot);
            merge_map(&mut inner, patch, place.below(&field))
                .map_err(|error| within(&field, error))?;
            *slot = Value::Object(inner);
            if deletes {
                fields.remove(&field);
            }
        }
        value => {
            fields.insert(field, value);
        }
    }
    Ok(())
}

fn within(field: &str, error: PatchError) -> PatchError {
    match error {
        PatchError::Malformed(why) => PatchError::Malformed(format!("{field}: {why}")),
        other => other,
    }
}

fn take_list(fields: &mut Fields, field: &str) -> Vec<Value> {
    match fields.remove(field) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn merge_list(
    list: &mut Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    place: Place,
) -> Result<(), PatchError> {
    let mut replaces = false;
    let mut changes = Vec::with_capacity(patch.len());
    for item in patch {
        let Value::Object(mut item) = item else {
            return Err(PatchError::Malformed(format!("items must be maps with {key}")));
        };
        match (take_directive(&mut item)?, item.get(key).cloned()) {
            // An item that holds nothing but the directive replaces the list by the others.
            (Directive::Replace, _) if item.is_empty() => replaces = true,
            (Directive::Delete, None) => {
                return Err(PatchError::Malformed(format!(
                    "delete patch type with no merge key {key:?}"
                )));
            }
            (_, None) => {
                return Err(PatchError::Malformed(format!(
                    "map: {} does not contain declared merge key: {key}",
                    Value::Object(item)
                )));
            }
            (directive, Some(id)) => changes.push((directive, id, item)),
        }
    }
    if replaces {
        list.clear();
    }
    let mut slots = Slots::of(list, key);
    for (directive, id, item) in changes {
        let id = told_by(&id);
        match directive {
            Directive::Delete => slots.remove(&id),
            Directive::Replace => {
                if let Some(slot) = slots.first(id) {
                    *slot = Value::Object(item);
                }
            }
            Directive::Merge => {
                let Some(slot) = slots.first(id) else { continue };
                let mut merged = take_map(slot);
                merge_map(&mut merged, item, place)?;
                *slot = Value::Object(merged);
            }
        }
    }
    list.extend(slots.items.into_iter().flatten());
    Ok(())
}

/// The items of a list while it is merged, found by their merge key: lists and patches may have many
/// thousands.
struct Slots {
    /// In the list's order; none where one was deleted.
    items: Vec<Option<Value>>,
    by_id: HashMap<String, Vec<usize>>,
}

impl Slots {
    /// Takes the items out of a list.
    fn of(list: &mut Vec<Value>, key: &str) -> Self {
        let items: Vec<_> = list.drain(..).map(Some).collect();
        let mut by_id: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, item) in items.iter().enumerate() {
            if let Some(id) = item.as_ref().and_then(|item| item.get(key)) {
                by_id.entry(told_by(id)).or_default().push(at);
            }
        }
        Self { items, by_id }
    }

    fn remove(&mut self, id: &str) {
        for at in self.by_id.remove(id).unwrap_or_default() {
            if let Some(slot) = self.items.get_mut(at) {
                *slot = None;
            }
        }
    }

    /// The first item with this id; null at the end where there is none.
    fn first(&mut self, id: String) -> Option<&mut Value> {
        let end = self.items.len();
        let at = *self.by_id.entry(id).or_insert_with(|| vec![end]).first()?;
        if at == end {
            self.items.push(None);
        }
        self.items.get_mut(at).map(|slot| slot.get_or_insert(Value::Null))
    }
}

/// A text that no other value has. Nearly all are strings, and escaping them is most of the time of a long list.
fn told_by(value: &Value) -> String {
    match value {
        // No other value's JSON begins like this.
        Value::String(text) => ["\"", text].concat(),
        other => other.to_string(),
    }
}

/// How the items of a merged list are told apart, to put them in order.
#[derive(Clone, Copy)]
struct Order {
    /// `None` for lists of scalars.
    key: Option<&'static str>,
}

/// Places by what tells an item.
type Ranks = HashMap<String, usize>;

impl Order {
    fn id(self, item: &Value) -> String {
        match self.key {
            Some(key) => item.get(key).map(told_by).unwrap_or_default(),
            None => told_by(item),
        }
    }

    fn ranks(self, items: &[Value]) -> Ranks {
        let places = items.iter().enumerate();
        places.rev().map(|(place, item)| (self.id(item), place)).collect()
    }

    /// Orders a merged list: items that the patch names are in its order, the others in that of the
    /// live list. Where the two meet, an item that only the live list has comes before one of the
    /// patch only if it did so in the live list; so what a patch adds comes first.
    fn apply(self, items: &mut Vec<Value>, wanted: &Ranks, live: &Ranks) {
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for item in items.drain(..) {
            let id = self.id(&item);
            match wanted.get(&id) {
                Some(rank) => named.push((*rank, live.get(&id).copied(), item)),
                None => others.push((live.get(&id).copied(), item)),
            }
        }
        named.sort_by_key(|(rank, _, _)| *rank);
        others.sort_by_key(|(rank, _)| *rank);
        let mut others = others.into_iter().peekable();
        for (_, place, item) in named {
            let comes_first = |(other, _): &(Option<usize>, Value)| matches!((other, place), (Some(other), Some(place)) if *other < place);
            while let Some((_, other)) = others.next_if(comes_first) {
                items.push(other);
            }
            items.push(item);
        }
        items.extend(others.map(|(_, item)| item));
    }
}
