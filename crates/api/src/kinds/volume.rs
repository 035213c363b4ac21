//! The rows of PersistentVolumes and PersistentVolumeClaims.

use serde_json::{Value, json};

use super::{
    ROW, SPEC_AND_STATUS,
    checks::{self, Errors},
    field::At,
    limits::canonical,
    map_in, pod_defaults, set_default, status_of,
};
use crate::{
    meta::at,
    names,
    print::storage as print,
    resource::{BuiltIn, Strategy},
};

/// PersistentVolumes.
pub static PERSISTENT_VOLUME: BuiltIn = BuiltIn {
    kind: "PersistentVolume",
    list_kind: "PersistentVolumeList",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    subresources: &[status_of("", "v1", "PersistentVolume")],
    strategy: STRATEGY,
    columns: print::PERSISTENT_VOLUME,
    row: print::persistent_volume_row,
    message: "core.PersistentVolume",
    default: volume_defaults,
    validate: volume_rules,
    validate_update: volume_update,
    ..ROW
};

/// PersistentVolumeClaims.
pub static PERSISTENT_VOLUME_CLAIM: BuiltIn = BuiltIn {
    kind: "PersistentVolumeClaim",
    list_kind: "PersistentVolumeClaimList",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    subresources: &[status_of("", "v1", "PersistentVolumeClaim")],
    strategy: STRATEGY,
    columns: print::PERSISTENT_VOLUME_CLAIM,
    row: print::persistent_volume_claim_row,
    message: "core.PersistentVolumeClaim",
    default: claim_defaults,
    validate: claim_rules,
    validate_update: claim_update,
    ..ROW
};

const STRATEGY: Strategy = Strategy {
    counts_generation: false,
    returns_deleted: true,
    initial_status: |_| json!({"phase": "Pending"}),
    ..SPEC_AND_STATUS
};

const ACCESS_MODES: &[&str] =
    &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
/// Fields of a volume's spec that are no source.
const NO_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];
const CLAIM_KEPT: &str = "spec is immutable after creation except resources.requests and \
volumeAttributesClassName for bound claims";

fn volume_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_default(spec, "volumeMode", "Filesystem");
    canonical(spec.get_mut("capacity"));
    if let Some(path) = spec.get_mut("hostPath").and_then(Value::as_object_mut) {
        set_default(path, "type", "");
    }
}

fn volume_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    access_modes(spec, &mut errors);
    let capacity = spec.get("capacity");
    if capacity.len() == 0 {
        errors.push(capacity.required(""));
    } else if !capacity.get("storage").is_set() || capacity.len() > 1 {
        errors.push(crate::FieldError::not_supported("spec.capacity", "", &["storage"]));
    }
    checks::amounts(spec, "capacity", &mut errors);
    checks::choice(spec.get("persistentVolumeReclaimPolicy"), RECLAIM_POLICIES, &mut errors);
    checks::choice(spec.get("volumeMode"), VOLUME_MODES, &mut errors);
    if !spec.get("storageClassName").text().is_empty() {
        checks::named(spec.get("storageClassName"), names::dns_subdomain, &mut errors);
    }
    let sources: Vec<&str> = spec
        .value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .filter(|name| !NO_SOURCES.contains(name))
        .collect();
    match sources.as_slice() {
        [] => errors.push(spec.required("must specify a volume type")),
        [_] => {}
        [_, others @ ..] => errors.extend(
            others
                .iter()
                .map(|name| spec.get(name).forbidden("may not specify more than 1 volume type")),
        ),
    }
    source_rules(spec, &mut errors);
    if spec.get("local").is_set() && !spec.get("nodeAffinity").is_set() {
        let why = "Local volume requires node affinity";
        let metadata = root.get("metadata");
        errors.push(metadata.get("annotations").required(why));
    }
    errors
}

fn source_rules(spec: At<'_, '_>, errors: &mut Errors) {
    for (source, fields) in [
        ("hostPath", &["path"] as &[&str]),
        ("local", &["path"]),
        ("nfs", &["server", "path"]),
        ("csi", &["driver", "volumeHandle"]),
    ] {
        let source = spec.get(source);
        if source.is_set() {
            for field in fields {
                checks::required(source.get(field), errors);
            }
        }
    }
}

