//! Rules of containers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    checks::{self, Errors},
    field::At,
    pod_security_rules as rules,
};
use crate::{FieldError, names, quantity::Quantity};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const SCHEMES: &[&str] = &["HTTP", "HTTPS"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];
const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOKS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];
const VALUE_SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const INIT_ONLY: &str = "may not be set for init containers without restartPolicy=Always";

/// What only containers have that a pod is made of.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "lifecycle",
    "startupProbe",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];
const NO_EPHEMERAL_FIELD: &str = "cannot be set for an Ephemeral Container";

/// What a container may lean on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'s, 'v> {
    pub(super) volumes: &'s BTreeSet<&'v str>,
    pub(super) host_network: bool,
}

/// Rules of a container that runs beside others.
pub(super) fn container(one: At<'_, '_>, around: Surroundings<'_, '_>, errors: &mut Errors) {
    checks::required_name(one.get("name"), names::dns_label, errors);
    let image = one.get("image");
    if checks::required(image, errors) && image.text().trim() != image.text() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
    checks::choice(one.get("imagePullPolicy"), PULL_POLICIES, errors);
    checks::choice(one.get("terminationMessagePolicy"), MESSAGE_POLICIES, errors);
    ports(one, around.host_network, errors);
    environment(one, errors);
    mounts(one, around.volumes, errors);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probe_rules(one.get(probe), probe != "readinessProbe", errors);
    }
    let lifecycle = one.get("lifecycle");
    for hook in ["postStart", "preStop"] {
        if lifecycle.get(hook).is_set() {
            handler(lifecycle.get(hook), &HOOKS, errors);
        }
    }
    resources(one, errors);
    security(one.get("securityContext"), errors);
}

/// Rules of a container that comes before the others, or stays beside them.
pub(super) fn init_container(one: At<'_, '_>, around: Surroundings<'_, '_>, errors: &mut Errors) {
    container(one, around, errors);
    let policy = one.get("restartPolicy");
    checks::choice(policy, &["Always"], errors);
    if policy.text() != "Always" {
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if one.get(field).is_set() {
                errors.push(one.get(field).forbidden(INIT_ONLY));
            }
        }
    }
}

/// Rules of a container that is added to a running pod, to look into it.
pub(super) fn ephemeral_container(
    one: At<'_, '_>,
    around: Surroundings<'_, '_>,
    errors: &mut Errors,
) {
    container(one, around, errors);
    for field in NOT_EPHEMERAL {
        let place = one.get(field);
        if place.len() > 0 || !place.text().is_empty() {
            errors.push(place.forbidden(NO_EPHEMERAL_FIELD));
        }
    }
    for mount in one.each("volumeMounts") {
        for field in ["subPath", "subPathExpr"] {
            if !mount.get(field).text().is_empty() {
                errors.push(mount.get(field).forbidden(NO_EPHEMERAL_FIELD));
            }
        }
    }
}

fn ports(one: At<'_, '_>, host_network: bool, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in one.each("ports") {
        let (name, number, host) =
            (port.get("name"), port.get("containerPort"), port.get("hostPort"));
        if !name.text().is_empty() {
            checks::named(name, names::port_name, errors);
            checks::unique(name, &mut seen, errors);
        }
        if number.number().unwrap_or(0) == 0 {
            errors.push(number.required(""));
        } else {
            checks::between(number, 1, 65535, errors);
        }
        if host.number().is_some_and(|host| host != 0) {
            checks::between(host, 1, 65535, errors);
            if host_network && host.number() != number.number() {
                errors.push(number.invalid("must match `hostPort` when `hostNetwork` is true"));
            }
        }
        checks::choice(port.get("protocol"), PROTOCOLS, errors);
    }
}

fn environment(one: At<'_, '_>, errors: &mut Errors) {
    for variable in one.each("env") {
        checks::required_name(variable.get("name"), names::variable_name, errors);
        let from = variable.get("valueFrom");
        if !from.is_set() {
            continue;
        }
        let sources = VALUE_SOURCES.iter().filter(|source| from.get(source).is_set()).count();
        if sources == 0 {
            errors.push(from.invalid_empty(
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
                 `secretKeyRef` or `fileKeyRef`",
            ));
        } else if !variable.get("value").text().is_empty() {
            errors.push(from.invalid_empty("may not be specified when `value` is not empty"));
        } else if sources > 1 {
            errors.push(from.invalid_empty("may not have more than one field specified at a time"));
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            let source = from.get(source);
            if source.is_set() && checks::required(source.get("key"), errors) {
                checks::named(source.get("key"), names::config_key, errors);
            }
        }
        let field = from.get("fieldRef");
        if field.is_set() {
            rules::field_of_pod(field.get("fieldPath"), errors);
        }
    }
    for source in one.each("envFrom") {
        let (map, secret) = (source.get("configMapRef"), source.get("secretRef"));
        match (map.is_set(), secret.is_set()) {
            (false, false) => errors
                .push(source.invalid_empty("must specify one of: `configMapRef` or `secretRef`")),
            (true, true) => errors
                .push(source.invalid_empty("may not have more than one field specified at a time")),
            (true, false) => drop(checks::required(map.get("name"), errors)),
            (false, true) => drop(checks::required(secret.get("name"), errors)),
        }
    }
}

