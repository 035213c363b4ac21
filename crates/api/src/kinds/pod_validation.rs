//! Rules of pods and pod templates: what a pod must have, and what may change once it exists.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    checks::{self, Errors},
    container_rules::{self, Surroundings},
    field::At,
    pod_security_rules,
};
use crate::{
    error::FieldError,
    meta::{items_at, text_at},
    names,
};

const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const TOLERATION_OPERATORS: &[&str] = &["Equal", "Exists"];
const SPREAD_ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// Most name servers of a pod.
const NAME_SERVERS_MAX: usize = 3;

const SPEC_CHANGED: &str = "pod updates may not change fields other than \
`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` \
(allow it to be set to 1 if it was previously negative)";

/// Rules of a Pod.
pub(super) fn pod(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    pod_spec(root.get("spec"), &mut errors);
    errors
}

/// What a pod cannot be created with.
pub(super) fn new_pod(object: &Value) -> Errors {
    let root = At::root(object);
    let spec = root.get("spec");
    let added = spec.get("ephemeralContainers");
    if added.len() > 0 { vec![added.forbidden("cannot be set on create")] } else { Errors::new() }
}

/// Rules of a pod template.
pub(super) fn template_at(template: At<'_, '_>) -> Errors {
    if !template.is_set() {
        return vec![template.required("")];
    }
    let mut errors = Errors::new();
    let metadata = template.get("metadata");
    checks::labels(metadata.get("labels"), &mut errors);
    let pod = template.get("spec");
    pod_spec(pod, &mut errors);
    let added = pod.get("ephemeralContainers");
    if added.len() > 0 {
        errors.push(added.forbidden("ephemeral containers not allowed in pod template"));
    }
    errors
}

/// What may not change once a pod exists.
pub(super) fn pod_update(new: &Value, old: &Value) -> Errors {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let (new, old) = (new.unwrap_or(&Value::Null), old.unwrap_or(&Value::Null));
    let mut errors = Errors::new();
    let news: BTreeSet<_> = items_at(new, &["tolerations"]).map(all_but_seconds).collect();
    if !items_at(old, &["tolerations"]).all(|old| news.contains(&all_but_seconds(old))) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    if text_at(old, &["schedulingGates"]).is_none() && !same_but_mutable(new, old) {
        errors.push(FieldError::forbidden("spec", SPEC_CHANGED));
    }
    errors
}

/// Whether two specs say the same in all that no update may change.
fn same_but_mutable(new: &Value, old: &Value) -> bool {
    let (Some(news), Some(olds)) = (new.as_object(), old.as_object()) else { return new == old };
    let grace = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    let mends_grace = grace(old).is_some_and(|seconds| seconds < 0) && grace(new) == Some(1);
    let same = |field: &String| match (field.as_str(), news.get(field), olds.get(field)) {
        ("tolerations" | "activeDeadlineSeconds", ..) => true,
        ("terminationGracePeriodSeconds", ..) if mends_grace => true,
        ("containers" | "initContainers", Some(Value::Array(news)), Some(Value::Array(olds))) => {
            news.len() == olds.len()
                && news.iter().zip(olds).all(|(new, old)| same_but_image(new, old))
        }
        (_, new, old) => new == old,
    };
    news.keys().chain(olds.keys()).all(same)
}

fn same_but_image(new: &Value, old: &Value) -> bool {
    let (Some(news), Some(olds)) = (new.as_object(), old.as_object()) else { return new == old };
    let lasting = |(field, _): &(&String, &Value)| field.as_str() != "image";
    news.iter().filter(lasting).eq(olds.iter().filter(lasting))
}

/// What a toleration says, but for how long.
fn all_but_seconds(toleration: &Value) -> [Option<&str>; 4] {
    ["key", "operator", "value", "effect"].map(|field| text_at(toleration, &[field]))
}