fn access_modes(spec: At<'_, '_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        errors.push(modes.required(""));
    }
    for mode in spec.each("accessModes") {
        if !ACCESS_MODES.contains(&mode.text()) {
            let path = modes.path();
            errors.push(crate::FieldError::not_supported(path, mode.text(), ACCESS_MODES));
        }
    }
    let exclusive = spec.each("accessModes").any(|mode| mode.text() == "ReadWriteOncePod");
    if exclusive && modes.len() > 1 {
        errors.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

fn volume_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(new);
    let spec = root.get("spec");
    let old = old.get("spec").unwrap_or(&Value::Null);
    let sources = |spec: &Value| {
        let mut fields = spec.as_object().cloned().unwrap_or_default();
        fields.retain(|name, _| !NO_SOURCES.contains(&name.as_str()));
        fields
    };
    if sources(spec.value) != sources(old) {
        let path = "spec.persistentvolumesource";
        let why = "spec.persistentvolumesource is immutable after creation";
        errors.push(crate::FieldError::forbidden(path, why));
    }
    let field = |field: &str| old.get(field).unwrap_or(&Value::Null);
    checks::unchanged(spec.get("volumeMode"), field("volumeMode"), &mut errors);
    if !field("nodeAffinity").is_null() {
        checks::unchanged(spec.get("nodeAffinity"), field("nodeAffinity"), &mut errors);
    }
    errors
}

fn claim_defaults(object: &mut Value) {
    if let Some(spec) = map_in(object, "spec") {
        pod_defaults::claim_spec(spec);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        set_default(status, "phase", "Pending");
        canonical(status.get_mut("capacity"));
    }
}

fn claim_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    claim_spec(root.get("spec"), &mut errors);
    errors
}

/// Rules of the spec of a claim, or of a template of one.
pub(super) fn claim_spec(spec: At<'_, '_>, errors: &mut Errors) {
    access_modes(spec, errors);
    checks::label_selector(spec.get("selector"), errors);
    let resources = spec.get("resources");
    let requests = resources.get("requests");
    let storage = requests.get("storage");
    if !storage.is_set() {
        errors.push(crate::FieldError::required(format!("{}[storage]", requests.path()), ""));
    } else {
        let path = format!("{}[storage]", requests.path());
        match checks::amount_of(storage) {
            Some(amount) if amount > crate::Quantity::ZERO => {}
            _ => errors.push(crate::FieldError::invalid(
                path,
                storage.value,
                "must be greater than zero",
            )),
        }
    }
    if !spec.get("storageClassName").text().is_empty() {
        checks::named(spec.get("storageClassName"), names::dns_subdomain, errors);
    }
    checks::choice(spec.get("volumeMode"), VOLUME_MODES, errors);
    let source = spec.get("dataSource");
    if source.is_set() {
        checks::required(source.get("name"), errors);
        checks::required(source.get("kind"), errors);
    }
}

fn claim_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(new);
    let spec = root.get("spec");
    let old_spec = old.get("spec").unwrap_or(&Value::Null);
    let bound = at(old, &["status", "phase"]) == Some(&json!("Bound"));
    let mut allowed = old_spec.clone();
    if let Some(allowed) = allowed.as_object_mut() {
        // The controller that binds writes these two; what is unset may be set once.
        for field in ["volumeName", "storageClassName"] {
            if allowed.get(field).and_then(Value::as_str).is_none_or(str::is_empty)
                && spec.get(field).is_set()
                && (field == "volumeName" || !allowed.contains_key(field))
            {
                allowed.insert(field.to_owned(), spec.get(field).value.clone());
            }
        }
        if bound {
            for field in ["resources", "volumeAttributesClassName"] {
                if spec.get(field).is_set() {
                    allowed.insert(field.to_owned(), spec.get(field).value.clone());
                }
            }
        }
    }
    if &allowed != spec.value {
        errors.push(spec.forbidden(CLAIM_KEPT));
    }
    let requests = ["spec", "resources", "requests", "storage"];
    let amount = |object: &Value| at(object, &requests)?.as_str()?.parse::<crate::Quantity>().ok();
    if let (Some(now), Some(before)) = (amount(new), amount(old))
        && now < before
    {
        let resources = spec.get("resources");
        errors.push(
            resources.get("requests").forbidden("field can not be less than status.capacity"),
        );
    }
    errors
}
