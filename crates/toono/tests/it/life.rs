//! A pod's whole life as an unmodified kubectl sees it: probes, hooks, sidecars, a look inside.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{edge::Edge, wait::until};

const IMAGE: &str = "lab.toono.io/busybox:1";
const SOON: Duration = Duration::from_secs(60);

#[test]
fn pods_are_probed_helped_and_looked_into() {
    let edge = Edge::up();
    readiness_decides_who_is_behind_a_service(&edge);
    a_failed_probe_restarts_and_says_so(&edge);
    kubectl_debug_sees_the_processes_of_a_container(&edge);
    a_readiness_gate_is_opened_by_others(&edge);
    a_job_completes_with_its_sidecar(&edge);
    a_deletion_runs_the_hook_first(&edge);
}

fn sh(script: &str) -> Value {
    json!(["sh", "-c", script])
}

fn text(edge: &Edge, what: &[&str], path: &str) -> String {
    let path = format!("jsonpath={path}");
    edge.kubectl(&[&["get"], what, &["-o", &path]].concat())
}

fn readiness_decides_who_is_behind_a_service(edge: &Edge) {
    edge.apply(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "probed", "labels": {"app": "probed"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": IMAGE, "ports": [{"name": "web", "containerPort": 8080}],
            "command": sh("mkdir /www; echo > /tmp/live; exec httpd -f -p 8080 -h /www"),
            "livenessProbe": {"exec": {"command": ["cat", "/tmp/live"]}, "periodSeconds": 1,
                "failureThreshold": 1},
            "readinessProbe": {"httpGet": {"path": "/ok", "port": "web"}, "periodSeconds": 1,
                "failureThreshold": 1}}]}}));
    edge.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "probed"},
        "spec": {"selector": {"app": "probed"}, "ports": [{"port": 80, "targetPort": "web"}]}}));
    edge.kubectl(&[
        "wait",
        "pod/probed",
        "--for=jsonpath={.status.phase}=Running",
        "--timeout=60s",
    ]);
    let endpoints = |ready: &str, behind: usize| {
        edge.kubectl(&[
            "wait",
            "pod/probed",
            &format!("--for=condition=Ready={ready}"),
            "--timeout=30s",
        ]);
        until("the endpoints follow", SOON, || {
            let shown = text(edge, &["endpoints", "probed"], "{.subsets[*].addresses[*].ip}");
            (shown.split_whitespace().count() == behind).then_some(())
        });
    };
    endpoints("False", 0);
    edge.kubectl(&["exec", "probed", "--", "touch", "/www/ok"]);
    endpoints("True", 1);
    edge.kubectl(&["exec", "probed", "--", "rm", "/www/ok"]);
    endpoints("False", 0);
    edge.kubectl(&["exec", "probed", "--", "touch", "/www/ok"]);
    endpoints("True", 1);
    assert_eq!(text(edge, &["pod", "probed"], "{.status.containerStatuses[0].restartCount}"), "0");
}

fn a_failed_probe_restarts_and_says_so(edge: &Edge) {
    edge.kubectl(&["exec", "probed", "--", "rm", "/tmp/live"]);
    let count = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    edge.kubectl(&["wait", "pod/probed", count, "--timeout=30s"]);
    until("kubectl describe tells why", SOON, || {
        let shown = edge.kubectl(&["describe", "pod", "probed"]);
        let told = [
            "Readiness probe failed: HTTP probe failed with statuscode: 404",
            "Liveness probe failed: cat: can't open '/tmp/live': No such file or directory",
            "Container main failed liveness probe, will be restarted",
        ];
        told.iter().all(|text| shown.contains(text)).then_some(())
    });
}

