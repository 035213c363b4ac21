//! The rows of `apps/v1`, and of ReplicationControllers.

use serde_json::{Value, json};

use super::{
    ROW, SCALE, SPEC_AND_STATUS, status_of, workload_defaults as defaults, workload_rules as rules,
};
use crate::{
    names,
    print::workload as print,
    resource::{BuiltIn, Strategy},
};

const WORKLOAD: BuiltIn =
    BuiltIn { group: "apps", categories: &["all"], strategy: SPEC_AND_STATUS, ..ROW };

/// Deployments.
pub static DEPLOYMENT: BuiltIn = BuiltIn {
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    subresources: &[SCALE, status_of("apps", "v1", "Deployment")],
    columns: print::DEPLOYMENT,
    row: print::deployment_row,
    message: "apps.Deployment",
    default: defaults::deployment,
    validate: rules::deployment,
    validate_update: rules::selector_update,
    ..WORKLOAD
};

/// ReplicaSets.
pub static REPLICA_SET: BuiltIn = BuiltIn {
    kind: "ReplicaSet",
    list_kind: "ReplicaSetList",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    subresources: &[SCALE, status_of("apps", "v1", "ReplicaSet")],
    strategy: Strategy { initial_status: no_replicas, ..SPEC_AND_STATUS },
    columns: print::REPLICA_SET,
    row: print::replica_set_row,
    message: "apps.ReplicaSet",
    default: defaults::replica_set,
    validate: rules::replica_set,
    validate_update: rules::selector_update,
    field_selectors: &["status.replicas"],
    ..WORKLOAD
};

/// ReplicationControllers.
pub static REPLICATION_CONTROLLER: BuiltIn = BuiltIn {
    group: "",
    kind: "ReplicationController",
    list_kind: "ReplicationControllerList",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    subresources: &[SCALE, status_of("", "v1", "ReplicationController")],
    strategy: Strategy { initial_status: no_replicas, ..SPEC_AND_STATUS },
    columns: print::REPLICA_SET,
    row: print::replication_controller_row,
    message: "core.ReplicationController",
    default: defaults::replication_controller,
    validate: rules::replication_controller,
    field_selectors: &["status.replicas"],
    ..WORKLOAD
};

/// StatefulSets.
pub static STATEFUL_SET: BuiltIn = BuiltIn {
    kind: "StatefulSet",
    list_kind: "StatefulSetList",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    subresources: &[SCALE, status_of("apps", "v1", "StatefulSet")],
    strategy: Strategy {
        // The name is that of a label of its pods.
        name_rule: names::dns_label,
        initial_status: |_| json!({"replicas": 0, "availableReplicas": 0}),
        ..SPEC_AND_STATUS
    },
    columns: print::STATEFUL_SET,
    row: print::stateful_set_row,
    message: "apps.StatefulSet",
    default: defaults::stateful_set,
    validate: rules::stateful_set,
    validate_update: rules::stateful_set_update,
    ..WORKLOAD
};

/// DaemonSets.
pub static DAEMON_SET: BuiltIn = BuiltIn {
    kind: "DaemonSet",
    list_kind: "DaemonSetList",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    subresources: &[status_of("apps", "v1", "DaemonSet")],
    strategy: Strategy {
        initial_status: |_| {
            json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
                   "desiredNumberScheduled": 0, "numberReady": 0})
        },
        ..SPEC_AND_STATUS
    },
    columns: print::DAEMON_SET,
    row: print::daemon_set_row,
    message: "apps.DaemonSet",
    default: defaults::daemon_set,
    validate: rules::daemon_set,
    validate_update: rules::selector_update,
    ..WORKLOAD
};

/// ControllerRevisions.
pub static CONTROLLER_REVISION: BuiltIn = BuiltIn {
    group: "apps",
    kind: "ControllerRevision",
    list_kind: "ControllerRevisionList",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    columns: print::CONTROLLER_REVISION,
    row: print::controller_revision_row,
    message: "apps.ControllerRevision",
    validate: rules::controller_revision,
    validate_update: rules::controller_revision_update,
    ..ROW
};

fn no_replicas(_: &Value) -> Value {
    json!({"replicas": 0})
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
