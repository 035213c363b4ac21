//! Rows of workloads and their templates.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, NAME, NONE, age, column, containers_and_images, integer, label_text, name, selector_text,
    wide,
};
use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
};

/// Columns of Deployments.
pub const DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready", "string"),
    column("Up-to-date", "string"),
    column("Available", "string"),
    AGE,
    wide("Containers", "string"),
    wide("Images", "string"),
    wide("Selector", "string"),
];
/// Columns of ReplicaSets.
pub const REPLICA_SET: &[Column] = &[
    NAME,
    column("Desired", "integer"),
    column("Current", "integer"),
    column("Ready", "integer"),
    AGE,
    wide("Containers", "string"),
    wide("Images", "string"),
    wide("Selector", "string"),
];
/// Columns of DaemonSets.
pub const DAEMON_SET: &[Column] = &[
    NAME,
    column("Desired", "integer"),
    column("Current", "integer"),
    column("Ready", "integer"),
    column("Up-to-date", "integer"),
    column("Available", "integer"),
    column("Node Selector", "string"),
    AGE,
    wide("Containers", "string"),
    wide("Images", "string"),
    wide("Selector", "string"),
];
/// Columns of ControllerRevisions.
pub const CONTROLLER_REVISION: &[Column] =
    &[NAME, column("Controller", "string"), column("Revision", "string"), AGE];
/// Columns of StatefulSets.
pub const STATEFUL_SET: &[Column] =
    &[NAME, column("Ready", "string"), AGE, wide("Containers", "string"), wide("Images", "string")];
/// Columns of PodTemplates.
pub const POD_TEMPLATE: &[Column] = &[
    NAME,
    column("Containers", "string"),
    column("Images", "string"),
    column("Pod Labels", "string"),
];

/// A Deployment's row.
#[must_use]
pub fn deployment_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = integer(object, &["status", "readyReplicas"]);
    let desired = integer(object, &["spec", "replicas"]);
    let mut cells = vec![
        name(object),
        format!("{ready}/{desired}").into(),
        integer(object, &["status", "updatedReplicas"]).into(),
        integer(object, &["status", "availableReplicas"]).into(),
        age(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

/// A ReplicaSet's row.
#[must_use]
pub fn replica_set_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        integer(object, &["spec", "replicas"]).into(),
        integer(object, &["status", "replicas"]).into(),
        integer(object, &["status", "readyReplicas"]).into(),
        age(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

/// A ReplicationController's row.
#[must_use]
pub fn replication_controller_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = replica_set_row(object, now);
    cells.pop();
    cells.push(label_text(at(object, &["spec", "selector"])).into());
    cells
}

/// A StatefulSet's row.
#[must_use]
pub fn stateful_set_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = integer(object, &["status", "readyReplicas"]);
    let desired = integer(object, &["spec", "replicas"]);
    let [containers, images, _] = template_cells(object);
    vec![name(object), format!("{ready}/{desired}").into(), age(object, now), containers, images]
}

/// A PodTemplate's row.
#[must_use]
pub fn pod_template_row(object: &Value, _: Timestamp) -> Vec<Value> {
    let pod = at(object, &["template", "spec"]).unwrap_or(&Value::Null);
    let (containers, images) = containers_and_images(pod);
    let labels = label_text(at(object, &["template", "metadata", "labels"]));
    vec![name(object), containers.into(), images.into(), labels.into()]
}

/// A DaemonSet's row.
#[must_use]
pub fn daemon_set_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field: &str| Value::from(integer(object, &["status", field]));
    let mut cells = vec![
        name(object),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        label_text(at(object, &["spec", "template", "spec", "nodeSelector"])).into(),
        age(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

/// A ControllerRevision's row.
#[must_use]
pub fn controller_revision_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let controller = items_at(object, &["metadata", "ownerReferences"])
        .find(|owner| at(owner, &["controller"]) == Some(&Value::Bool(true)))
        .map_or_else(|| NONE.to_owned(), owner_text);
    vec![name(object), controller.into(), integer(object, &["revision"]).into(), age(object, now)]
}

/// `daemonset.apps/name`.
fn owner_text(owner: &Value) -> String {
    let text = |field: &str| text_at(owner, &[field]).unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", text("kind").to_lowercase(), text("name"))
}

fn template_cells(object: &Value) -> [Value; 3] {
    let pod_spec = at(object, &["spec", "template", "spec"]).unwrap_or(&Value::Null);
    let (containers, images) = containers_and_images(pod_spec);
    let selector = selector_text(at(object, &["spec", "selector"]));
    [containers.into(), images.into(), selector.into()]
}