fn kubectl_debug_sees_the_processes_of_a_container(edge: &Edge) {
    let debug = ["debug", "probed", "--image", IMAGE, "--target=main", "-c", "look", "--", "ps"];
    edge.kubectl(&debug);
    let ended =
        "--for=jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0";
    edge.kubectl(&["wait", "pod/probed", ended, "--timeout=30s"]);
    let log = edge.kubectl(&["logs", "probed", "-c", "look"]);
    assert!(log.contains("httpd -f -p 8080"), "{log}");
    assert_eq!(text(edge, &["pod", "probed"], "{.status.phase}"), "Running");
    edge.kubectl(&["delete", "pod", "probed"]);
}

fn a_readiness_gate_is_opened_by_others(edge: &Edge) {
    edge.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gated"},
        "spec": {"terminationGracePeriodSeconds": 0,
            "readinessGates": [{"conditionType": "example.com/balanced"}],
            "containers": [{"name": "main", "image": IMAGE, "command": ["sleep", "1000"]}]}}));
    edge.kubectl(&["wait", "pod/gated", "--for=condition=ContainersReady", "--timeout=60s"]);
    let ready = "{.status.conditions[?(@.type==\"Ready\")]['status','reason']}";
    assert_eq!(text(edge, &["pod", "gated"], ready), "False ReadinessGatesNotReady");
    for status in ["True", "False"] {
        let patch = json!({"status": {"conditions": [
            {"type": "example.com/balanced", "status": status}]}});
        let patch = patch.to_string();
        edge.kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", &patch]);
        edge.kubectl(&[
            "wait",
            "pod/gated",
            &format!("--for=condition=Ready={status}"),
            "--timeout=30s",
        ]);
    }
    edge.kubectl(&["delete", "pod", "gated"]);
}

fn a_job_completes_with_its_sidecar(edge: &Edge) {
    edge.apply(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "helped"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "volumes": [{"name": "shared", "emptyDir": {}}],
            "initContainers": [{
                "name": "helper", "image": IMAGE, "restartPolicy": "Always",
                "command": sh("echo help > /shared/x; trap 'exit 0' TERM; while :; do sleep 0.1; done"),
                "startupProbe": {"exec": {"command": ["cat", "/shared/x"]}, "periodSeconds": 1},
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
            "containers": [{
                "name": "main", "image": IMAGE, "command": sh("cat /shared/x | tee /dev/termination-log"),
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}]}}}}),
    );
    edge.kubectl(&["wait", "job/helped", "--for=condition=Complete", "--timeout=60s"]);
    let of = ["pod", "-l", "job-name=helped"];
    let path = "{.items[0].status.containerStatuses[0].state.terminated.message}";
    assert_eq!(text(edge, &of, path), "help\n");
    let path = "{.items[0].status.initContainerStatuses[0].state.terminated.exitCode}";
    assert_eq!(text(edge, &of, path), "0");
    edge.kubectl(&["delete", "job", "helped"]);
}

fn a_deletion_runs_the_hook_first(edge: &Edge) {
    let out = edge.data().join("hooks");
    std::fs::create_dir(&out).unwrap();
    let write = |word: &str| sh(&format!("echo {word} >> /out/log"));
    edge.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hooked"},
        "spec": {"terminationGracePeriodSeconds": 10,
            "volumes": [{"name": "out", "hostPath": {"path": out}}],
            "containers": [{
                "name": "main", "image": IMAGE,
                "command": sh("trap 'echo term >> /out/log; exit 0' TERM; while :; do sleep 0.1; done"),
                "volumeMounts": [{"name": "out", "mountPath": "/out"}],
                "lifecycle": {"postStart": {"exec": {"command": write("post")}},
                    "preStop": {"exec": {"command": write("pre")}}}}]}}),
    );
    edge.kubectl(&["wait", "pod/hooked", "--for=condition=Ready", "--timeout=60s"]);
    edge.kubectl(&["delete", "pod", "hooked", "--timeout=30s"]);
    assert_eq!(std::fs::read_to_string(out.join("log")).unwrap(), "post\npre\nterm\n");
}
