//! Rules of what a pod takes from its node, and of what its processes may do: paths, profiles, settings.

use std::collections::BTreeSet;

use super::{
    checks::{self, Errors},
    field::At,
};

const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
/// Fields that a variable can take from its pod.
const VARIABLES: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that are known, and are nothing for a variable.
const OTHERS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "spec.host",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];
/// Maps of which a variable can take one value.
const MAPS: &[&str] = &["metadata.annotations", "metadata.labels"];
const SYSCTL_NAME_MAX: usize = 253;
const SYSCTL_NAME: &str = "must have at most 253 characters and match regex \
^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Rules of the field that a variable takes its value from.
pub(super) fn field_of_pod(path: At<'_, '_>, errors: &mut Errors) {
    if !checks::required(path, errors) {
        return;
    }
    let text = path.text();
    let is_entry = text.split_once("['").is_some_and(|(map, rest)| {
        MAPS.contains(&map) && rest.strip_suffix("']").is_some_and(|key| !key.is_empty())
    });
    if is_entry || VARIABLES.contains(&text) {
        return;
    }
    if OTHERS.contains(&text) {
        errors.push(path.unsupported(VARIABLES));
    } else {
        let why = format!("error converting fieldPath: field label not supported: {text}");
        errors.push(path.invalid(&why));
    }
}

/// A path must not lead upwards.
pub(super) fn no_steps_back(path: At<'_, '_>, errors: &mut Errors) {
    if path.text().split('/').any(|step| step == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

/// A path below some folder.
pub(super) fn descending(path: At<'_, '_>, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    no_steps_back(path, errors);
}

/// What a container mounts is seen by its host only where it may do anything.
pub(super) fn propagation(one: At<'_, '_>, errors: &mut Errors) {
    let context = one.get("securityContext");
    if context.get("privileged").is_true() {
        return;
    }
    for mount in one.each("volumeMounts") {
        let wanted = mount.get("mountPropagation");
        if wanted.text() == "Bidirectional" {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(wanted.forbidden(why));
        }
    }
}

/// Rules of a seccomp profile.
pub(super) fn seccomp(context: At<'_, '_>, errors: &mut Errors) {
    let profile = context.get("seccompProfile");
    if !profile.is_set() {
        return;
    }
    let (kind, file) = (profile.get("type"), profile.get("localhostProfile"));
    if checks::required(kind, errors) {
        checks::choice(kind, PROFILES, errors);
    }
    if kind.text() == "Localhost" {
        if file.text().is_empty() {
            errors.push(file.required("must be set when seccomp type is Localhost"));
        } else {
            descending(file, errors);
        }
    } else if file.is_set() {
        errors.push(file.invalid("can only be set when seccomp type is Localhost"));
    }
}

/// Rules of a pod's kernel settings.
pub(super) fn sysctls(context: At<'_, '_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for setting in context.each("sysctls") {
        let name = setting.get("name");
        if !checks::required(name, errors) {
            continue;
        }
        if !is_sysctl(name.text()) {
            errors.push(name.invalid(SYSCTL_NAME));
        } else if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    let is_part = |part: &str| {
        part.starts_with(plain)
            && part.ends_with(plain)
            && part.chars().all(|it| plain(it) || matches!(it, '-' | '_'))
    };
    name.len() <= SYSCTL_NAME_MAX && name.split(['.', '/']).all(is_part)
}
