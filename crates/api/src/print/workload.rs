//! Rows of Deployments, ReplicaSets, DaemonSets and ControllerRevisions.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, age, column, containers_and_images, integer, label_text, name, wide};
use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
    selector::LabelSelector,
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
    &[NAME, column("Controller", "string"), column("Revision", "integer"), AGE];

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
    let selector = at(object, &["spec", "selector"])
        .and_then(|selector| LabelSelector::from_object(selector).ok())
        .map_or_else(|| NONE.to_owned(), |selector| selector.to_string());
    [containers.into(), images.into(), selector.into()]
}
