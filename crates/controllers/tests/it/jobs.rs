//! Jobs and cron jobs; the tests end their pods as nodes would.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::{Event, Pod},
};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, wait_for};

fn job(name: &str, spec: Value) -> Value {
    let mut job = json!({"metadata": {"name": name}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}]}}}});
    job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    job
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn running(pods: &[Pod]) -> Vec<&Pod> {
    let mut running: Vec<_> = pods
        .iter()
        .filter(|pod| phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none())
        .collect();
    running.sort_by_key(|pod| pod.metadata.name.clone());
    running
}

/// Waits for so many running pods and answers with their names.
async fn wait_running(cluster: &Cluster, count: usize) -> Vec<Pod> {
    let what = format!("{count} running pods");
    let pods = wait_for(cluster.api::<Pod>(), &what, |pods| running(pods).len() == count).await;
    running(&pods).into_iter().cloned().collect()
}

/// Ends a pod, an hour ago, so that no pause after a failure is left.
async fn end(cluster: &Cluster, pod: &Pod, exit_code: i32) {
    let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
    let ended = Timestamp::now() - SignedDuration::from_hours(1);
    let ended = Timestamp::from_second(ended.as_second()).unwrap();
    let status = json!({"status": {"phase": phase,
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": ended}],
        "containerStatuses": [{"name": "c", "image": "one", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"running": null, "terminated": {
                "exitCode": exit_code, "startedAt": ended, "finishedAt": ended}}}]}});
    let name = pod.metadata.name.as_deref().unwrap();
    let api = cluster.api::<Pod>();
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

fn reason(job: &Job, type_: &str) -> Option<String> {
    let status = job.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let condition =
        conditions.find(|condition| condition.type_ == type_ && condition.status == "True")?;
    Some(condition.reason.clone().unwrap_or_default())
}

async fn wait_job(cluster: &Cluster, what: &str, test: impl Fn(&Job) -> bool) -> Job {
    let jobs =
        wait_for(cluster.api::<Job>(), what, |jobs| jobs.len() == 1 && jobs.iter().all(&test))
            .await;
    jobs.into_iter().next().unwrap()
}

async fn wait_told(cluster: &Cluster, reasons: &[&str]) {
    wait_for(cluster.api::<Event>(), &format!("the events {reasons:?}"), |events| {
        let told: BTreeSet<_> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
        reasons.iter().all(|reason| told.contains(reason))
    })
    .await;
}

#[tokio::test]
async fn a_job_retries_what_fails_and_completes() {
    let cluster = Cluster::start(&["a1"]).await;
    let spec = json!({"parallelism": 2, "completions": 3, "backoffLimit": 2});
    cluster.create::<Job>(job("work", spec)).await;
    let pods = wait_running(&cluster, 2).await;
    let finalizers = pods[0].metadata.finalizers.clone().unwrap();
    assert_eq!(finalizers, ["batch.kubernetes.io/job-tracking"]);
    end(&cluster, &pods[0], 1).await;
    wait_job(&cluster, "a counted failure", |job| {
        job.status.as_ref().is_some_and(|status| status.failed == Some(1))
    })
    .await;
    for pod in wait_running(&cluster, 2).await {
        end(&cluster, &pod, 0).await;
    }
    wait_job(&cluster, "two successes", |job| {
        job.status.as_ref().is_some_and(|status| status.succeeded == Some(2))
    })
    .await;
    for pod in wait_running(&cluster, 1).await {
        end(&cluster, &pod, 0).await;
    }
    let done = wait_job(&cluster, "the end", |job| reason(job, "Complete").is_some()).await;
    assert!(reason(&done, "SuccessCriteriaMet").is_some());
    let status = done.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(3), Some(1), None));
    assert_eq!((status.ready, status.terminating), (Some(0), Some(0)));
    assert!(status.completion_time.is_some() && status.start_time.is_some());
    wait_told(&cluster, &["SuccessfulCreate", "Completed"]).await;
    wait_for(cluster.api::<Pod>(), "pods that nothing holds", |pods| {
        pods.iter().all(|pod| pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty))
    })
    .await;
    cluster.api::<Job>().delete("work", &DeleteParams::background()).await.unwrap();
    wait_for(cluster.api::<Pod>(), "no pods", |pods| pods.is_empty()).await;
}

