//! What one object uses, by its kind.

use jiff::Timestamp;
use serde_json::Value;
use toono_api::Quantity;

use crate::{Amounts, claims, pods, services};

/// A kind by its group (empty for the core group) and plural.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind<'a> {
    /// Its API group.
    pub group: &'a str,
    /// Its plural, in lower case.
    pub plural: &'a str,
}

/// Kinds of the core group that are also counted under their bare name.
const BARE_COUNTS: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

impl Kind<'_> {
    /// `count/<plural>.<group>`, the resource by which objects of any kind are counted.
    #[must_use]
    pub fn count_name(&self) -> String {
        if self.group.is_empty() {
            format!("count/{}", self.plural)
        } else {
            format!("count/{}.{}", self.plural, self.group)
        }
    }

    pub(crate) fn is(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }
}

/// What an object of this kind uses.
#[must_use]
pub fn usage(kind: Kind<'_>, object: &Value, now: Timestamp) -> Amounts {
    let one = Quantity::from_millis(1000);
    let mut used = Amounts::default();
    used.set(kind.count_name(), one);
    if kind.group.is_empty() {
        if BARE_COUNTS.contains(&kind.plural) {
            used.set(kind.plural, one);
        }
        match kind.plural {
            "pods" => used.add_all(&pods::usage(object, now)),
            "services" => used.add_all(&services::usage(object)),
            "persistentvolumeclaims" => used.add_all(&claims::usage(object)),
            _ => {}
        }
    }
    used
}

/// The kind whose objects a resource of a quota counts: `(group, plural)`; none if nobody counts
/// it.
#[must_use]
pub fn counted_kind(resource: &str) -> Option<(&str, &str)> {
    if let Some(counted) = resource.strip_prefix("count/") {
        return Some(
            counted.split_once('.').map_or(("", counted), |(plural, group)| (group, plural)),
        );
    }
    if let Some(known) = BARE_COUNTS.iter().find(|known| **known == resource) {
        return Some(("", known));
    }
    if services::counts(resource) {
        return Some(("", "services"));
    }
    if claims::counts(resource) {
        return Some(("", "persistentvolumeclaims"));
    }
    pods::counts(resource).then_some(("", "pods"))
}

/// The value at a path of fields.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, field| value.get(field)).filter(|value| !value.is_null())
}

/// The text at a path of fields; none if empty.
pub(crate) fn text<'a>(object: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(object, path).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The members of the array at a path of fields.
pub(crate) fn items<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    at(object, path).and_then(Value::as_array).into_iter().flatten()
}
