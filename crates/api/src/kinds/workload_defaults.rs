//! What workloads are given besides what clients say.

use serde_json::{Map, Value, json};

use super::{map_in, maps_in, pod_defaults, set_default};
use crate::meta::at;

pub(super) fn deployment(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    rolling_update(spec, "strategy", json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
    pod_defaults::template(spec);
}

pub(super) fn replica_set(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "replicas", 1);
    pod_defaults::template(spec);
}

pub(super) fn daemon_set(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "revisionHistoryLimit", 10);
    rolling_update(spec, "updateStrategy", json!({"maxUnavailable": 1, "maxSurge": 0}));
    pod_defaults::template(spec);
}

pub(super) fn stateful_set(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "podManagementPolicy", "OrderedReady");
    rolling_update(spec, "updateStrategy", json!({"partition": 0}));
    let policy = spec.entry("persistentVolumeClaimRetentionPolicy").or_insert_with(|| json!({}));
    if let Some(policy) = policy.as_object_mut() {
        set_default(policy, "whenDeleted", "Retain");
        set_default(policy, "whenScaled", "Retain");
    }
    for claim in maps_in(spec, "volumeClaimTemplates") {
        claim.entry("apiVersion").or_insert_with(|| "v1".into());
        claim.entry("kind").or_insert_with(|| "PersistentVolumeClaim".into());
        if let Some(inner) = claim.entry("spec").or_insert_with(|| json!({})).as_object_mut() {
            pod_defaults::claim_spec(inner);
        }
        let status = claim.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            set_default(status, "phase", "Pending");
        }
    }
    pod_defaults::template(spec);
}

/// Selector and labels of a ReplicationController default to the labels of its pods.
pub(super) fn replication_controller(object: &mut Value) {
    let labels = at(object, &["spec", "template", "metadata", "labels"]).cloned();
    if let Some(labels) =
        labels.filter(|labels| labels.as_object().is_some_and(|all| !all.is_empty()))
    {
        let none =
            |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
        if let Some(metadata) = map_in(object, "metadata")
            && none(metadata.get("labels"))
        {
            metadata.insert("labels".to_owned(), labels.clone());
        }
        if let Some(spec) = map_in(object, "spec")
            && none(spec.get("selector"))
        {
            spec.insert("selector".to_owned(), labels);
        }
    }
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "replicas", 1);
    pod_defaults::template(spec);
}

fn rolling_update(spec: &mut Map<String, Value>, field: &str, parameters: Value) {
    let strategy = spec.entry(field).or_insert_with(|| json!({}));
    let Some(fields) = strategy.as_object_mut() else { return };
    set_default(fields, "type", "RollingUpdate");
    if fields.get("type").and_then(Value::as_str) != Some("RollingUpdate") {
        return;
    }
    if let (Some(given), Value::Object(parameters)) =
        (map_in(strategy, "rollingUpdate"), parameters)
    {
        for (name, value) in parameters {
            set_default(given, &name, value);
        }
    }
}