#[tokio::test]
async fn a_job_that_fails_too_often_fails() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster.create::<Job>(job("work", json!({"backoffLimit": 1, "parallelism": 2}))).await;
    let pods = wait_running(&cluster, 2).await;
    end(&cluster, &pods[0], 1).await;
    let pods = wait_running(&cluster, 2).await;
    end(&cluster, &pods[1], 1).await;
    let failed = wait_job(&cluster, "the end", |job| reason(job, "Failed").is_some()).await;
    assert_eq!(reason(&failed, "Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(reason(&failed, "FailureTarget").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(failed.status.unwrap().failed, Some(3), "what ran has failed with it");
    wait_running(&cluster, 0).await;
    wait_told(&cluster, &["BackoffLimitExceeded"]).await;
}

#[tokio::test]
async fn indexes_of_a_job_and_its_suspension() {
    let cluster = Cluster::start(&["a1"]).await;
    let spec =
        json!({"parallelism": 2, "completions": 3, "completionMode": "Indexed", "suspend": true});
    cluster.create::<Job>(job("work", spec)).await;
    wait_job(&cluster, "its suspension", |job| reason(job, "Suspended").is_some()).await;
    assert!(cluster.api::<Pod>().list(&Default::default()).await.unwrap().items.is_empty());
    cluster.patch::<Job>("work", json!({"spec": {"suspend": false}})).await;
    let pods = wait_running(&cluster, 2).await;
    let index = |pod: &Pod| {
        pod.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/job-completion-index"]
            .clone()
    };
    assert_eq!(pods.iter().map(index).collect::<Vec<_>>(), ["0", "1"]);
    assert_eq!(pods[1].spec.as_ref().unwrap().hostname.as_deref(), Some("work-1"));
    end(&cluster, &pods[1], 0).await;
    wait_job(&cluster, "index 1", |job| {
        job.status.as_ref().is_some_and(|status| status.completed_indexes.as_deref() == Some("1"))
    })
    .await;
    wait_running(&cluster, 2).await;
    cluster.patch::<Job>("work", json!({"spec": {"suspend": true}})).await;
    wait_for(cluster.api::<Pod>(), "no running pods", |pods| running(pods).is_empty()).await;
    cluster.patch::<Job>("work", json!({"spec": {"suspend": false}})).await;
    let pods = wait_running(&cluster, 2).await;
    assert_eq!(pods.iter().map(index).collect::<Vec<_>>(), ["0", "2"]);
    for pod in pods {
        end(&cluster, &pod, 0).await;
    }
    let done = wait_job(&cluster, "the end", |job| reason(job, "Complete").is_some()).await;
    let status = done.status.unwrap();
    assert_eq!(status.completed_indexes.as_deref(), Some("0-2"));
    assert_eq!(status.failed, None, "suspending is no failure");
    wait_told(&cluster, &["Suspended", "Resumed", "Completed"]).await;
}

#[tokio::test]
async fn a_job_adopts_what_matches_and_releases_what_does_not() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster.create::<Job>(job("work", json!({"parallelism": 1}))).await;
    let pod = wait_running(&cluster, 1).await.remove(0);
    let name = pod.metadata.name.clone().unwrap();
    cluster.patch::<Pod>(&name, json!({"metadata": {"ownerReferences": null}})).await;
    let owned = |pods: &[Pod]| {
        pods.iter().any(|pod| {
            pod.metadata.name.as_deref() == Some(&name)
                && pod.metadata.owner_references.iter().flatten().any(|owner| owner.name == "work")
                && pod.metadata.finalizers.iter().flatten().count() == 1
        })
    };
    wait_for(cluster.api::<Pod>(), "the adoption", owned).await;
    cluster.patch::<Pod>(&name, json!({"metadata": {"labels": null}})).await;
    wait_for(cluster.api::<Pod>(), "the release", |pods| {
        pods.len() == 2
            && pods.iter().any(|pod| {
                pod.metadata.name.as_deref() == Some(&name)
                    && pod.metadata.owner_references.iter().flatten().next().is_none()
                    && pod.metadata.finalizers.iter().flatten().next().is_none()
            })
    })
    .await;
}

#[tokio::test]
async fn a_job_is_gone_a_while_after_its_end() {
    let cluster = Cluster::start(&["a1"]).await;
    cluster.create::<Job>(job("work", json!({"ttlSecondsAfterFinished": 1}))).await;
    let pod = wait_running(&cluster, 1).await.remove(0);
    end(&cluster, &pod, 0).await;
    wait_for(cluster.api::<Job>(), "no job", |jobs| jobs.is_empty()).await;
    wait_for(cluster.api::<Pod>(), "no pod", |pods| pods.is_empty()).await;
}

#[tokio::test]
async fn a_cron_job_makes_the_job_of_the_last_time_and_keeps_its_history() {
    let cluster = Cluster::start(&["a1"]).await;
    let cron = json!({"metadata": {"name": "tick"}, "spec": {
        "schedule": "0 0 1 1 *", "timeZone": "Asia/Tokyo", "concurrencyPolicy": "Forbid",
        "successfulJobsHistoryLimit": 0,
        "jobTemplate": {"metadata": {"labels": {"l": "v"}}, "spec": job("x", json!({}))["spec"]}}});
    cluster.create::<CronJob>(cron).await;
    // Nothing is due before the next year; told that the last time was long ago, it is late.
    let api = cluster.api::<CronJob>();
    let status = json!({"status": {"lastScheduleTime": "2000-06-01T00:00:00Z"}});
    api.patch_status("tick", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let made = wait_job(&cluster, "its job", |_| true).await;
    let year = Timestamp::now().to_zoned(jiff::tz::TimeZone::get("Asia/Tokyo").unwrap()).year();
    let annotations = made.metadata.annotations.clone().unwrap();
    assert_eq!(
        annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        format!("{year}-01-01T00:00:00+09:00")
    );
    assert_eq!(made.metadata.labels.as_ref().unwrap()["l"], "v");
    let scheduled: Timestamp = format!("{}-12-31T15:00:00Z", year - 1).parse().unwrap();
    let name = format!("tick-{}", scheduled.as_second() / 60);
    assert_eq!(made.metadata.name.as_deref(), Some(name.as_str()));
    wait_for(cluster.api::<CronJob>(), "its status", |crons| {
        let status = crons.iter().find_map(|cron| cron.status.clone()).unwrap_or_default();
        let active = status.active.unwrap_or_default();
        active.len() == 1
            && active[0].name.as_deref() == Some(&name)
            && status.last_schedule_time.is_some_and(|time| time.0 == scheduled)
    })
    .await;
    let pod = wait_running(&cluster, 1).await.remove(0);
    end(&cluster, &pod, 0).await;
    wait_for(cluster.api::<CronJob>(), "the success", |crons| {
        let status = crons.iter().find_map(|cron| cron.status.clone()).unwrap_or_default();
        status.last_successful_time.is_some() && status.active.is_none()
    })
    .await;
    wait_for(cluster.api::<Job>(), "no history", |jobs| jobs.is_empty()).await;
    wait_told(&cluster, &["SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"]).await;
}
