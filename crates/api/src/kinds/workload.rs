//! The rows of `apps/v1`: Deployments, ReplicaSets, DaemonSets, ControllerRevisions.

use serde_json::{Value, json};

use super::{
    DATA, SCALE, SPEC_AND_STATUS, immutable, map_in, no_defaults, no_rules, pod_defaults,
    pod_validation, set_default, status_of,
};
use crate::{
    error::FieldError,
    merge,
    meta::{at, labels_of, text_at},
    print::workload as print,
    resource::{ALL_VERBS, BuiltIn},
    selector::LabelSelector,
};

/// Deployments.
pub static DEPLOYMENT: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[SCALE, status_of("apps", "v1", "Deployment")],
    strategy: SPEC_AND_STATUS,
    columns: print::DEPLOYMENT,
    row: print::deployment_row,
    message: "apps.Deployment",
    default: deployment_defaults,
    validate: deployment_rules,
    validate_update: selector_immutable,
    field_selectors: &[],
    merge: &merge::WORKLOAD,
    stored: None,
};

/// ReplicaSets.
pub static REPLICA_SET: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    list_kind: "ReplicaSetList",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[SCALE, status_of("apps", "v1", "ReplicaSet")],
    strategy: SPEC_AND_STATUS,
    columns: print::REPLICA_SET,
    row: print::replica_set_row,
    message: "apps.ReplicaSet",
    default: replica_set_defaults,
    validate: replicated_rules,
    validate_update: selector_immutable,
    field_selectors: &["status.replicas"],
    merge: &merge::WORKLOAD,
    stored: None,
};

/// DaemonSets.
pub static DAEMON_SET: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    list_kind: "DaemonSetList",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[status_of("apps", "v1", "DaemonSet")],
    strategy: SPEC_AND_STATUS,
    columns: print::DAEMON_SET,
    row: print::daemon_set_row,
    message: "apps.DaemonSet",
    default: daemon_set_defaults,
    validate: daemon_set_rules,
    validate_update: selector_immutable,
    field_selectors: &[],
    merge: &merge::WORKLOAD,
    stored: None,
};

/// ControllerRevisions.
pub static CONTROLLER_REVISION: BuiltIn = BuiltIn {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    list_kind: "ControllerRevisionList",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    strategy: DATA,
    columns: print::CONTROLLER_REVISION,
    row: print::controller_revision_row,
    message: "apps.ControllerRevision",
    default: no_defaults,
    validate: no_rules,
    validate_update: controller_revision_update,
    field_selectors: &[],
    merge: &merge::GENERIC,
    stored: None,
};

const UPDATE_STRATEGIES: &[&str] = &["Recreate", "RollingUpdate"];
const DAEMON_STRATEGIES: &[&str] = &["OnDelete", "RollingUpdate"];

fn deployment_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    rolling_update(spec, "strategy", json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
    pod_defaults::template(spec);
}

fn replica_set_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "replicas", 1);
    pod_defaults::template(spec);
}

fn daemon_set_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "revisionHistoryLimit", 10);
    rolling_update(spec, "updateStrategy", json!({"maxUnavailable": 1, "maxSurge": 0}));
    pod_defaults::template(spec);
}

fn rolling_update(spec: &mut serde_json::Map<String, Value>, field: &str, parameters: Value) {
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

fn deployment_rules(object: &Value) -> Vec<FieldError> {
    let mut errors = replicated_rules(object);
    let kind = text_at(object, &["spec", "strategy", "type"]).unwrap_or_default();
    if !UPDATE_STRATEGIES.contains(&kind) {
        errors.push(FieldError::not_supported("spec.strategy.type", kind, UPDATE_STRATEGIES));
    }
    if kind == "Recreate" && at(object, &["spec", "strategy", "rollingUpdate"]).is_some() {
        errors.push(FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ));
    }
    let path = ["spec", "strategy", "rollingUpdate"];
    let zero = |field: &str| {
        let value = at(object, &path).and_then(|parameters| parameters.get(field));
        value.is_some_and(|value| value.as_i64() == Some(0) || value.as_str() == Some("0%"))
    };
    if zero("maxUnavailable") && zero("maxSurge") {
        errors.push(FieldError::invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            &Value::from(0),
            "may not be 0 when `maxSurge` is 0",
        ));
    }
    errors
}

