//! Rows of Jobs and CronJobs.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, NAME, NONE, age, column, containers_and_images, human_duration, integer, name,
    selector_text, since, text_or, wide,
};
use crate::{
    meta::{at, items_at, text_at},
    resource::Column,
};

/// Columns of Jobs.
pub const JOB: &[Column] = &[
    NAME,
    column("Status", "string"),
    column("Completions", "string"),
    column("Duration", "string"),
    AGE,
    wide("Containers", "string"),
    wide("Images", "string"),
    wide("Selector", "string"),
];
/// Columns of CronJobs.
pub const CRON_JOB: &[Column] = &[
    NAME,
    column("Schedule", "string"),
    column("Timezone", "string"),
    column("Suspend", "boolean"),
    column("Active", "integer"),
    column("Last Schedule", "string"),
    AGE,
    wide("Containers", "string"),
    wide("Images", "string"),
    wide("Selector", "string"),
];

/// A Job's row.
#[must_use]
pub fn job_row(job: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(job),
        status(job).into(),
        completions(job).into(),
        duration(job, now).into(),
        age(job, now),
    ];
    cells.extend(template_cells(at(job, &["spec"]).unwrap_or(&Value::Null)));
    cells
}

fn status(job: &Value) -> &'static str {
    let has = |kind: &str| {
        items_at(job, &["status", "conditions"]).any(|condition| {
            text_at(condition, &["type"]) == Some(kind)
                && text_at(condition, &["status"]) == Some("True")
        })
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if text_at(job, &["metadata", "deletionTimestamp"]).is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = integer(job, &["status", "succeeded"]);
    match at(job, &["spec", "completions"]).and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match integer(job, &["spec", "parallelism"]) {
            parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            _ => format!("{succeeded}/1"),
        },
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let moment = |field: &str| text_at(job, &["status", field])?.parse::<Timestamp>().ok();
    let Some(start) = moment("startTime") else { return String::new() };
    let end = moment("completionTime").unwrap_or(now);
    human_duration(end.as_second() - start.as_second())
}

/// A CronJob's row.
#[must_use]
pub fn cron_job_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let suspend = match at(object, &["spec", "suspend"]).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = text_at(object, &["status", "lastScheduleTime"]);
    let mut cells = vec![
        name(object),
        text_or(object, &["spec", "schedule"], "").into(),
        text_or(object, &["spec", "timeZone"], NONE).into(),
        suspend.into(),
        items_at(object, &["status", "active"]).count().into(),
        last.map_or_else(|| NONE.to_owned(), |last| since(Some(last), now)).into(),
        age(object, now),
    ];
    let job = at(object, &["spec", "jobTemplate", "spec"]);
    cells.extend(template_cells(job.unwrap_or(&Value::Null)));
    cells
}

fn template_cells(spec: &Value) -> [Value; 3] {
    let pod = at(spec, &["template", "spec"]).unwrap_or(&Value::Null);
    let (containers, images) = containers_and_images(pod);
    [containers.into(), images.into(), selector_text(spec.get("selector")).into()]
}
