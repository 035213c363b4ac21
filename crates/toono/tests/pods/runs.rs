//! How containers begin and end: order, restarts, back-off, hooks, deadlines, last words.

use serde_json::{Value, json};

use crate::{
    case::{Case, Fact, container, lasting, pod},
    stage::Stage,
};

/// A script that fails until it has been run so often.
const THIRD_TIME: &str = "echo x >> /v/n; test $(wc -l < /v/n) -ge 3";

pub(crate) fn cases(_: &Stage) -> Vec<Case> {
    [order(), restarts(), endings(), hooks()].into_iter().flatten().collect()
}

fn shared() -> Value {
    json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})
}

fn with_shared(spec: Value) -> Value {
    let mut spec = spec;
    spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    spec
}

fn is(at: &'static str, text: &str) -> Fact {
    Fact::Is(at, text.to_owned())
}

fn order() -> Vec<Case> {
    let init = |name: &str, script: &str| container(name, script, shared());
    let sidecar = container(
        "s",
        "trap 'echo sidecar >> /v/end; exit 0' TERM; touch /v/up; while :; do sleep 0.1; done",
        json!({"restartPolicy": "Always", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "startupProbe": {"exec": {"command": ["cat", "/v/up"]}, "periodSeconds": 1}}),
    );
    vec![
        Case::prints(
            "init-containers-in-order",
            pod(
                "cat /v/log",
                shared(),
                with_shared(json!({"initContainers": [
                init("one", "sleep 0.3; echo one >> /v/log"), init("two", "echo two >> /v/log")]})),
            ),
            "one\ntwo\n",
        ),
        Case::new(
            "init-container-fails",
            vec![pod(
                "echo never",
                json!({}),
                json!({"initContainers": [container("i", "exit 3", json!({}))]}),
            )],
            vec![
                Fact::Phase("Failed"),
                is("/status/initContainerStatuses/0/state/terminated/exitCode", "3"),
                is("/status/containerStatuses/0/state/waiting/reason", "PodInitializing"),
            ],
        ),
        Case::new(
            "init-container-tries-again",
            vec![pod(
                "echo done",
                shared(),
                with_shared(json!({"restartPolicy": "OnFailure",
                "initContainers": [init("i", "echo x >> /v/n; test $(wc -l < /v/n) -ge 2")]})),
            )],
            vec![
                Fact::Phase("Succeeded"),
                is("/status/initContainerStatuses/0/restartCount", "1"),
                Fact::Log("c", "done\n".to_owned()),
            ],
        ),
        Case::new(
            "sidecar-starts-first-and-ends-last",
            vec![pod(
                "ls /v",
                shared(),
                with_shared(
                    json!({"terminationGracePeriodSeconds": 5, "initContainers": [sidecar]}),
                ),
            )],
            vec![
                Fact::Phase("Succeeded"),
                Fact::Log("c", "up\n".to_owned()),
                is("/status/initContainerStatuses/0/state/terminated/exitCode", "0"),
            ],
        ),
        Case::new(
            "sidecar-that-crashes-runs-again",
            vec![lasting(
                json!({}),
                json!({"initContainers": [
                container("s", "sleep 0.5; exit 1", json!({"restartPolicy": "Always"}))]}),
            )],
            vec![
                Fact::Runs,
                is("/status/initContainerStatuses/0/lastState/terminated/exitCode", "1"),
            ],
        ),
    ]
}

fn restarts() -> Vec<Case> {
    let policy = |policy: &str| with_shared(json!({"restartPolicy": policy}));
    vec![
        Case::new(
            "on-failure-until-it-succeeds",
            vec![pod("echo x >> /v/n; test $(wc -l < /v/n) -ge 2", shared(), policy("OnFailure"))],
            vec![Fact::Phase("Succeeded"), is("/status/containerStatuses/0/restartCount", "1")],
        ),
        Case::new(
            "always-also-after-success",
            vec![pod("exit 0", json!({}), json!({"restartPolicy": "Always"}))],
            vec![
                is("/status/containerStatuses/0/lastState/terminated/reason", "Completed"),
                Fact::Waits(
                    "CrashLoopBackOff",
                    "back-off 10s restarting failed container=c pod=p_case-always-also-after-success",
                ),
            ],
        ),
        Case::new(
            "crash-loop-backs-off-and-is-told",
            vec![pod(THIRD_TIME, shared(), policy("Always"))],
            vec![
                Fact::Waits("CrashLoopBackOff", "back-off 10s"),
                Fact::Event(
                    "BackOff",
                    "Back-off restarting failed container c in pod p".to_owned(),
                ),
                is("/status/containerStatuses/0/restartCount", "2"),
            ],
        ),
        Case::new(
            "never-means-never",
            vec![pod("exit 7", json!({}), json!({}))],
            vec![
                Fact::Phase("Failed"),
                is("/status/containerStatuses/0/state/terminated/exitCode", "7"),
                is("/status/containerStatuses/0/restartCount", "0"),
            ],
        ),
        Case::new(
            "restart-rule-for-an-exit-code",
            vec![pod(
                "echo x >> /v/n; test $(wc -l < /v/n) -ge 2 && exit 0; exit 42",
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}], "restartPolicy": "Never",
                    "restartPolicyRules": [{"action": "Restart",
                        "exitCodes": {"operator": "In", "values": [42]}}]}),
                policy("Never"),
            )],
            vec![Fact::Phase("Succeeded"), is("/status/containerStatuses/0/restartCount", "1")],
        ),
        Case::new(
            "one-of-two-fails",
            vec![pod(
                "exit 0",
                json!({}),
                json!({"containers": [container("d", "exit 1", json!({}))]}),
            )],
            vec![Fact::Phase("Failed")],
        ),
        Case::new(
            "log-of-the-run-before",
            vec![pod(
                "echo x >> /v/n; echo run $(wc -l < /v/n); test $(wc -l < /v/n) -ge 2 && sleep 1000",
                shared(),
                policy("OnFailure"),
            )],
            vec![
                is("/status/containerStatuses/0/restartCount", "1"),
                Fact::LogHas("c", "run 2".to_owned()),
                Fact::Kubectl(&["logs", "p", "--previous"], "run 1".to_owned()),
            ],
        ),
    ]
}

