//! Probes: what they do to a container and to its pod's readiness.

use serde_json::{Value, json};

use crate::{
    case::{Case, Fact, lasting},
    stage::Stage,
};

pub(crate) fn cases(_: &Stage) -> Vec<Case> {
    let probe = |kind: &str, handler: Value| {
        let mut probe = json!({"periodSeconds": 1, "failureThreshold": 1});
        for (key, value) in handler.as_object().unwrap() {
            probe[key] = value.clone();
        }
        json!({ kind: probe })
    };
    let serving = |kind: &str, handler: Value| {
        let mut container = probe(kind, handler);
        container["command"] = json!(["httpd", "-f", "-p", "8080", "-h", "/www"]);
        container["ports"] = json!([{"name": "web", "containerPort": 8080}]);
        lasting(container, json!({}))
    };
    let exec = |command: &[&str]| json!({"exec": {"command": command}});
    let case = |name, pod, facts| Case::new(name, vec![pod], facts);
    let unhealthy = |text: &str| Fact::Event("Unhealthy", text.to_owned());
    let restarted = || {
        Fact::Event("Killing", "Container c failed liveness probe, will be restarted".to_owned())
    };
    let again = |mut pod: Value| {
        pod["spec"]["restartPolicy"] = "Always".into();
        pod
    };
    vec![
        case(
            "readiness-by-exec",
            lasting(probe("readinessProbe", exec(&["true"])), json!({})),
            vec![Fact::Holds("Ready")],
        ),
        case(
            "readiness-by-exec-fails",
            lasting(
                probe("readinessProbe", exec(&["sh", "-c", "echo not yet; exit 1"])),
                json!({}),
            ),
            vec![Fact::Runs, unhealthy("Readiness probe failed: not yet")],
        ),
        case(
            "readiness-by-http",
            serving("readinessProbe", json!({"httpGet": {"port": "web", "path": "/"}})),
            vec![Fact::Holds("Ready")],
        ),
        case(
            "readiness-by-http-fails",
            serving("readinessProbe", json!({"httpGet": {"port": "web", "path": "/none"}})),
            vec![unhealthy("Readiness probe failed: HTTP probe failed with statuscode: 404")],
        ),
        case(
            "readiness-by-tcp",
            serving("readinessProbe", json!({"tcpSocket": {"port": 8080}})),
            vec![Fact::Holds("Ready")],
        ),
        case(
            "readiness-by-tcp-fails",
            serving("readinessProbe", json!({"tcpSocket": {"port": 8081}})),
            vec![unhealthy("connect: connection refused")],
        ),
        case(
            "readiness-by-grpc-fails",
            serving("readinessProbe", json!({"grpc": {"port": 8081}})),
            vec![unhealthy("Readiness probe")],
        ),
        case(
            "liveness-restarts",
            again(lasting(probe("livenessProbe", exec(&["sh", "-c", "exit 2"])), json!({}))),
            vec![restarted(), Fact::Is("/status/containerStatuses/0/restartCount", "1".to_owned())],
        ),
        case(
            "liveness-by-http-that-redirects-nowhere",
            again(serving("livenessProbe", json!({"httpGet": {"port": 8080, "path": "/none"}}))),
            vec![
                unhealthy("Liveness probe failed: HTTP probe failed with statuscode: 404"),
                restarted(),
            ],
        ),
        case(
            "startup-holds-the-others-back",
            lasting(
                json!({"startupProbe": {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 60},
                    "livenessProbe": {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1},
                    "command": ["sh", "-c", "sleep 3; touch /tmp/up; while :; do sleep 0.2; done"]}),
                json!({}),
            ),
            vec![
                Fact::Holds("Ready"),
                Fact::Is("/status/containerStatuses/0/restartCount", "0".to_owned()),
            ],
        ),
        case(
            "startup-that-never-succeeds",
            again(lasting(probe("startupProbe", exec(&["false"])), json!({}))),
            vec![Fact::Event(
                "Killing",
                "Container c failed startup probe, will be restarted".to_owned(),
            )],
        ),
        case(
            "probe-that-takes-too-long",
            lasting(
                json!({"readinessProbe": {"exec": {"command": ["sleep", "30"]}, "timeoutSeconds": 1, "periodSeconds": 2}}),
                json!({}),
            ),
            vec![unhealthy("timed out")],
        ),
    ]
}