fn mounts(one: At<'_, '_>, volumes: &BTreeSet<&str>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for mount in one.each("volumeMounts") {
        let (name, path, part) = (mount.get("name"), mount.get("mountPath"), mount.get("subPath"));
        if checks::required(name, errors) && !volumes.contains(name.text()) {
            errors.push(name.not_found());
        }
        if checks::required(path, errors) && !seen.insert(path.text()) {
            errors.push(path.invalid("must be unique"));
        }
        rules::descending(part, errors);
        if !part.text().is_empty() && !mount.get("subPathExpr").text().is_empty() {
            errors.push(
                mount.get("subPathExpr").invalid("subPathExpr and subPath are mutually exclusive"),
            );
        }
        checks::choice(mount.get("mountPropagation"), PROPAGATIONS, errors);
    }
    rules::propagation(one, errors);
    for device in one.each("volumeDevices") {
        let name = device.get("name");
        if checks::required(name, errors) && !volumes.contains(name.text()) {
            errors.push(name.not_found());
        }
        checks::required(device.get("devicePath"), errors);
    }
}

fn probe_rules(probe: At<'_, '_>, succeeds_once: bool, errors: &mut Errors) {
    if !probe.is_set() {
        return;
    }
    handler(probe, &HANDLERS, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        checks::not_negative(probe.get(field), errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.number().is_some_and(|seconds| seconds <= 0) {
        errors.push(grace.invalid("must be greater than 0"));
    }
    let successes = probe.get("successThreshold");
    if succeeds_once && successes.number().is_some_and(|count| count > 1) {
        errors.push(successes.invalid("must be 1"));
    }
}

/// One handler, and one only.
fn handler(action: At<'_, '_>, known: &[&str], errors: &mut Errors) {
    let mut given = known.iter().filter(|name| action.get(name).is_set());
    if given.next().is_none() {
        errors.push(action.required("must specify a handler type"));
    }
    for more in given {
        errors.push(action.get(more).forbidden("may not specify more than 1 handler type"));
    }
    let (exec, http, tcp) = (action.get("exec"), action.get("httpGet"), action.get("tcpSocket"));
    if exec.is_set() && exec.get("command").len() == 0 {
        errors.push(exec.get("command").required(""));
    }
    if http.is_set() {
        checks::required(http.get("path"), errors);
        checks::port(http.get("port"), errors);
        checks::choice(http.get("scheme"), SCHEMES, errors);
    }
    if tcp.is_set() {
        checks::port(tcp.get("port"), errors);
    }
    let grpc = action.get("grpc");
    checks::between(grpc.get("port"), 1, 65535, errors);
}

/// What a container asks for is no more than what it may have.
pub(super) fn resources(one: At<'_, '_>, errors: &mut Errors) {
    let resources = one.get("resources");
    for list in ["limits", "requests"] {
        checks::amounts(resources, list, errors);
    }
    let limits = resources.get("limits");
    for (resource, request) in resources.entries("requests") {
        let limit = checks::amount_of(limits.get(resource));
        let wanted = checks::amount_of(request).filter(|wanted| *wanted >= Quantity::ZERO);
        if let (Some(limit), Some(wanted)) = (limit, wanted)
            && wanted > limit
        {
            let why = format!("must be less than or equal to {resource} limit of {limit}");
            let path = resources.get("requests").path();
            errors.push(FieldError::invalid(path, request.value, &why));
        }
    }
}

fn security(context: At<'_, '_>, errors: &mut Errors) {
    identities(context, errors);
    rules::seccomp(context, errors);
    let escalates = context.get("allowPrivilegeEscalation");
    if escalates.value == &Value::Bool(false) && context.get("privileged").is_true() {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(context.invalid_value(context.value, why));
    }
}

/// Users and groups are numbers that a kernel knows.
pub(super) fn identities(context: At<'_, '_>, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        checks::between(context.get(field), 0, i64::from(i32::MAX), errors);
    }
}
