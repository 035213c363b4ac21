//! Workloads: Deployments, sets, Jobs, CronJobs, budgets.

use super::{super::*, cells, filled, rules, updates};
use serde_json::{Value, json};

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn workload() -> Value {
    json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template()}})
}

const MISMATCH: &str = "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`";

#[test]
fn deployments_and_replica_sets() {
    let cases = [
        ("/spec/selector", json!(null), "spec.selector: Required value"),
        ("/spec/template/metadata/labels/app", json!("b"), MISMATCH),
        (
            "/spec/replicas",
            json!(-1),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "/spec/selector",
            json!({}),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
    ];
    rules(&workload::DEPLOYMENT, &workload(), &cases);
    rules(&workload::REPLICA_SET, &workload(), &cases);
    rules(
        &workload::DEPLOYMENT,
        &workload(),
        &[
            (
                "/spec/strategy",
                json!({"type": "Other"}),
                "spec.strategy.type: Unsupported value: \"Other\": supported values: \"Recreate\", \"RollingUpdate\"",
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                "/spec/progressDeadlineSeconds",
                json!(0),
                "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
            ),
        ],
    );
    updates(
        &workload::DEPLOYMENT,
        &workload(),
        &[(
            "/spec/selector/matchLabels/app",
            json!("z"),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"z\"}}: field is immutable",
        )],
    );
}

#[test]
fn stateful_sets() {
    let mut set = workload();
    set["spec"]["serviceName"] = "s".into();
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "d"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}}]);
    let whole = filled(&workload::STATEFUL_SET, &set);
    assert_eq!(whole["spec"]["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        whole["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"],
        "1Gi"
    );
    rules(
        &workload::STATEFUL_SET,
        &set,
        &[
            (
                "/spec/podManagementPolicy",
                json!("Other"),
                "spec.podManagementPolicy: Invalid value: \"Other\": must be 'OrderedReady' or 'Parallel'",
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
            ),
            ("/spec/template/metadata/labels/app", json!("b"), MISMATCH),
        ],
    );
    let why = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    updates(
        &workload::STATEFUL_SET,
        &set,
        &[
            ("/spec/serviceName", json!("t"), why),
            ("/spec/volumeClaimTemplates", json!([]), why),
            ("/spec/replicas", json!(5), ""),
        ],
    );
    let shown = json!({"metadata": {"name": "s"}, "spec": {"replicas": 3, "template": template()}, "status": {"readyReplicas": 1}});
    assert_eq!(
        cells(&workload::STATEFUL_SET, &shown),
        [json!("s"), json!("1/3"), json!("<unknown>"), json!("c"), json!("i:1")]
    );
}

#[test]
fn daemon_sets_and_replication_controllers() {
    rules(
        &workload::DAEMON_SET,
        &workload(),
        &[
            (
                "/spec/updateStrategy",
                json!({"type": "Other"}),
                "spec.updateStrategy.type: Unsupported value: \"Other\": supported values: \"OnDelete\", \"RollingUpdate\"",
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": 0}}),
                "spec.updateStrategy.rollingUpdate: Required value: cannot be 0 when maxSurge is 0",
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxSurge": 1}}),
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ),
        ],
    );
    let controller = json!({"metadata": {"name": "r"}, "spec": {"template": template()}});
    let whole = filled(&workload::REPLICATION_CONTROLLER, &controller);
    assert_eq!(whole["spec"]["selector"], json!({"app": "a"}));
    rules(
        &workload::REPLICATION_CONTROLLER,
        &controller,
        &[
            (
                "/spec/selector",
                json!({"app": "c"}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ),
            (
                "/spec/template",
                json!(null),
                "spec.selector: Required value; spec.template: Required value",
            ),
        ],
    );
}

fn job() -> Value {
    json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}})
}

