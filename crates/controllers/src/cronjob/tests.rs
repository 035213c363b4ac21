//! Cron jobs under a clock that the test sets.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::decide::{Decision, decide};

const CREATED: &str = "2026-01-01T00:00:30Z";

fn cron(spec: Value, status: Value) -> CronJob {
    let mut cron = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "c",
        "creationTimestamp": CREATED}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {}},
        "status": status});
    cron["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(cron).unwrap()
}

fn job(name: &str, end: Option<&str>, started: &str) -> Arc<Job> {
    let conditions: Vec<_> =
        end.map(|type_| json!({"type": type_, "status": "True"})).into_iter().collect();
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "status": {
            "startTime": started, "completionTime": started, "conditions": conditions}}))
        .unwrap(),
    )
}

fn run(cron: &CronJob, jobs: &[Arc<Job>], now: &str) -> Decision {
    let now = now.parse().unwrap();
    decide(cron, cron.spec.as_ref().unwrap(), jobs, &HashSet::new(), now)
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

fn reasons(decision: &Decision) -> Vec<&str> {
    decision.tell.iter().map(|(_, reason, _)| *reason).collect()
}

fn active(name: &str) -> Value {
    json!({"name": name, "uid": name})
}

#[test]
fn a_job_for_each_time_and_no_other() {
    let new = cron(json!({}), json!({}));
    let before = run(&new, &[], "2026-01-01T00:04:59Z");
    assert_eq!(before.start, None);
    assert_eq!(before.again.unwrap().as_millis(), 1100);
    let due = run(&new, &[], "2026-01-01T00:05:00Z");
    assert_eq!(due.start, at("2026-01-01T00:05:00Z"));
    assert_eq!(due.again.unwrap().as_secs(), 300);
    let done = cron(json!({}), json!({"lastScheduleTime": "2026-01-01T00:05:00Z"}));
    assert_eq!(run(&done, &[], "2026-01-01T00:05:01Z").start, None);
    let suspended = cron(json!({"suspend": true}), json!({}));
    assert_eq!(run(&suspended, &[], "2026-01-01T00:05:00Z").start, None);
    let local = cron(json!({"schedule": "0 9 * * *", "timeZone": "Asia/Tokyo"}), json!({}));
    assert_eq!(run(&local, &[], "2026-01-02T00:00:01Z").start, at("2026-01-02T00:00:00Z"));
}

#[test]
fn of_missed_times_only_the_last_counts() {
    let old = cron(json!({}), json!({"lastScheduleTime": "2025-12-31T23:00:00Z"}));
    let few = run(&old, &[], "2026-01-01T00:07:00Z");
    assert_eq!((few.start, reasons(&few)), (at("2026-01-01T00:05:00Z"), vec![]));
    let many = run(&old, &[], "2026-03-01T12:34:56Z");
    assert_eq!(many.start, at("2026-03-01T12:30:00Z"));
    assert_eq!(reasons(&many), ["TooManyMissedTimes"]);
    let yearly = json!({"schedule": "0 0 1 1 *"});
    let old = cron(yearly, json!({"lastScheduleTime": "1800-01-01T00:00:00Z"}));
    assert_eq!(run(&old, &[], "2026-03-01T12:34:56Z").start, at("2026-01-01T00:00:00Z"));
}

#[test]
fn what_is_late_beyond_the_deadline_is_not_started() {
    let strict = cron(json!({"startingDeadlineSeconds": 60}), json!({}));
    assert_eq!(run(&strict, &[], "2026-01-01T00:06:00Z").start, at("2026-01-01T00:05:00Z"));
    let late = run(&strict, &[], "2026-01-01T00:06:01Z");
    assert_eq!((late.start, late.again.unwrap().as_secs()), (None, 239));
}

#[test]
fn jobs_that_still_run() {
    let running = json!({"active": [active("old")]});
    let jobs = [job("old", None, CREATED)];
    let due = "2026-01-01T00:05:00Z";
    let allow = run(&cron(json!({}), running.clone()), &jobs, due);
    assert!(allow.start.is_some() && allow.replace.is_empty());
    let forbid = run(&cron(json!({"concurrencyPolicy": "Forbid"}), running.clone()), &jobs, due);
    assert_eq!((forbid.start, reasons(&forbid)), (None, vec!["JobAlreadyActive"]));
    let replace = run(&cron(json!({"concurrencyPolicy": "Replace"}), running.clone()), &jobs, due);
    assert!(replace.start.is_some() && replace.status.active.is_none());
    assert_eq!(replace.replace[0].name.as_deref(), Some("old"));
    let over = [job("old", Some("Complete"), due)];
    let free = run(&cron(json!({"concurrencyPolicy": "Forbid"}), running), &over, due);
    assert_eq!((free.start.is_some(), reasons(&free)), (true, vec!["SawCompletedJob"]));
    assert_eq!(free.status.last_successful_time.map(|time| time.0), at(due));
    assert_eq!(free.status.active, None);
}

#[test]
fn jobs_that_are_gone_or_unexpected() {
    let cron = cron(json!({"suspend": true}), json!({"active": [active("lost"), active("kept")]}));
    let gone = HashSet::from(["lost".to_owned()]);
    let jobs = [job("kept", None, CREATED), job("stray", None, CREATED)];
    let now = CREATED.parse().unwrap();
    let decision = decide(&cron, cron.spec.as_ref().unwrap(), &jobs, &gone, now);
    assert_eq!(reasons(&decision), ["UnexpectedJob", "MissingJob"]);
    let left: Vec<_> = decision.status.active.unwrap().into_iter().map(|job| job.name).collect();
    assert_eq!(left, [Some("kept".to_owned())]);
}

#[test]
fn the_oldest_of_the_history_go() {
    let limits =
        json!({"suspend": true, "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0});
    let jobs = [
        job("b", Some("Complete"), "2026-01-01T00:02:00Z"),
        job("a", Some("Complete"), "2026-01-01T00:01:00Z"),
        job("c", Some("Complete"), "2026-01-01T00:03:00Z"),
        job("d", Some("Failed"), "2026-01-01T00:09:00Z"),
        job("e", None, "2026-01-01T00:00:00Z"),
    ];
    let decision = run(&cron(limits, json!({"active": [active("e")]})), &jobs, CREATED);
    let names: Vec<_> =
        decision.forget.iter().map(|job| job.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["a", "b", "d"]);
}

#[test]
fn mistakes_are_told() {
    let zone = run(&cron(json!({"timeZone": "Mars/Base"}), json!({})), &[], CREATED);
    assert_eq!(zone.tell[0].2, "invalid timeZone: \"Mars/Base\": unknown time zone Mars/Base");
    let schedule = run(&cron(json!({"schedule": "* * *"}), json!({})), &[], CREATED);
    assert_eq!(
        schedule.tell[0].2,
        "unparseable schedule: \"* * *\" : expected exactly 5 fields, found 3: [* * *]"
    );
    assert!(zone.start.is_none() && schedule.again.is_none());
}
