//! Changes a document of JSON and leaves it one.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Deepest nesting that is made at once: more than parsers take.
const DEPTH_MAX: usize = 140;
/// Longest text that is made at once.
const TEXT_MAX: usize = 4096;

/// Changes one place of a document; parts may come from another one.
pub(super) fn mutate(
    document: &mut Value,
    donor: &Value,
    tokens: &[&str],
    max_bytes: usize,
    rng: &mut Rng,
) {
    let size = count(document);
    let mut at = rng.usize(..size);
    let Some(place) = nth_mut(document, &mut at) else { return };
    // About as many bytes as a node has.
    let room = (max_bytes / 16).saturating_sub(size);
    match rng.u8(..10) {
        0 => *place = scalar(tokens, rng),
        1 => {
            let mut at = rng.usize(..count(donor));
            *place = nth(donor, &mut at).cloned().unwrap_or_default();
        }
        2 => {
            let wrap = rng.bool();
            let most = if rng.u8(..8) == 0 { DEPTH_MAX } else { 3 };
            for _ in 0..rng.usize(1..=most) {
                let inner = place.take();
                let name = rng.choice(tokens).copied().unwrap_or("a");
                *place = if wrap { json!([inner]) } else { json!({ name: inner }) };
            }
        }
        _ => match place {
            Value::Array(items) => list(items, donor, room, rng),
            Value::Object(fields) => map(fields, donor, tokens, room, rng),
            Value::String(text) => *text = other_text(text, tokens, rng),
            scalar_place => *scalar_place = scalar(tokens, rng),
        },
    }
}

fn list(items: &mut Vec<Value>, donor: &Value, room: usize, rng: &mut Rng) {
    let at = rng.usize(..items.len().max(1));
    match rng.u8(..5) {
        0 if at < items.len() => drop(items.remove(at)),
        1 => rng.shuffle(items),
        2 => {
            let mut node = rng.usize(..count(donor));
            items.push(nth(donor, &mut node).cloned().unwrap_or_default());
        }
        // The same again, or the same under other names.
        _ => {
            let Some(item) = items.get(at).cloned() else { return };
            let most = (room / count(&item)).min(if rng.u8(..16) == 0 { room } else { 20 });
            let named = rng.bool();
            for number in 0..rng.usize(..=most) {
                let mut copy = item.clone();
                if named {
                    rename(&mut copy, number);
                }
                items.push(copy);
            }
        }
    }
}

/// Gives what may tell an item another value.
fn rename(item: &mut Value, number: usize) {
    match item {
        Value::String(text) => *text = format!("{text}{number}"),
        Value::Object(fields) => {
            for key in ["name", "path", "containerPort", "port", "key", "uid"] {
                match fields.get_mut(key) {
                    Some(Value::String(text)) => *text = format!("{text}{number}"),
                    Some(Value::Number(own)) => *own = number.into(),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn map(
    fields: &mut Map<String, Value>,
    donor: &Value,
    tokens: &[&str],
    room: usize,
    rng: &mut Rng,
) {
    let names: Vec<String> = fields.keys().cloned().collect();
    let chosen = rng.choice(&names).cloned();
    let token = rng.choice(tokens).copied().unwrap_or("a");
    match (rng.u8(..5), chosen) {
        (0, Some(name)) => drop(fields.remove(&name)),
        (1, Some(name)) => {
            let value = fields.remove(&name).unwrap_or_default();
            fields.insert(token.to_owned(), value);
        }
        (2, Some(name)) => {
            let value = fields.get(&name).cloned().unwrap_or_default();
            let most = (room / count(&value)).min(if rng.u8(..16) == 0 { room } else { 20 });
            for number in 0..rng.usize(..=most) {
                fields.insert(format!("{name}{number}"), value.clone());
            }
        }
        (3, Some(name)) => {
            let value = fields.get(&name).cloned().unwrap_or_default();
            fields.insert(token.to_owned(), value);
        }
        _ => {
            let mut at = rng.usize(..count(donor));
            let value = nth(donor, &mut at).cloned().unwrap_or_default();
            fields.insert(token.to_owned(), value);
        }
    }
}

fn other_text(text: &str, tokens: &[&str], rng: &mut Rng) -> String {
    let token = rng.choice(tokens).copied().unwrap_or_default();
    let cut = rng.usize(..=text.len());
    let cut = (0..=cut).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (before, after) = text.split_at(cut);
    match rng.u8(..6) {
        0 => token.to_owned(),
        1 => format!("{before}{token}{after}"),
        2 => before.to_owned(),
        3 => format!("{after}{before}"),
        4 => {
            let times = TEXT_MAX / text.len().max(1);
            text.repeat(rng.usize(..=times))
        }
        _ => format!("{before}{}{after}", rng.char(..)),
    }
}

fn scalar(tokens: &[&str], rng: &mut Rng) -> Value {
    match rng.u8(..6) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => json!([]),
        3 => json!({}),
        4 => rng.choice(tokens).copied().unwrap_or_default().into(),
        _ => number(rng),
    }
}

/// A number at which something ends.
pub(super) fn number(rng: &mut Rng) -> Value {
    match rng.u8(..12) {
        0 => json!(0),
        1 => json!(-1),
        2 => json!(i32::MAX),
        3 => json!(i64::from(i32::MAX) + 1),
        4 => json!(i64::MIN),
        5 => json!(i64::MAX),
        6 => json!(u64::MAX),
        7 => json!(1e308),
        8 => json!(-1e-308),
        9 => json!(0.1),
        10 => json!(rng.u64(..)),
        _ => json!(rng.i64(-300..70_000)),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The node with this number, counted from the top.
fn nth<'v>(value: &'v Value, at: &mut usize) -> Option<&'v Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter().find_map(|item| nth(item, at)),
        Value::Object(fields) => fields.values().find_map(|field| nth(field, at)),
        _ => None,
    }
}

fn nth_mut<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth_mut(item, at)),
        Value::Object(fields) => fields.values_mut().find_map(|field| nth_mut(field, at)),
        _ => None,
    }
}