fn daemon_set_rules(object: &Value) -> Vec<FieldError> {
    let mut errors = selector_rules(object);
    let kind = text_at(object, &["spec", "updateStrategy", "type"]).unwrap_or_default();
    if !DAEMON_STRATEGIES.contains(&kind) {
        errors.push(FieldError::not_supported("spec.updateStrategy.type", kind, DAEMON_STRATEGIES));
    }
    errors
}

fn replicated_rules(object: &Value) -> Vec<FieldError> {
    let mut errors = selector_rules(object);
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        if let Some(number) = at(object, &["spec", field]).filter(|value| value.as_i64() < Some(0))
        {
            let field = format!("spec.{field}");
            errors.push(FieldError::invalid(field, number, "must be greater than or equal to 0"));
        }
    }
    errors
}

/// The selector is there, is not empty, and selects the pods of the template.
fn selector_rules(object: &Value) -> Vec<FieldError> {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let mut errors = Vec::new();
    let template = spec.get("template").unwrap_or(&Value::Null);
    match spec.get("selector").filter(|selector| !selector.is_null()) {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(given) => match LabelSelector::from_object(given) {
            Err(error) => {
                errors.push(FieldError::invalid("spec.selector", given, &error.to_string()))
            }
            Ok(selector) if selector.is_everything() => errors.push(FieldError::invalid(
                "spec.selector",
                given,
                "empty selector is invalid for deployment",
            )),
            Ok(selector) => {
                let label =
                    |key: &str| labels_of(template).find(|(k, _)| *k == key).map(|(_, v)| v);
                if !selector.matches(label) {
                    let empty = json!({});
                    let labels = at(template, &["metadata", "labels"]).unwrap_or(&empty);
                    errors.push(FieldError::invalid(
                        "spec.template.metadata.labels",
                        labels,
                        "`selector` does not match template `labels`",
                    ));
                }
            }
        },
    }
    errors.extend(pod_validation::template(spec, true));
    errors
}

fn selector_immutable(new: &Value, old: &Value) -> Vec<FieldError> {
    immutable(new, old, &["spec", "selector"]).into_iter().collect()
}

fn controller_revision_update(new: &Value, old: &Value) -> Vec<FieldError> {
    immutable(new, old, &["data"]).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}},
                         "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    }

    fn first_error(object: &Value) -> String {
        (DEPLOYMENT.validate)(object).first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn deployments_are_filled_and_judged() {
        let mut object = deployment();
        (DEPLOYMENT.default)(&mut object);
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(object["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(
            object["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"],
            "Always"
        );
        assert_eq!(first_error(&object), "");

        let mut bad = object.clone();
        bad["spec"]["template"]["metadata"]["labels"]["app"] = "b".into();
        assert_eq!(
            first_error(&bad),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"
        );
        let mut bad = object.clone();
        bad["spec"]["template"]["spec"]["containers"][0]["image"] = "".into();
        assert_eq!(first_error(&bad), "spec.template.spec.containers[0].image: Required value");
        let mut bad = object.clone();
        bad["spec"]["replicas"] = (-1).into();
        assert!(first_error(&bad).contains("must be greater than or equal to 0"));
        let mut moved = object.clone();
        moved["spec"]["selector"]["matchLabels"]["app"] = "z".into();
        assert_eq!(
            (DEPLOYMENT.validate_update)(&moved, &object)[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"z\"}}: field is immutable"
        );
    }

    #[test]
    fn decoding_is_strict_about_types_and_reports_unknown_fields() {
        let mut object = deployment();
        object["spec"]["replcas"] = 3.into();
        object["spec"]["template"]["spec"]["containers"][0]["imag"] = "x".into();
        let decoded = DEPLOYMENT.decode(object.clone()).unwrap();
        assert_eq!(
            decoded.unknown_fields,
            ["spec.replcas", "spec.template.spec.containers[0].imag"]
        );
        assert!(decoded.object["spec"].get("replcas").is_none());
        object["spec"]["replicas"] = "three".into();
        let error = DEPLOYMENT.decode(object).unwrap_err();
        assert_eq!(error.path, "spec.replicas");
    }
}
