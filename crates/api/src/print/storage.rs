//! Rows of volumes, claims, and the kinds of `storage.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, NONE, age, column, is_true, joined, name, text_or, wide};
use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
};

/// Columns of PersistentVolumes.
pub const PERSISTENT_VOLUME: &[Column] = &[
    NAME,
    column("Capacity", "string"),
    column("Access Modes", "string"),
    column("Reclaim Policy", "string"),
    column("Status", "string"),
    column("Claim", "string"),
    column("StorageClass", "string"),
    column("VolumeAttributesClass", "string"),
    column("Reason", "string"),
    AGE,
    wide("VolumeMode", "string"),
];
/// Columns of PersistentVolumeClaims.
pub const PERSISTENT_VOLUME_CLAIM: &[Column] = &[
    NAME,
    column("Status", "string"),
    column("Volume", "string"),
    column("Capacity", "string"),
    column("Access Modes", "string"),
    column("StorageClass", "string"),
    column("VolumeAttributesClass", "string"),
    AGE,
    wide("VolumeMode", "string"),
];
/// Columns of StorageClasses.
pub const STORAGE_CLASS: &[Column] = &[
    NAME,
    column("Provisioner", "string"),
    column("ReclaimPolicy", "string"),
    column("VolumeBindingMode", "string"),
    column("AllowVolumeExpansion", "string"),
    AGE,
];
/// Columns of VolumeAttributesClasses.
pub const VOLUME_ATTRIBUTES_CLASS: &[Column] = &[NAME, column("DriverName", "string"), AGE];
/// Columns of VolumeAttachments.
pub const VOLUME_ATTACHMENT: &[Column] = &[
    NAME,
    column("Attacher", "string"),
    column("PV", "string"),
    column("Node", "string"),
    column("Attached", "boolean"),
    AGE,
];
/// Columns of CSIDrivers.
pub const CSI_DRIVER: &[Column] = &[
    NAME,
    column("AttachRequired", "boolean"),
    column("PodInfoOnMount", "boolean"),
    column("StorageCapacity", "boolean"),
    column("TokenRequests", "string"),
    column("RequiresRepublish", "boolean"),
    column("Modes", "string"),
    AGE,
];
/// Columns of CSINodes.
pub const CSI_NODE: &[Column] = &[NAME, column("Drivers", "integer"), AGE];
/// Columns of CSIStorageCapacities.
pub const CSI_STORAGE_CAPACITY: &[Column] =
    &[NAME, column("StorageClassName", "string"), column("Capacity", "string")];

const UNSET: &str = "<unset>";
/// Where the class was named before it had a field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Marks the class that claims without one get.
const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

fn modes(object: &Value, path: &[&str]) -> String {
    let has = |mode: &str| items_at(object, path).any(|given| given == mode);
    joined(MODES.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short), "")
}

fn class(object: &Value) -> &str {
    text_at(object, &["metadata", "annotations", BETA_CLASS])
        .unwrap_or_else(|| text_or(object, &["spec", "storageClassName"], ""))
}

fn phase(object: &Value) -> &str {
    if text_at(object, &["metadata", "deletionTimestamp"]).is_some() {
        return "Terminating";
    }
    text_or(object, &["status", "phase"], "")
}

/// A PersistentVolume's row.
#[must_use]
pub fn persistent_volume_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = |field: &str, absent: &'static str| text_or(object, &["spec", field], absent);
    let claim = at(object, &["spec", "claimRef"]).map_or_else(String::new, |claim| {
        format!("{}/{}", text_or(claim, &["namespace"], ""), text_or(claim, &["name"], ""))
    });
    vec![
        name(object),
        text_or(object, &["spec", "capacity", "storage"], "0").into(),
        modes(object, &["spec", "accessModes"]).into(),
        spec("persistentVolumeReclaimPolicy", "").into(),
        phase(object).into(),
        claim.into(),
        class(object).into(),
        spec("volumeAttributesClassName", UNSET).into(),
        text_or(object, &["status", "reason"], "").into(),
        age(object, now),
        spec("volumeMode", UNSET).into(),
    ]
}

/// A PersistentVolumeClaim's row.
#[must_use]
pub fn persistent_volume_claim_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let volume = text_or(object, &["spec", "volumeName"], "");
    let (capacity, access) = if volume.is_empty() {
        ("", String::new())
    } else {
        (
            text_or(object, &["status", "capacity", "storage"], "0"),
            modes(object, &["status", "accessModes"]),
        )
    };
    vec![
        name(object),
        phase(object).into(),
        volume.into(),
        capacity.into(),
        access.into(),
        class(object).into(),
        text_or(object, &["spec", "volumeAttributesClassName"], UNSET).into(),
        age(object, now),
        text_or(object, &["spec", "volumeMode"], UNSET).into(),
    ]
}

/// The name of a class, and whether it is the default one.
fn class_name(object: &Value, marks: &[&str]) -> Value {
    let mut text = text_or(object, &["metadata", "name"], "").to_owned();
    let is_default = marks
        .iter()
        .any(|mark| text_at(object, &["metadata", "annotations", mark]) == Some("true"));
    if is_default {
        text.push_str(" (default)");
    }
    text.into()
}

/// A StorageClass's row.
#[must_use]
pub fn storage_class_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        class_name(object, &DEFAULT_CLASS),
        text_or(object, &["provisioner"], "").into(),
        text_or(object, &["reclaimPolicy"], "Delete").into(),
        text_or(object, &["volumeBindingMode"], "Immediate").into(),
        is_true(object, &["allowVolumeExpansion"]).into(),
        age(object, now),
    ]
}

/// A VolumeAttributesClass's row.
#[must_use]
pub fn volume_attributes_class_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mark = "volumeattributesclass.alpha.kubernetes.io/is-default-class";
    vec![class_name(object, &[mark]), text_or(object, &["driverName"], "").into(), age(object, now)]
}

/// A VolumeAttachment's row.
#[must_use]
pub fn volume_attachment_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = |path: &[&str]| -> Value { text_or(object, path, "").into() };
    vec![
        name(object),
        spec(&["spec", "attacher"]),
        spec(&["spec", "source", "persistentVolumeName"]),
        spec(&["spec", "nodeName"]),
        is_true(object, &["status", "attached"]).into(),
        age(object, now),
    ]
}

/// A CSIDriver's row.
#[must_use]
pub fn csi_driver_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let attach = at(object, &["spec", "attachRequired"]) != Some(&Value::Bool(false));
    let tokens = match at(object, &["spec", "tokenRequests"]) {
        None => UNSET.to_owned(),
        Some(_) => joined(
            items_at(object, &["spec", "tokenRequests"])
                .map(|request| text_or(request, &["audience"], "")),
            "",
        ),
    };
    let modes = items_at(object, &["spec", "volumeLifecycleModes"]).filter_map(Value::as_str);
    vec![
        name(object),
        attach.into(),
        is_true(object, &["spec", "podInfoOnMount"]).into(),
        is_true(object, &["spec", "storageCapacity"]).into(),
        tokens.into(),
        is_true(object, &["spec", "requiresRepublish"]).into(),
        joined(modes, NONE).into(),
        age(object, now),
    ]
}

/// A CSINode's row.
#[must_use]
pub fn csi_node_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items_at(object, &["spec", "drivers"]).count().into(), age(object, now)]
}

/// A CSIStorageCapacity's row.
#[must_use]
pub fn csi_storage_capacity_row(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text_or(object, &["storageClassName"], "").into(),
        text_or(object, &["capacity"], UNSET).into(),
    ]
}
