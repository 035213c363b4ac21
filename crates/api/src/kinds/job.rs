//! Rules of Jobs and CronJobs.

use serde_json::Value;

use super::{
    batch::{NAME_LABELS, UID_LABELS},
    checks::{self, Errors},
    field::At,
    pod_validation,
};
use crate::{
    cron::Schedule,
    meta::{at, labels_of},
    selector::LabelSelector,
};

const COMPLETION_MODES: &[&str] = &["Indexed", "NonIndexed"];
const REPLACEMENT_POLICIES: &[&str] = &["Failed", "TerminatingOrFailed"];
const CONCURRENCY_POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];
const FAILURE_ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const EXIT_CODE_OPERATORS: &[&str] = &["In", "NotIn"];
const JOB_RESTART_POLICIES: &[&str] = &["OnFailure", "Never"];
/// Most pods that an indexed Job runs at once.
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
/// Longest name of a CronJob: its Jobs' names are 11 bytes longer, and still fit a label.
const CRON_JOB_NAME_MAX_BYTES: usize = 52;
/// Most rules of a pod failure policy.
const FAILURE_RULES_MAX: usize = 20;
/// Most exit codes of a rule.
const EXIT_CODES_MAX: usize = 255;

/// Rules of a Job.
pub(super) fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    job_spec(spec, &mut errors);
    selector(root.at(), spec, &mut errors);
    errors
}

fn selector(root: At<'_, '_>, spec: At<'_, '_>, errors: &mut Errors) {
    let selector = spec.get("selector");
    if !selector.is_set() {
        errors.push(selector.required(""));
        return;
    }
    checks::label_selector(selector, errors);
    let template = spec.get("template");
    let metadata = template.get("metadata");
    if !spec.get("manualSelector").is_true() {
        let own = root.get("metadata");
        for (labels, value) in [(UID_LABELS, own.get("uid")), (NAME_LABELS, own.get("name"))] {
            let label = metadata.value.get("labels").and_then(|all| all.get(labels[0]));
            let label = label.and_then(Value::as_str).unwrap_or_default();
            if !value.text().is_empty() && label != value.text() {
                let path = format!("{}.labels", metadata.path());
                let why = format!("must be '{}'", value.text());
                let given = metadata.get("labels");
                errors.push(crate::FieldError::invalid(path, given.value, &why));
            }
        }
    }
    if let Ok(selector) = LabelSelector::from_object(selector.value) {
        let label = |key: &str| labels_of(template.value).find(|(k, _)| *k == key).map(|(_, v)| v);
        if !selector.matches(label) {
            let labels = metadata.get("labels");
            errors.push(labels.invalid("`selector` does not match template `labels`"));
        }
    }
}

/// Rules of the spec of a Job, or of a CronJob's template of one.
fn job_spec(spec: At<'_, '_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        checks::not_negative(spec.get(field), errors);
    }
    let mode = spec.get("completionMode");
    checks::choice(mode, COMPLETION_MODES, errors);
    let indexed = mode.text() == "Indexed";
    if indexed {
        indexed_rules(spec, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.get(field).is_set() {
                errors.push(spec.get(field).invalid("requires indexed completion mode"));
            }
        }
    }
    let replacement = spec.get("podReplacementPolicy");
    checks::choice(replacement, REPLACEMENT_POLICIES, errors);
    failure_policy(spec, indexed, errors);
    errors.extend(pod_validation::template_at(spec.get("template")));
    restart_policy(spec, errors);
}

fn indexed_rules(spec: At<'_, '_>, errors: &mut Errors) {
    if !spec.get("completions").is_set() {
        let why = "when completion mode is Indexed";
        errors.push(spec.get("completions").required(why));
    }
    let parallelism = spec.get("parallelism");
    if parallelism.number() > Some(INDEXED_PARALLELISM_MAX) {
        errors.push(parallelism.invalid(&format!(
            "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
        )));
    }
    let failed = spec.get("maxFailedIndexes");
    if let (Some(failed_count), Some(completions)) =
        (failed.number(), spec.get("completions").number())
        && failed_count > completions
    {
        errors.push(failed.invalid("must be less than or equal to completions"));
    }
    if failed.is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        let why = "when maxFailedIndexes is specified";
        errors.push(spec.get("backoffLimitPerIndex").required(why));
    }
}

