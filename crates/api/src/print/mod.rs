//! Table rows: what `kubectl get` shows of each kind. Pure functions of an object and the time.
//!
//! Columns and texts are those of Kubernetes' own printers, since people and scripts read them.

pub mod batch;
pub mod cluster;
pub mod core;
pub mod networking;
pub mod node;
pub mod pod;
pub mod storage;
pub mod workload;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
    selector::LabelSelector,
};

const EMPTY: Cow<'static, str> = Cow::Borrowed("");

/// A column that is always shown.
#[must_use]
pub const fn column(name: &'static str, kind: &'static str) -> Column {
    Column { name: Cow::Borrowed(name), kind, format: EMPTY, priority: 0, description: EMPTY }
}

/// A column of wide output.
#[must_use]
pub const fn wide(name: &'static str, kind: &'static str) -> Column {
    Column { name: Cow::Borrowed(name), kind, format: EMPTY, priority: 1, description: EMPTY }
}

/// The first column.
pub const NAME: Column = Column {
    name: Cow::Borrowed("Name"),
    kind: "string",
    format: Cow::Borrowed("name"),
    priority: 0,
    description: Cow::Borrowed(
        "Name must be unique within a namespace. Is required when creating resources, \
                  although some resources may allow a client to request the generation of an \
                  appropriate name automatically.",
    ),
};
/// Time since creation.
pub const AGE: Column = column("Age", "string");

/// When it was created.
const CREATED_AT: Column = Column {
    name: Cow::Borrowed("Created At"),
    kind: "date",
    format: EMPTY,
    priority: 0,
    description: EMPTY,
};

/// Columns of kinds that nobody prints in a way of their own.
pub const NAME_AND_CREATION: &[Column] = &[NAME, CREATED_AT];

/// A row of name and time of creation.
#[must_use]
pub fn name_and_creation(object: &Value, _: Timestamp) -> Vec<Value> {
    let created = text_at(object, &["metadata", "creationTimestamp"]).unwrap_or_default();
    vec![name(object), created.into()]
}

/// What stands for an absent value.
pub(crate) const NONE: &str = "<none>";
pub(crate) const UNKNOWN: &str = "<unknown>";

/// The object's name.
pub(crate) fn name(object: &Value) -> Value {
    text_at(object, &["metadata", "name"]).unwrap_or_default().into()
}

/// Time since the object's creation.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    since(text_at(object, &["metadata", "creationTimestamp"]), now).into()
}

/// Time since an RFC 3339 moment; `<unknown>` when there is none.
pub(crate) fn since(moment: Option<&str>, now: Timestamp) -> String {
    match moment.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(moment) => human_duration(now.as_second() - moment.as_second()),
        None => UNKNOWN.to_owned(),
    }
}

/// The integer at a path, or 0.
pub(crate) fn integer(object: &Value, path: &[&str]) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// The text at a path, or a substitute when it is absent or empty.
pub(crate) fn text_or<'v>(object: &'v Value, path: &[&str], absent: &'v str) -> &'v str {
    text_at(object, path).filter(|text| !text.is_empty()).unwrap_or(absent)
}

/// `a=b,c=d` of a map, or `<none>`.
pub(crate) fn label_text(labels: Option<&Value>) -> String {
    let pairs: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// Names and images of a pod spec's containers, each joined by commas.
pub(crate) fn containers_and_images(pod_spec: &Value) -> (String, String) {
    let join = |field: &str| {
        items_at(pod_spec, &["containers"])
            .filter_map(|container| text_at(container, &[field]))
            .collect::<Vec<_>>()
            .join(",")
    };
    (join("name"), join("image"))
}

/// The texts of a list, joined by commas; a substitute when there are none.
pub(crate) fn joined<'v>(texts: impl Iterator<Item = &'v str>, absent: &str) -> String {
    let texts: Vec<&str> = texts.collect();
    if texts.is_empty() { absent.to_owned() } else { texts.join(",") }
}

/// The first few of a list, and how many more there are.
pub(crate) fn first_few(all: &[String], shown: usize, absent: &str) -> String {
    let few = all.iter().take(shown).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len() {
        count if count > shown => format!("{few} + {} more...", count - shown),
        _ if few.is_empty() => absent.to_owned(),
        _ => few,
    }
}

/// Whether `true` stands at a path.
pub(crate) fn is_true(object: &Value, path: &[&str]) -> bool {
    at(object, path) == Some(&Value::Bool(true))
}

/// A label selector, or `<none>`.
pub(crate) fn selector_text(selector: Option<&Value>) -> String {
    match selector.map(LabelSelector::from_object) {
        Some(Ok(selector)) if !selector.is_everything() => selector.to_string(),
        Some(Err(_)) => "<error>".to_owned(),
        _ => NONE.to_owned(),
    }
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A duration in one or two units, coarser as it grows, as Kubernetes prints ages.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (135, "2m15s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (315_360_000, "10y"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