fn endings() -> Vec<Case> {
    vec![
        Case::new(
            "termination-message",
            vec![pod("echo why > /dev/termination-log; exit 4", json!({}), json!({}))],
            vec![is("/status/containerStatuses/0/state/terminated/message", "why\n")],
        ),
        Case::new(
            "termination-message-from-the-log",
            vec![pod(
                "echo the last line; exit 4",
                json!({"terminationMessagePolicy": "FallbackToLogsOnError"}),
                json!({}),
            )],
            vec![is("/status/containerStatuses/0/state/terminated/message", "the last line\n")],
        ),
        Case::new(
            "termination-message-elsewhere",
            vec![pod(
                "echo there > /tmp/last",
                json!({"terminationMessagePath": "/tmp/last"}),
                json!({}),
            )],
            vec![is("/status/containerStatuses/0/state/terminated/message", "there\n")],
        ),
        Case::new(
            "active-deadline",
            vec![lasting(json!({}), json!({"activeDeadlineSeconds": 2}))],
            vec![Fact::Phase("Failed"), is("/status/reason", "DeadlineExceeded")],
        ),
        Case::new(
            "grace-period-is-kept",
            vec![lasting(
                json!({"command": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]}),
                json!({"terminationGracePeriodSeconds": 3}),
            )],
            vec![
                Fact::Runs,
                Fact::Does(|stage, namespace| {
                    let start = std::time::Instant::now();
                    stage.kubectl(namespace, &["delete", "pod", "p", "--timeout=60s"]);
                    let took = start.elapsed().as_secs_f32();
                    assert!((3.0..30.0).contains(&took), "{took} s");
                }),
            ],
        ),
        Case::new(
            "deletion-without-grace",
            vec![lasting(
                json!({"command": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]}),
                json!({"terminationGracePeriodSeconds": 600}),
            )],
            vec![
                Fact::Runs,
                Fact::Kubectl(
                    &["delete", "pod", "p", "--grace-period=1", "--timeout=60s"],
                    "deleted".to_owned(),
                ),
            ],
        ),
        Case::new(
            "stop-signal-of-the-pod",
            vec![pod(
                "trap 'echo told > /dev/termination-log; exit 0' USR1; while :; do sleep 0.1; done",
                json!({"lifecycle": {"stopSignal": "SIGUSR1"}}),
                json!({"os": {"name": "linux"}, "activeDeadlineSeconds": 2, "terminationGracePeriodSeconds": 20}),
            )],
            vec![is("/status/containerStatuses/0/state/terminated/message", "told\n")],
        ),
    ]
}

fn hooks() -> Vec<Case> {
    let exec = |script: &str| json!({"exec": {"command": ["sh", "-c", script]}});
    vec![
        Case::new(
            "post-start-before-it-counts",
            vec![lasting(
                json!({"lifecycle": {"postStart": exec("sleep 1; touch /tmp/hooked")}}),
                json!({}),
            )],
            vec![
                Fact::Runs,
                Fact::Kubectl(&["exec", "p", "--", "ls", "/tmp"], "hooked".to_owned()),
            ],
        ),
        Case::new(
            "post-start-fails",
            vec![lasting(json!({"lifecycle": {"postStart": exec("exit 9")}}), json!({}))],
            vec![Fact::Event("FailedPostStartHook", "PostStartHook failed".to_owned())],
        ),
        Case::new(
            "pre-stop-comes-first",
            vec![pod(
                "trap 'cat /tmp/pre > /dev/termination-log; exit 0' TERM; while :; do sleep 0.1; done",
                json!({"lifecycle": {"preStop": exec("echo pre > /tmp/pre")}}),
                json!({"activeDeadlineSeconds": 3, "terminationGracePeriodSeconds": 20}),
            )],
            vec![is("/status/containerStatuses/0/state/terminated/message", "pre\n")],
        ),
        Case::new(
            "pre-stop-fails",
            vec![lasting(
                json!({"lifecycle": {"preStop": exec("exit 9")}}),
                json!({"terminationGracePeriodSeconds": 10, "activeDeadlineSeconds": 2}),
            )],
            vec![
                Fact::Event("FailedPreStopHook", "PreStopHook failed".to_owned()),
                Fact::Phase("Failed"),
            ],
        ),
        Case::new(
            "http-hook-that-nobody-hears",
            vec![lasting(
                json!({"command": ["httpd", "-f", "-p", "8080", "-h", "/www"],
                "lifecycle": {"postStart": {"httpGet": {"port": 8081}}}}),
                json!({}),
            )],
            vec![Fact::Event("FailedPostStartHook", "PostStartHook failed".to_owned())],
        ),
        Case::refused(
            "two-hooks-in-one",
            lasting(
                json!({"lifecycle": {"postStart": {"exec": {"command": ["true"]},
                "httpGet": {"port": 80}}}}),
                json!({}),
            ),
            "may not specify more than 1 handler type",
        ),
    ]
}
