//! The rows of `storage.k8s.io`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    ROW, SPEC_AND_STATUS,
    checks::{self, Errors},
    field::At,
    map_in, set_default, status_of,
};
use crate::{
    names,
    print::storage as print,
    resource::{BuiltIn, Strategy},
};

const STORAGE: BuiltIn = BuiltIn { group: "storage.k8s.io", namespaced: false, ..ROW };

/// StorageClasses.
pub static STORAGE_CLASS: BuiltIn = BuiltIn {
    kind: "StorageClass",
    list_kind: "StorageClassList",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    strategy: Strategy { returns_deleted: true, ..super::DATA },
    columns: print::STORAGE_CLASS,
    row: print::storage_class_row,
    message: "storage.StorageClass",
    default: |object| {
        if let Some(fields) = object.as_object_mut() {
            set_default(fields, "reclaimPolicy", "Delete");
            set_default(fields, "volumeBindingMode", "Immediate");
        }
    },
    validate: storage_class_rules,
    validate_update: storage_class_update,
    ..STORAGE
};

/// VolumeAttributesClasses.
pub static VOLUME_ATTRIBUTES_CLASS: BuiltIn = BuiltIn {
    kind: "VolumeAttributesClass",
    list_kind: "VolumeAttributesClassList",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    strategy: Strategy { returns_deleted: true, ..super::DATA },
    columns: print::VOLUME_ATTRIBUTES_CLASS,
    row: print::volume_attributes_class_row,
    message: "storage.VolumeAttributesClass",
    validate: volume_attributes_class_rules,
    validate_update: volume_attributes_class_update,
    ..STORAGE
};

/// VolumeAttachments.
pub static VOLUME_ATTACHMENT: BuiltIn = BuiltIn {
    kind: "VolumeAttachment",
    list_kind: "VolumeAttachmentList",
    plural: "volumeattachments",
    singular: "volumeattachment",
    subresources: &[status_of("storage.k8s.io", "v1", "VolumeAttachment")],
    strategy: Strategy {
        counts_generation: false,
        returns_deleted: true,
        initial_status: |_| json!({"attached": false}),
        ..SPEC_AND_STATUS
    },
    columns: print::VOLUME_ATTACHMENT,
    row: print::volume_attachment_row,
    message: "storage.VolumeAttachment",
    validate: volume_attachment_rules,
    validate_update: volume_attachment_update,
    ..STORAGE
};

/// CSIDrivers.
pub static CSI_DRIVER: BuiltIn = BuiltIn {
    kind: "CSIDriver",
    list_kind: "CSIDriverList",
    plural: "csidrivers",
    singular: "csidriver",
    strategy: Strategy { counts_generation: true, returns_deleted: true, ..super::DATA },
    columns: print::CSI_DRIVER,
    row: print::csi_driver_row,
    message: "storage.CSIDriver",
    default: csi_driver_defaults,
    validate: csi_driver_rules,
    validate_update: csi_driver_update,
    ..STORAGE
};

/// CSINodes.
pub static CSI_NODE: BuiltIn = BuiltIn {
    kind: "CSINode",
    list_kind: "CSINodeList",
    plural: "csinodes",
    singular: "csinode",
    strategy: Strategy { returns_deleted: true, ..super::DATA },
    columns: print::CSI_NODE,
    row: print::csi_node_row,
    message: "storage.CSINode",
    validate: csi_node_rules,
    ..STORAGE
};

/// CSIStorageCapacities.
pub static CSI_STORAGE_CAPACITY: BuiltIn = BuiltIn {
    kind: "CSIStorageCapacity",
    list_kind: "CSIStorageCapacityList",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    namespaced: true,
    columns: print::CSI_STORAGE_CAPACITY,
    row: print::csi_storage_capacity_row,
    message: "storage.CSIStorageCapacity",
    validate: csi_storage_capacity_rules,
    validate_update: csi_storage_capacity_update,
    ..STORAGE
};

const RECLAIM_POLICIES: &[&str] = &["Delete", "Retain"];
const BINDING_MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];
const LIFECYCLE_MODES: &[&str] = &["Ephemeral", "Persistent"];
const FS_GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
/// Most parameters of a class.
const PARAMETERS_MAX: usize = 512;
/// Most bytes of all parameters of a class together.
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;
/// Longest name of a driver.
const DRIVER_MAX_BYTES: usize = 63;

fn old_field<'v>(old: &'v Value, field: &str) -> &'v Value {
    old.get(field).unwrap_or(&Value::Null)
}

fn driver_name(place: At<'_, '_>, errors: &mut Errors) {
    if !checks::required(place, errors) {
        return;
    }
    if place.text().len() > DRIVER_MAX_BYTES {
        errors.push(place.too_long(DRIVER_MAX_BYTES));
    }
    let lower = place.text().to_lowercase();
    errors.extend(names::dns_subdomain(&lower).iter().map(|why| place.invalid(why)));
}

fn storage_class_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let provisioner = root.get("provisioner");
    if checks::required(provisioner, &mut errors) {
        let lower = provisioner.text().to_lowercase();
        errors.extend(names::qualified_name(&lower).iter().map(|why| provisioner.invalid(why)));
    }
    parameters(root.at(), true, &mut errors);
    checks::required_choice(root.get("reclaimPolicy"), RECLAIM_POLICIES, &mut errors);
    checks::required_choice(root.get("volumeBindingMode"), BINDING_MODES, &mut errors);
    for term in root.each("allowedTopologies") {
        for expression in term.each("matchLabelExpressions") {
            checks::named(expression.get("key"), names::qualified_name, &mut errors);
            if expression.get("values").len() == 0 {
                errors.push(expression.get("values").required(""));
            }
        }
    }
    errors
}

