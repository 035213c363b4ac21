//! Rules of workloads: Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers.

use serde_json::{Value, json};

use super::{
    checks::{self, Errors},
    field::At,
    pod_validation, volume,
};
use crate::{FieldError, meta::labels_of, names, selector::LabelSelector};

const UPDATE_STRATEGIES: &[&str] = &["Recreate", "RollingUpdate"];
const SET_STRATEGIES: &[&str] = &["OnDelete", "RollingUpdate"];
const POD_MANAGEMENT: &[&str] = &["OrderedReady", "Parallel"];
const CLAIM_RETENTION: &[&str] = &["Delete", "Retain"];
const SET_CHANGED: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
'minReadySeconds' are forbidden";
/// What a StatefulSet's spec may change in.
const SET_MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Rules of a Deployment.
pub(super) fn deployment(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    counts(spec, &mut errors);
    selector_and_template(spec, "deployment", &mut errors);
    let strategy = spec.get("strategy");
    checks::required_choice(strategy.get("type"), UPDATE_STRATEGIES, &mut errors);
    let parameters = strategy.get("rollingUpdate");
    if strategy.get("type").text() == "Recreate" && parameters.is_set() {
        let why = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(parameters.forbidden(why));
    }
    if strategy.get("type").text() == "RollingUpdate" {
        rolling(parameters, "may not be 0 when `maxSurge` is 0", &mut errors);
    }
    let (progress, ready) = (spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds"));
    if let Some(seconds) = progress.number() {
        checks::not_negative(progress, &mut errors);
        if seconds <= ready.number().unwrap_or(0) {
            errors.push(progress.invalid("must be greater than minReadySeconds"));
        }
    }
    errors
}

/// A rollout must be able to go on: some pods may be missing, or some may be too many.
fn rolling(parameters: At<'_, '_>, why: &str, errors: &mut Errors) {
    let (unavailable, surge) = (parameters.get("maxUnavailable"), parameters.get("maxSurge"));
    for amount in [unavailable, surge] {
        checks::number_or_percent(amount, errors);
    }
    let zero = |place: At<'_, '_>| place.number() == Some(0) || place.text() == "0%";
    if zero(unavailable) && zero(surge) {
        errors.push(unavailable.invalid(why));
    }
    checks::at_most_whole(unavailable, errors);
}

/// Rules of a ReplicaSet.
pub(super) fn replica_set(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    counts(spec, &mut errors);
    selector_and_template(spec, "deployment", &mut errors);
    errors
}

/// Rules of a ReplicationController, whose selector is a plain map.
pub(super) fn replication_controller(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    counts(spec, &mut errors);
    let selector = spec.get("selector");
    checks::labels(selector, &mut errors);
    if selector.len() == 0 {
        errors.push(selector.required(""));
    }
    let template = spec.get("template");
    if !template.is_set() {
        errors.push(template.required(""));
        return errors;
    }
    let wanted = selector.value.as_object().into_iter().flatten();
    let wanted = wanted.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
    let label = |key: &str| labels_of(template.value).find(|(k, _)| *k == key).map(|(_, v)| v);
    let metadata = template.get("metadata");
    if !LabelSelector::from_map(wanted).matches(label) {
        let labels = metadata.get("labels");
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
    errors.extend(pod_validation::template_at(template));
    always_restarts(template, &mut errors);
    errors
}

/// Rules of a DaemonSet.
pub(super) fn daemon_set(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    selector_and_template(spec, "daemonset", &mut errors);
    checks::not_negative(spec.get("minReadySeconds"), &mut errors);
    checks::not_negative(spec.get("revisionHistoryLimit"), &mut errors);
    let strategy = spec.get("updateStrategy");
    checks::required_choice(strategy.get("type"), SET_STRATEGIES, &mut errors);
    if strategy.get("type").text() == "RollingUpdate" {
        let parameters = strategy.get("rollingUpdate");
        let (unavailable, surge) = (parameters.get("maxUnavailable"), parameters.get("maxSurge"));
        let some =
            |place: At<'_, '_>| place.is_set() && place.number() != Some(0) && place.text() != "0%";
        for amount in [unavailable, surge] {
            checks::number_or_percent(amount, &mut errors);
            checks::at_most_whole(amount, &mut errors);
        }
        if some(unavailable) && some(surge) {
            errors.push(surge.invalid("may not be set when maxUnavailable is non-zero"));
        }
        if !some(unavailable) && !some(surge) {
            errors.push(parameters.required("cannot be 0 when maxSurge is 0"));
        }
    }
    errors
}

/// Rules of a StatefulSet.
pub(super) fn stateful_set(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let management = spec.get("podManagementPolicy");
    if !management.is_set() || !POD_MANAGEMENT.contains(&management.text()) {
        let why = "must be 'OrderedReady' or 'Parallel'";
        errors.push(management.invalid(why));
    }
    let strategy = spec.get("updateStrategy");
    checks::required_choice(strategy.get("type"), SET_STRATEGIES, &mut errors);
    let parameters = strategy.get("rollingUpdate");
    if strategy.get("type").text() == "OnDelete" && parameters.is_set() {
        let why = "only allowed for updateStrategy 'RollingUpdate'";
        errors.push(parameters.invalid(why));
    }
    checks::not_negative(parameters.get("partition"), &mut errors);
    let unavailable = parameters.get("maxUnavailable");
    checks::number_or_percent(unavailable, &mut errors);
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        checks::choice(retention.get(field), CLAIM_RETENTION, &mut errors);
    }
    let ordinals = spec.get("ordinals");
    checks::not_negative(ordinals.get("start"), &mut errors);
    if !spec.get("serviceName").text().is_empty() {
        checks::named(spec.get("serviceName"), names::dns_subdomain, &mut errors);
    }
    counts(spec, &mut errors);
    selector_and_template(spec, "statefulset", &mut errors);
    for claim in spec.each("volumeClaimTemplates") {
        volume::claim_spec(claim.get("spec"), &mut errors);
    }
    errors
}

/// What may not change of a StatefulSet.
pub(super) fn stateful_set_update(new: &Value, old: &Value) -> Errors {
    let root = At::root(new);
    let spec = root.get("spec");
    let kept = |spec: &Value| {
        let mut fields = spec.as_object().cloned().unwrap_or_default();
        fields.retain(|name, _| !SET_MUTABLE.contains(&name.as_str()));
        fields
    };
    if kept(spec.value) == kept(old.get("spec").unwrap_or(&Value::Null)) {
        return Errors::new();
    }
    vec![spec.forbidden(SET_CHANGED)]
}

fn counts(spec: At<'_, '_>, errors: &mut Errors) {
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        checks::not_negative(spec.get(field), errors);
    }
}

