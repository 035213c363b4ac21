//! The rows of `batch/v1`: Jobs and CronJobs.

use serde_json::{Map, Value, json};

use super::{ROW, SPEC_AND_STATUS, job, map_in, maps_in, pod_defaults, set_default, status_of};
use crate::{
    meta::{at, text_at},
    print::batch as print,
    resource::BuiltIn,
};

const BATCH: BuiltIn =
    BuiltIn { group: "batch", categories: &["all"], strategy: SPEC_AND_STATUS, ..ROW };

/// CronJobs.
pub static CRON_JOB: BuiltIn = BuiltIn {
    kind: "CronJob",
    list_kind: "CronJobList",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    subresources: &[status_of("batch", "v1", "CronJob")],
    columns: print::CRON_JOB,
    row: print::cron_job_row,
    message: "batch.CronJob",
    default: cron_job_defaults,
    validate: job::cron_job_rules,
    ..BATCH
};

/// Jobs.
pub static JOB: BuiltIn = BuiltIn {
    kind: "Job",
    list_kind: "JobList",
    plural: "jobs",
    singular: "job",
    subresources: &[status_of("batch", "v1", "Job")],
    columns: print::JOB,
    row: print::job_row,
    message: "batch.Job",
    default: job_defaults,
    validate: job::rules,
    validate_update: job::update_rules,
    field_selectors: &["status.successful"],
    ..BATCH
};

/// Labels by which a Job knows its pods: the present ones, and those without a prefix.
pub(super) const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
pub(super) const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

fn cron_job_defaults(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    set_default(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    let template = spec.entry("jobTemplate").or_insert_with(|| json!({}));
    map_in(template, "metadata");
    if let Some(job) = map_in(template, "spec") {
        pod_defaults::template(job);
        policy_defaults(job);
    }
}

fn job_defaults(object: &mut Value) {
    let uid = text_at(object, &["metadata", "uid"]).unwrap_or_default().to_owned();
    let name = text_at(object, &["metadata", "name"]).unwrap_or_default().to_owned();
    let Some(spec) = map_in(object, "spec") else { return };
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    set_default(spec, "parallelism", 1);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    set_default(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let policy =
        if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set_default(spec, "podReplacementPolicy", policy);
    pod_defaults::template(spec);
    policy_defaults(spec);
    generate_selector(object, &uid, &name);
    // A Job that names no labels has those of its pods.
    let labels = at(object, &["spec", "template", "metadata", "labels"]).cloned();
    let some = |labels: &Value| labels.as_object().is_some_and(|all| !all.is_empty());
    if let Some(labels) = labels.filter(|labels| some(labels) && !name.is_empty())
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && !metadata.get("labels").is_some_and(some)
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

/// A Job selects its pods by its own uid, unless the client takes that upon itself.
fn generate_selector(object: &mut Value, uid: &str, name: &str) {
    let Some(spec) = object.get_mut("spec") else { return };
    if spec.get("manualSelector") == Some(&Value::Bool(true)) || uid.is_empty() {
        return;
    }
    if let Some(selector) = map_in(spec, "selector")
        && let Some(labels) =
            selector.entry("matchLabels").or_insert_with(|| json!({})).as_object_mut()
    {
        set_default(labels, UID_LABELS[0], uid);
    }
    let Some(template) = spec.get_mut("template") else { return };
    map_in(template, "metadata");
    let Some(metadata) = template.get_mut("metadata") else { return };
    let Some(labels) = map_in(metadata, "labels") else { return };
    for label in UID_LABELS {
        set_default(labels, label, uid);
    }
    for label in NAME_LABELS.iter().filter(|_| !name.is_empty()) {
        set_default(labels, label, name);
    }
}

fn policy_defaults(spec: &mut Map<String, Value>) {
    let policy = spec.get_mut("podFailurePolicy").and_then(Value::as_object_mut);
    for rule in policy.into_iter().flat_map(|policy| maps_in(policy, "rules")) {
        for condition in maps_in(rule, "onPodConditions") {
            set_default(condition, "status", "True");
        }
    }
}