fn pod_spec(spec: At<'_, '_>, errors: &mut Errors) {
    let volumes = volumes(spec, errors);
    let around =
        Surroundings { volumes: &volumes, host_network: spec.get("hostNetwork").is_true() };
    if spec.get("containers").len() == 0 {
        errors.push(spec.get("containers").required(""));
    }
    let mut seen = BTreeSet::new();
    for one in spec.each("initContainers") {
        checks::unique(one.get("name"), &mut seen, errors);
        container_rules::init_container(one, around, errors);
    }
    for one in spec.each("containers") {
        checks::unique(one.get("name"), &mut seen, errors);
        container_rules::container(one, around, errors);
    }
    let targets = seen.clone();
    for one in spec.each("ephemeralContainers") {
        container_rules::ephemeral_container(one, around, errors);
        checks::unique(one.get("name"), &mut seen, errors);
        let target = one.get("targetContainerName");
        if !target.text().is_empty() && !targets.contains(target.text()) {
            errors.push(target.not_found());
        }
    }
    checks::choice(spec.get("restartPolicy"), RESTART_POLICIES, errors);
    dns(spec, errors);
    let context = spec.get("securityContext");
    container_rules::identities(context, errors);
    pod_security_rules::seccomp(context, errors);
    pod_security_rules::sysctls(context, errors);
    checks::labels(spec.get("nodeSelector"), errors);
    tolerations(spec, errors);
    affinity(spec.get("affinity"), errors);
    spread(spec, errors);
    checks::between(spec.get("activeDeadlineSeconds"), 1, i64::from(i32::MAX), errors);
    checks::not_negative(spec.get("terminationGracePeriodSeconds"), errors);
    for (field, rule) in [
        ("hostname", names::dns_label as fn(&str) -> Vec<String>),
        ("subdomain", names::dns_label),
        ("serviceAccountName", names::dns_subdomain),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
    ] {
        if !spec.get(field).text().is_empty() {
            checks::named(spec.get(field), rule, errors);
        }
    }
    for gate in spec.each("readinessGates") {
        checks::named(gate.get("conditionType"), names::qualified_name, errors);
    }
    for alias in spec.each("hostAliases") {
        checks::ip_address(alias.get("ip"), errors);
        for host in alias.each("hostnames") {
            checks::named(host, names::dns_subdomain, errors);
        }
    }
}

fn dns(spec: At<'_, '_>, errors: &mut Errors) {
    let (policy, config) = (spec.get("dnsPolicy"), spec.get("dnsConfig"));
    checks::choice(policy, DNS_POLICIES, errors);
    if policy.text() == "None" {
        if !config.is_set() {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(config.required(why));
        } else if config.get("nameservers").len() == 0 {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(config.get("nameservers").required(why));
        }
    }
    if config.get("nameservers").len() > NAME_SERVERS_MAX {
        let why = format!("must not have more than {NAME_SERVERS_MAX} nameservers");
        errors.push(config.get("nameservers").invalid(&why));
    }
    for server in config.each("nameservers") {
        checks::ip_address(server, errors);
    }
}

fn volumes<'v>(spec: At<'_, 'v>, errors: &mut Errors) -> BTreeSet<&'v str> {
    let mut seen = BTreeSet::new();
    for volume in spec.each("volumes") {
        let name = volume.get("name");
        checks::required_name(name, names::dns_label, errors);
        checks::unique(name, &mut seen, errors);
        let sources = volume.value.as_object().into_iter().flatten();
        let sources: Vec<&str> =
            sources.map(|(field, _)| field.as_str()).filter(|field| *field != "name").collect();
        for more in sources.iter().skip(1) {
            errors.push(volume.get(more).forbidden("may not specify more than 1 volume type"));
        }
        for (source, field) in [
            ("secret", "secretName"),
            ("configMap", "name"),
            ("hostPath", "path"),
            ("persistentVolumeClaim", "claimName"),
            ("csi", "driver"),
            ("nfs", "server"),
            ("image", "reference"),
        ] {
            let source = volume.get(source);
            if source.is_set() {
                checks::required(source.get(field), errors);
            }
        }
        pod_security_rules::no_steps_back(volume.get("hostPath").get("path"), errors);
        for source in ["secret", "configMap", "projected", "downwardAPI"] {
            let source = volume.get(source);
            let mode = source.get("defaultMode");
            if mode.number().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
                let why = "must be a number between 0 and 0777 (octal), both inclusive";
                errors.push(mode.invalid(why));
            }
        }
    }
    seen
}

