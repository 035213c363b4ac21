//! The annotation in which `kubectl apply` keeps what it applied last, and its part in moving an
//! object from client-side to server-side apply.
//!
//! Only the manager named `kubectl` takes part, as in Kubernetes: any other keeps its hands off.

use serde_json::{Map, Value};
use toono_api::{Place, kinds::metadata::ANNOTATIONS_MAX_BYTES};

use super::{compare::Comparison, field_set::FieldSet, walk::places};

/// The manager that `kubectl apply --server-side` is.
pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The places that were applied on the client's side and have kept their values since: `kubectl`
/// may take those over from whoever is on record for them.
pub(super) fn places_kept(live: &Value, api_version: &str, place: Place<'_>) -> Option<FieldSet> {
    let annotation = live.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    let last: Value = serde_json::from_str(annotation).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return None;
    }
    let differences = Comparison::of(&last, live, place);
    Some(
        places(&last, place)
            .difference(&differences.modified)
            .difference(&differences.added)
            .difference(&differences.removed),
    )
}

/// Brings the annotation up to date with what was applied on the server's side, where it is, so that
/// a later client-side apply starts from the truth.
pub(super) fn renew(object: &mut Value, applied: &Value) {
    let Some(annotations) = annotations_mut(object) else { return };
    let there = annotations.get(ANNOTATION).and_then(Value::as_str);
    if there.is_none_or(str::is_empty) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(annotations) = annotations_mut(&mut applied) {
        annotations.remove(ANNOTATION);
    }
    annotations.insert(ANNOTATION.to_owned(), format!("{applied}\n").into());
    let size = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > ANNOTATIONS_MAX_BYTES {
        annotations.remove(ANNOTATION);
    }
}

fn annotations_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}