fn parameters(root: At<'_, '_>, may_be_empty: bool, errors: &mut Errors) {
    let all = root.get("parameters");
    if all.len() > PARAMETERS_MAX {
        errors.push(crate::FieldError {
            reason: crate::error::FieldReason::TooLong,
            field: "parameters".to_owned(),
            message: format!("Too long: may not be more than {PARAMETERS_MAX} items"),
        });
        return;
    }
    let mut bytes = 0;
    for (key, value) in root.entries("parameters") {
        bytes += key.len() + value.text().len();
        if key.is_empty() {
            errors.push(all.invalid("field can not be empty."));
        }
    }
    if bytes > PARAMETERS_MAX_BYTES {
        errors.push(all.too_long(PARAMETERS_MAX_BYTES));
    }
    if !may_be_empty && all.len() == 0 {
        errors.push(all.required("must contain at least one key/value pair"));
    }
}

fn storage_class_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    let none = json!({});
    let given = |value: &Value| if value.is_null() { none.clone() } else { value.clone() };
    if given(new.get("parameters").value) != given(old_field(old, "parameters")) {
        errors.push(new.get("parameters").forbidden("updates to parameters are forbidden."));
    }
    if new.get("provisioner").value != old_field(old, "provisioner") {
        errors.push(new.get("provisioner").forbidden("updates to provisioner are forbidden."));
    }
    if new.get("reclaimPolicy").value != old_field(old, "reclaimPolicy") {
        errors.push(new.get("reclaimPolicy").forbidden("updates to reclaimPolicy are forbidden."));
    }
    let old = old_field(old, "volumeBindingMode");
    checks::unchanged(new.get("volumeBindingMode"), old, &mut errors);
    errors
}

fn volume_attributes_class_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    driver_name(root.get("driverName"), &mut errors);
    parameters(root.at(), false, &mut errors);
    errors
}

fn volume_attributes_class_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    for field in ["driverName", "parameters"] {
        if new.get(field).value != old_field(old, field) {
            errors.push(new.get(field).forbidden(&format!("updates to {field} are forbidden.")));
        }
    }
    errors
}

fn volume_attachment_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    driver_name(spec.get("attacher"), &mut errors);
    let source = spec.get("source");
    let (inline, named) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    if !inline.is_set() && !named.is_set() {
        errors.push(
            source
                .required("must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        );
    } else if inline.is_set() && named.is_set() {
        errors
            .push(source.forbidden(
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ));
    } else if named.is_set() {
        checks::required_name(named, names::dns_subdomain, &mut errors);
    }
    checks::required_name(spec.get("nodeName"), names::dns_subdomain, &mut errors);
    errors
}

fn volume_attachment_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    checks::unchanged(new.get("spec"), old_field(old, "spec"), &mut errors);
    errors
}

fn csi_driver_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "attachRequired", true);
    set_default(spec, "podInfoOnMount", false);
    set_default(spec, "storageCapacity", false);
    set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    set_default(spec, "requiresRepublish", false);
    set_default(spec, "seLinuxMount", false);
    let no_modes =
        spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if no_modes {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}

fn csi_driver_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let metadata = root.get("metadata");
    driver_name(metadata.get("name"), &mut errors);
    let spec = root.get("spec");
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !spec.get(field).is_set() {
            errors.push(spec.get(field).required(""));
        }
    }
    checks::choice(spec.get("fsGroupPolicy"), FS_GROUP_POLICIES, &mut errors);
    let mut audiences = BTreeSet::new();
    for request in spec.each("tokenRequests") {
        if !audiences.insert(request.get("audience").text()) {
            errors.push(request.get("audience").duplicate());
        }
        let seconds = request.get("expirationSeconds");
        if seconds.number().is_some_and(|seconds| seconds < 600) {
            errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
        }
        if seconds.number().is_some_and(|seconds| seconds > 1 << 32) {
            errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
        }
    }
    for mode in spec.each("volumeLifecycleModes") {
        if !LIFECYCLE_MODES.contains(&mode.text()) {
            errors.push(spec.get("volumeLifecycleModes").unsupported(LIFECYCLE_MODES));
        }
    }
    errors
}

fn csi_driver_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    let new = new.get("spec");
    let old = old_field(old, "spec");
    for field in ["attachRequired", "fsGroupPolicy", "volumeLifecycleModes"] {
        checks::unchanged(new.get(field), old_field(old, field), &mut errors);
    }
    errors
}

fn csi_node_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let mut seen = BTreeSet::new();
    for driver in spec.each("drivers") {
        driver_name(driver.get("name"), &mut errors);
        checks::unique(driver.get("name"), &mut seen, &mut errors);
        checks::required(driver.get("nodeID"), &mut errors);
        let allocatable = driver.get("allocatable");
        checks::not_negative(allocatable.get("count"), &mut errors);
        for key in driver.each("topologyKeys") {
            checks::required_name(key, names::qualified_name, &mut errors);
        }
    }
    errors
}

fn csi_storage_capacity_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    checks::label_selector(root.get("nodeTopology"), &mut errors);
    checks::required_name(root.get("storageClassName"), names::dns_subdomain, &mut errors);
    for field in ["capacity", "maximumVolumeSize"] {
        if root.get(field).is_set() {
            checks::quantity(root.get(field), &mut errors);
        }
    }
    errors
}

fn csi_storage_capacity_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    for field in ["nodeTopology", "storageClassName"] {
        checks::unchanged(new.get(field), old_field(old, field), &mut errors);
    }
    errors
}