#[test]
fn jobs() {
    let whole = filled(&batch::JOB, &job());
    assert_eq!(
        whole["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
    );
    let labels = json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j",
        "controller-uid": "u", "job-name": "j"});
    assert_eq!(whole["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(whole["metadata"]["labels"], labels);
    assert_eq!(
        (&whole["spec"]["backoffLimit"], &whole["spec"]["completions"]),
        (&json!(6), &json!(1))
    );
    rules(
        &batch::JOB,
        &job(),
        &[
            (
                "/spec/template/spec/restartPolicy",
                json!("Always"),
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            (
                "/spec/completionMode",
                json!("Other"),
                "spec.completionMode: Unsupported value: \"Other\": supported values: \"Indexed\", \"NonIndexed\"",
            ),
            (
                "/spec/parallelism",
                json!(-1),
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/backoffLimitPerIndex",
                json!(1),
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            ),
        ],
    );
    updates(
        &batch::JOB,
        &job(),
        &[
            (
                "/spec/completions",
                json!(2),
                "spec.completions: Invalid value: 2: field is immutable",
            ),
            (
                "/spec/completionMode",
                json!("Indexed"),
                "spec.completionMode: Invalid value: \"Indexed\": field is immutable",
            ),
            ("/spec/parallelism", json!(3), ""),
            ("/spec/suspend", json!(true), ""),
        ],
    );
    let moved = super::changed(&whole, "/spec/template/spec/nodeSelector", &json!({"a": "b"}));
    assert!(
        super::said(&(batch::JOB.validate_update)(&moved, &whole))
            .contains("spec.template: Invalid value")
    );
    let suspended = super::changed(&whole, "/spec/suspend", &json!(true));
    assert_eq!(super::said(&(batch::JOB.validate_update)(&moved, &suspended)), "");
    let done = json!({"metadata": {"name": "j"}, "spec": {"completions": 2}, "status": {"succeeded": 1,
        "startTime": "2030-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "True"}]}});
    assert_eq!(
        cells(&batch::JOB, &done)[..4],
        [json!("j"), json!("Suspended"), json!("1/2"), json!("10m")]
    );
}

#[test]
fn cron_jobs() {
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *",
        "jobTemplate": {"spec": job()["spec"]}}});
    rules(
        &batch::CRON_JOB,
        &cron,
        &[
            ("/spec/schedule", json!(""), "spec.schedule: Required value"),
            (
                "/spec/schedule",
                json!("* * *"),
                "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
            ),
            (
                "/spec/concurrencyPolicy",
                json!("Other"),
                "spec.concurrencyPolicy: Unsupported value: \"Other\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
            (
                "/spec/timeZone",
                json!(""),
                "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string",
            ),
            (
                "/metadata/name",
                json!("x".repeat(53)),
                &*format!(
                    "metadata.name: Invalid value: \"{}\": must be no more than 52 characters",
                    "x".repeat(53)
                )
                .leak(),
            ),
            (
                "/spec/jobTemplate/spec/manualSelector",
                json!(true),
                "spec.jobTemplate.spec.manualSelector: Unsupported value: \"true\": supported values: \"nil\", \"false\"",
            ),
        ],
    );
    let shown = cells(&batch::CRON_JOB, &filled(&batch::CRON_JOB, &cron));
    assert_eq!(
        shown[..6],
        [
            json!("c"),
            json!("*/5 * * * *"),
            json!("<none>"),
            json!("False"),
            json!(0),
            json!("<none>")
        ]
    );
}

#[test]
fn disruption_budgets() {
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    rules(
        &policy::POD_DISRUPTION_BUDGET,
        &budget,
        &[
            (
                "/spec/minAvailable",
                json!("101%"),
                "spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                "/spec/minAvailable",
                json!(-1),
                "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/unhealthyPodEvictionPolicy",
                json!("Other"),
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Other\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ),
        ],
    );
    let both = super::changed(&budget, "/spec/maxUnavailable", &json!(1));
    let told = super::said(&(policy::POD_DISRUPTION_BUDGET.validate)(&both));
    assert!(told.ends_with("minAvailable and maxUnavailable cannot be both set"), "{told}");
    assert_eq!(
        cells(&policy::POD_DISRUPTION_BUDGET, &budget),
        [json!("b"), json!("1"), json!("N/A"), json!(0), json!("<unknown>")]
    );
}