fn failure_policy(spec: At<'_, '_>, indexed: bool, errors: &mut Errors) {
    let policy = spec.get("podFailurePolicy");
    if policy.get("rules").len() > FAILURE_RULES_MAX {
        errors.push(policy.get("rules").too_many(FAILURE_RULES_MAX));
    }
    for rule in policy.each("rules") {
        let action = rule.get("action");
        checks::required_choice(action, FAILURE_ACTIONS, errors);
        if action.text() == "FailIndex" && !(indexed && spec.get("backoffLimitPerIndex").is_set()) {
            errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_set() && conditions.len() > 0 {
            errors.push(
                rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"),
            );
        }
        if !codes.is_set() && conditions.len() == 0 {
            errors.push(
                rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"),
            );
        }
        if codes.is_set() {
            exit_codes(codes, errors);
        }
        for condition in rule.each("onPodConditions") {
            checks::required(condition.get("type"), errors);
            checks::choice(condition.get("status"), &["False", "True", "Unknown"], errors);
        }
    }
}

fn exit_codes(codes: At<'_, '_>, errors: &mut Errors) {
    checks::required_choice(codes.get("operator"), EXIT_CODE_OPERATORS, errors);
    let values = codes.get("values");
    if values.len() == 0 {
        errors.push(values.invalid("at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(values.too_many(EXIT_CODES_MAX));
    }
    let mut before = None;
    for value in codes.each("values") {
        let number = value.number();
        if codes.get("operator").text() == "In" && number == Some(0) {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if before.is_some() && number == before {
            errors.push(value.duplicate());
        } else if before.is_some() && number < before {
            errors.push(values.invalid("must be ordered"));
        }
        before = number;
    }
}

fn restart_policy(spec: At<'_, '_>, errors: &mut Errors) {
    let template = spec.get("template");
    let pod = template.get("spec");
    let policy = pod.get("restartPolicy");
    match policy.text() {
        "" | "Always" => {
            errors.push(policy.required("valid values: \"OnFailure\", \"Never\""));
        }
        "OnFailure" | "Never" => {}
        _ => errors.push(policy.unsupported(JOB_RESTART_POLICIES)),
    }
    if spec.get("podFailurePolicy").is_set() && policy.text() != "Never" {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(policy.invalid(why));
    }
}

/// What may not change of a Job.
pub(super) fn update_rules(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new_root, old_root) = (At::root(new), At::root(old));
    let (new, old) = (new_root.get("spec"), old_root.get("spec"));
    completions(new, old, &mut errors);
    for field in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        checks::unchanged(new.get(field), old.get(field).value, &mut errors);
    }
    // What decides where pods run may change while there was none yet.
    let status = old_root.get("status");
    let not_begun = old.get("suspend").is_true() && !status.get("startTime").is_set();
    let (new_template, mut old_template) = (new.get("template"), old.get("template").value.clone());
    if not_begun {
        for path in [
            ["metadata", "labels"],
            ["metadata", "annotations"],
            ["spec", "nodeSelector"],
            ["spec", "tolerations"],
            ["spec", "schedulingGates"],
            ["spec", "affinity"],
        ] {
            copy(&mut old_template, new_template.value, path);
        }
    }
    checks::unchanged(new_template, &old_template, &mut errors);
    errors
}

fn copy(to: &mut Value, from: &Value, [outer, inner]: [&str; 2]) {
    let Some(fields) = to.get_mut(outer).and_then(Value::as_object_mut) else { return };
    match at(from, &[outer, inner]) {
        Some(value) => fields.insert(inner.to_owned(), value.clone()),
        None => fields.remove(inner),
    };
}

/// An indexed Job may grow and shrink, as long as all its pods run at once.
fn completions(new: At<'_, '_>, old: At<'_, '_>, errors: &mut Errors) {
    let (now, before) = (new.get("completions"), old.get("completions"));
    if now.value == before.value {
        return;
    }
    if new.get("completionMode").text() != "Indexed" || !now.is_set() || !before.is_set() {
        errors.push(now.invalid(checks::IMMUTABLE));
    } else if new.get("parallelism").number() != now.number() {
        errors.push(now.invalid("can only be modified in tandem with parallelism"));
    }
}

/// Rules of a CronJob.
pub(super) fn cron_job_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let metadata = root.get("metadata");
    if metadata.get("name").text().len() > CRON_JOB_NAME_MAX_BYTES {
        let why = format!("must be no more than {CRON_JOB_NAME_MAX_BYTES} characters");
        errors.push(metadata.get("name").invalid(&why));
    }
    let spec = root.get("spec");
    let schedule = spec.get("schedule");
    if checks::required(schedule, &mut errors) {
        if schedule.text().contains("TZ") {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(schedule.invalid(why));
        } else if let Err(why) = Schedule::parse(schedule.text()) {
            errors.push(schedule.invalid(&why));
        }
    }
    time_zone(spec.get("timeZone"), &mut errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"]
    {
        checks::not_negative(spec.get(field), &mut errors);
    }
    checks::required_choice(spec.get("concurrencyPolicy"), CONCURRENCY_POLICIES, &mut errors);
    let template = spec.get("jobTemplate");
    let job = template.get("spec");
    job_spec(job, &mut errors);
    if job.get("manualSelector").is_true() {
        let path = job.get("manualSelector").path();
        errors.push(crate::FieldError::not_supported(path, "true", &["nil", "false"]));
    }
    errors
}

fn time_zone(zone: At<'_, '_>, errors: &mut Errors) {
    if !zone.is_set() {
        return;
    }
    if zone.text().is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if zone.text().eq_ignore_ascii_case("local") {
        errors.push(zone.invalid(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    } else if !is_zone_name(zone.text()) {
        errors.push(zone.invalid(&format!("unknown time zone {}", zone.text())));
    }
}

/// Whether the text could be a name of the time zone database. Which zones there are is known where
/// schedules are followed.
fn is_zone_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_/".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(allowed)
        && text.split('/').all(|part| !part.is_empty())
}
