//! The renewal of a node's Lease: an update that changes nothing but when the node last said that it lives.
//! It is answered as any update, and stays in memory (`liveness` says why); everything else about it, such
//! as who may do it, is as for any update.

use serde_json::{Map, Value};
use toono_api::{
    ApiError,
    meta::{at, items_at, text_at},
};
use toono_mvcc::Entry;

use super::{Record, Written, update::Change};
use crate::{
    admission::{self, Operation, Review},
    liveness,
    server::ApiServer,
};

/// What a client may leave out of the metadata: an update keeps it, or has it from the path.
const KEPT: [&str; 5] =
    ["namespace", "uid", "resourceVersion", "creationTimestamp", "managedFields"];
/// `2026-01-01T00:00:00.000000Z`, the one form in which such times are stored.
const MICRO_TIME_BYTES: usize = 27;

/// Makes `sent` of `old`, if that is a renewal that may stay in memory. Otherwise it is to be written.
///
/// # Errors
/// When the cluster does not take it.
pub(super) async fn renew(
    server: &ApiServer,
    change: Change<'_>,
    entry: &Entry,
    old: &Value,
    sent: &Value,
) -> Result<Option<Written>, ApiError> {
    let Change { user, resource, subresource, namespace, name, options, .. } = change;
    let Record::Changes(manager) = options.record else { return Ok(None) };
    let plain = subresource.is_empty() && !options.dry_run && options.repeated.is_empty();
    let Some(time) = renewal(old, sent).filter(|_| plain) else { return Ok(None) };
    let is_stored = !liveness::is_kept_by_session(server, entry)?;
    let lives = &server.inner.lives;
    if is_stored && !(owns_the_time(old, manager) && lives.may_renew(entry)) {
        return Ok(None);
    }
    let operation = Operation::Update;
    let (old, dry_run) = (Some(old), false);
    let review =
        Review { server, user, operation, resource, subresource, namespace, name, old, dry_run };
    let mut new = sent.clone();
    let mut warnings = admission::mutate(&review, &mut new).await?;
    if new != *sent {
        return Ok(None);
    }
    warnings.extend(admission::validate(&review, &new).await?);
    let renewed = lives.renew(entry.clone(), is_stored, time);
    Ok(renewed.map(|entry| Written { entry, warnings }))
}

/// The time of renewal, if nothing else differs.
fn renewal<'s>(old: &Value, sent: &'s Value) -> Option<&'s str> {
    let (old, sent) = (old.as_object()?, sent.as_object()?);
    let (old_spec, spec) = (old.get("spec")?.as_object()?, sent.get("spec")?.as_object()?);
    let (old_meta, meta) = (old.get("metadata")?.as_object()?, sent.get("metadata")?.as_object()?);
    let kept_or_same = |(field, value): (&String, &Value)| match old_meta.get(field) {
        None => false,
        Some(old) => old == value || (KEPT.contains(&field.as_str()) && value.is_null()),
    };
    let given = |field: &String| KEPT.contains(&field.as_str()) || meta.contains_key(field);
    let time = spec.get("renewTime")?.as_str().filter(|time| is_micro_time(time))?;
    let same = same_but(old, sent, &["metadata", "spec"])
        && same_but(old_spec, spec, &["renewTime"])
        && old_spec.get("renewTime").is_some_and(Value::is_string)
        && meta.iter().all(kept_or_same)
        && old_meta.keys().all(given);
    same.then_some(time)
}

/// Whether both have the same fields, and the same in each but these.
fn same_but(old: &Map<String, Value>, new: &Map<String, Value>, but: &[&str]) -> bool {
    let same = |(field, value): (&String, &Value)| {
        new.get(field).is_some_and(|new| new == value || but.contains(&field.as_str()))
    };
    old.len() == new.len() && old.iter().all(same)
}

fn is_micro_time(time: &str) -> bool {
    let form = time.len() == MICRO_TIME_BYTES && time.ends_with('Z');
    form && time.get(10..11) == Some("T")
        && time.get(19..20) == Some(".")
        && time.parse::<jiff::Timestamp>().is_ok()
}

/// Whether the time of renewal is this manager's alone: then a renewal changes no record of who has what.
fn owns_the_time(lease: &Value, manager: &str) -> bool {
    let mut owners = items_at(lease, &["metadata", "managedFields"])
        .filter(|entry| at(entry, &["fieldsV1", "f:spec", "f:renewTime"]).is_some());
    let is_it = |entry: &Value| {
        text_at(entry, &["manager"]) == Some(manager)
            && text_at(entry, &["operation"]) == Some("Update")
            && text_at(entry, &["subresource"]).unwrap_or_default().is_empty()
    };
    owners.next().is_some_and(is_it) && owners.next().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OLD: &str = "2026-01-01T00:00:00.000000Z";
    const NEW: &str = "2026-01-01T00:00:10.000001Z";

    fn stored() -> Value {
        json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": "n", "namespace": "kube-node-lease", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"},
                "managedFields": [{"manager": "kubelet", "operation": "Update",
                    "fieldsV1": {"f:spec": {"f:renewTime": {}}}}]},
            "spec": {"holderIdentity": "n", "leaseDurationSeconds": 40, "renewTime": OLD}})
    }

    #[test]
    fn only_what_says_nothing_else_is_a_renewal() {
        let sent = |pointer: &str, value: Value| {
            let mut sent = stored();
            sent["spec"]["renewTime"] = NEW.into();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            let parent = sent.pointer_mut(parent).unwrap();
            if value == json!("gone") {
                parent.as_object_mut().unwrap().remove(field);
            } else {
                parent[field] = value;
            }
            sent
        };
        for (pointer, value, expected) in [
            ("/spec/renewTime", json!(NEW), Some(NEW)),
            ("/metadata/resourceVersion", json!("gone"), Some(NEW)),
            ("/metadata/managedFields", json!("gone"), Some(NEW)),
            ("/metadata/namespace", json!("gone"), Some(NEW)),
            ("/metadata/namespace", json!("other"), None),
            ("/metadata/managedFields", json!(null), Some(NEW)),
            ("/metadata/managedFields", json!([]), None),
            ("/metadata/resourceVersion", json!("6"), None),
            ("/metadata/uid", json!("v"), None),
            ("/metadata/labels", json!("gone"), None),
            ("/metadata/annotations", json!({"a": "b"}), None),
            ("/spec/holderIdentity", json!("m"), None),
            ("/spec/leaseTransitions", json!(1), None),
            ("/spec/unknown", json!(1), None),
            ("/status", json!({}), None),
            ("/spec/renewTime", json!("2026-01-01T00:00:10Z"), None),
            ("/spec/renewTime", json!("2026-13-01T00:00:10.000001Z"), None),
            ("/spec/renewTime", json!("gone"), None),
        ] {
            let sent = sent(pointer, value.clone());
            assert_eq!(renewal(&stored(), &sent), expected, "{pointer} {value}");
        }
    }

    #[test]
    fn who_shares_the_time_or_does_not_have_it_writes() {
        let mut lease = stored();
        assert!(owns_the_time(&lease, "kubelet"));
        assert!(!owns_the_time(&lease, "kubectl"));
        let other = json!({"manager": "other", "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:renewTime": {}}}});
        lease["metadata"]["managedFields"].as_array_mut().unwrap().push(other);
        assert!(!owns_the_time(&lease, "kubelet"));
    }
}