fn tolerations(spec: At<'_, '_>, errors: &mut Errors) {
    for toleration in spec.each("tolerations") {
        let (key, operator, value, effect) = (
            toleration.get("key"),
            toleration.get("operator"),
            toleration.get("value"),
            toleration.get("effect"),
        );
        if !key.text().is_empty() {
            checks::named(key, names::qualified_name, errors);
        } else if operator.text() != "Exists" {
            errors.push(operator.invalid(
                "operator must be Exists when `key` is empty, which means \"match all values and \
                 all keys\"",
            ));
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(effect.invalid(why));
        }
        match operator.text() {
            "" | "Equal" => checks::named(value, names::label_value, errors),
            "Exists" if !value.text().is_empty() => {
                errors.push(value.invalid("value must be empty when `operator` is 'Exists'"));
            }
            "Exists" => {}
            _ => errors.push(operator.unsupported(TOLERATION_OPERATORS)),
        }
        checks::choice(effect, EFFECTS, errors);
    }
}

fn affinity(affinity: At<'_, '_>, errors: &mut Errors) {
    let node = affinity.get("nodeAffinity");
    let required = node.get(REQUIRED);
    if required.is_set() && required.get("nodeSelectorTerms").len() == 0 {
        let why = "must have at least one node selector term";
        errors.push(required.get("nodeSelectorTerms").required(why));
    }
    for term in required.each("nodeSelectorTerms") {
        node_term(term, errors);
    }
    for preferred in node.each(PREFERRED) {
        weight(preferred, errors);
        node_term(preferred.get("preference"), errors);
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(field);
        for term in pods.each(REQUIRED) {
            pod_term(term, errors);
        }
        for preferred in pods.each(PREFERRED) {
            weight(preferred, errors);
            pod_term(preferred.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(preferred: At<'_, '_>, errors: &mut Errors) {
    let weight = preferred.get("weight");
    if weight.number().is_none_or(|weight| !(1..=100).contains(&weight)) {
        let given = Value::from(weight.number().unwrap_or(0));
        errors.push(weight.invalid_value(&given, "must be in the range 1-100"));
    }
}

fn node_term(term: At<'_, '_>, errors: &mut Errors) {
    for expression in term.each("matchExpressions") {
        let (operator, values) = (expression.get("operator"), expression.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.len() == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(values.required(why));
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(values.forbidden(why));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(values.required(why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        checks::named(expression.get("key"), names::qualified_name, errors);
    }
}

fn pod_term(term: At<'_, '_>, errors: &mut Errors) {
    checks::label_selector(term.get("labelSelector"), errors);
    checks::label_selector(term.get("namespaceSelector"), errors);
    let key = term.get("topologyKey");
    if key.text().is_empty() {
        errors.push(key.required("can not be empty"));
    } else {
        checks::named(key, names::qualified_name, errors);
    }
}

fn spread(spec: At<'_, '_>, errors: &mut Errors) {
    for constraint in spec.each("topologySpreadConstraints") {
        let skew = constraint.get("maxSkew");
        if skew.number().is_none_or(|skew| skew <= 0) {
            let given = Value::from(skew.number().unwrap_or(0));
            errors.push(skew.invalid_value(&given, "must be greater than zero"));
        }
        let key = constraint.get("topologyKey");
        if key.text().is_empty() {
            errors.push(key.required("can not be empty"));
        }
        let action = constraint.get("whenUnsatisfiable");
        if !SPREAD_ACTIONS.contains(&action.text()) {
            errors.push(action.unsupported(SPREAD_ACTIONS));
        }
        checks::label_selector(constraint.get("labelSelector"), errors);
    }
}