/// The selector is there, is not empty, and selects the pods of the template, which restart always.
fn selector_and_template(spec: At<'_, '_>, what: &str, errors: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    if !selector.is_set() {
        errors.push(selector.required(""));
    } else {
        checks::label_selector(selector, errors);
        match LabelSelector::from_object(selector.value) {
            Ok(selects) if selects.is_everything() => {
                errors.push(selector.invalid(&format!("empty selector is invalid for {what}")));
            }
            Ok(selects) => {
                let label =
                    |key: &str| labels_of(template.value).find(|(k, _)| *k == key).map(|(_, v)| v);
                if !selects.matches(label) {
                    let none = json!({});
                    let labels = template.value.get("metadata").and_then(|all| all.get("labels"));
                    errors.push(FieldError::invalid(
                        format!("{}.metadata.labels", template.path()),
                        labels.unwrap_or(&none),
                        "`selector` does not match template `labels`",
                    ));
                }
            }
            Err(_) => {}
        }
    }
    errors.extend(pod_validation::template_at(template));
    always_restarts(template, errors);
}

fn always_restarts(template: At<'_, '_>, errors: &mut Errors) {
    let pod = template.get("spec");
    let (policy, deadline) = (pod.get("restartPolicy"), pod.get("activeDeadlineSeconds"));
    if matches!(policy.text(), "OnFailure" | "Never") {
        errors.push(policy.unsupported(&["Always"]));
    }
    if deadline.is_set() {
        errors.push(deadline.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
}

/// A selector stays as it is.
pub(super) fn selector_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    let (new, old) = (new.get("spec"), old.get("spec"));
    checks::unchanged(new.get("selector"), old.get("selector").value, &mut errors);
    errors
}

/// Rules of a ControllerRevision.
pub(super) fn controller_revision(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    checks::not_negative(root.get("revision"), &mut errors);
    if !root.get("data").is_set() {
        errors.push(root.get("data").required("data is mandatory"));
    }
    errors
}

/// What may not change of a ControllerRevision.
pub(super) fn controller_revision_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    checks::unchanged(new.get("data"), old.get("data").unwrap_or(&Value::Null), &mut errors);
    errors
}
