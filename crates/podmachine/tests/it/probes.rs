//! Probes: when they are asked, what their answers change, and what survives what.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use toono_podmachine::{
    Action, ContainerFound, Observation, ProbeKind, ProbeOutcome, Recovered, SandboxFound,
    StopSignal,
};

use crate::node::{Node, at, deleted, pod};

fn probed(policy: &str, probes: Value) -> Pod {
    let mut container = json!({"name": "c", "image": "busybox:1"});
    container.as_object_mut().unwrap().append(&mut probes.as_object().unwrap().clone());
    pod(json!({"restartPolicy": policy, "containers": [container]}))
}

/// A node whose container runs, with nothing answered but what brought it there.
fn running(pod: &Pod) -> Node {
    let mut node = Node::new(pod);
    node.start_all();
    node
}

fn asked(node: &mut Node) -> Vec<ProbeKind> {
    let probe = |action| match action {
        Action::Probe { kind, .. } => Some(kind),
        _ => None,
    };
    node.take().into_iter().filter_map(probe).collect()
}

fn answer(node: &mut Node, attempt: u32, kind: ProbeKind, well: bool) {
    let failed = || ProbeOutcome::Failure("no".to_owned());
    let outcome = if well { ProbeOutcome::Success } else { failed() };
    node.see(Observation::Probed { container: "c".into(), attempt, kind, outcome });
}

#[test]
fn readiness_gates_traffic_by_its_thresholds() {
    let readiness = json!({"readinessProbe": {"initialDelaySeconds": 5, "periodSeconds": 10,
        "successThreshold": 2, "failureThreshold": 2}});
    let mut node = running(&probed("Always", readiness));
    assert_eq!(node.state(), "Running");
    assert!(!node.container().ready && node.container().started == Some(true));
    assert_eq!(node.condition("Ready").2, "ContainersNotReady");
    assert_eq!(asked(&mut node), []);
    assert_eq!(node.wake, Some(node.now + Duration::from_secs(5)));
    node.pass(5);
    assert_eq!(asked(&mut node), [ProbeKind::Readiness]);
    assert_eq!(node.wake, None, "it is under way, and has a timeout of its own");
    for (well, ready) in [
        (true, false),
        (true, true),
        (false, true),
        (true, true),
        (false, true),
        (false, false),
        (true, false),
        (true, true),
    ] {
        answer(&mut node, 0, ProbeKind::Readiness, well);
        assert_eq!(node.container().ready, ready);
        assert_eq!(node.condition("Ready").0 == "True", ready);
        assert_eq!(node.condition("ContainersReady").0 == "True", ready);
        node.pass(10);
        assert_eq!(asked(&mut node), [ProbeKind::Readiness]);
    }
    assert!(node.events.contains(&"Unhealthy".to_owned()));
    assert_eq!(node.container().restart_count, 0);
}

#[test]
fn a_failed_liveness_probe_restarts_within_its_own_grace() {
    let liveness = json!({"livenessProbe": {"periodSeconds": 1, "failureThreshold": 3,
        "terminationGracePeriodSeconds": 7}});
    let mut node = running(&probed("OnFailure", liveness.clone()));
    assert!(node.container().ready, "nothing says that it is not");
    for _ in 0..3 {
        assert_eq!(asked(&mut node), [ProbeKind::Liveness]);
        answer(&mut node, 0, ProbeKind::Liveness, false);
        node.pass(1);
    }
    let signal = |signal| Action::SignalContainer { container: "c".into(), attempt: 0, signal };
    assert_eq!(node.take(), [signal(StopSignal::Terminate)]);
    assert_eq!(
        node.texts().last().unwrap(),
        "Container c failed liveness probe, will be restarted"
    );
    node.pass(6);
    assert_eq!(node.take(), [signal(StopSignal::Kill)]);
    node.exit("c", 0, 0);
    node.start_all();
    assert_eq!((node.state().as_str(), node.container().restart_count), ("Running", 1));

    let mut node = running(&probed("Never", liveness));
    for _ in 0..3 {
        answer(&mut node, 0, ProbeKind::Liveness, false);
        node.pass(1);
    }
    assert_eq!(node.texts().last().unwrap(), "Container c failed liveness probe");
    node.exit("c", 0, 137);
    node.settle();
    assert_eq!(node.phase(), "Failed", "a pod that never restarts is ended by it");
}

#[test]
fn a_startup_probe_goes_before_the_others() {
    let all = json!({
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {}, "readinessProbe": {}});
    let mut node = running(&probed("Always", all.clone()));
    assert_eq!(asked(&mut node), [ProbeKind::Startup]);
    assert_eq!((node.container().started, node.container().ready), (Some(false), false));
    answer(&mut node, 0, ProbeKind::Startup, true);
    assert_eq!(asked(&mut node), [ProbeKind::Liveness, ProbeKind::Readiness]);
    assert_eq!((node.container().started, node.container().ready), (Some(true), false));
    answer(&mut node, 0, ProbeKind::Readiness, true);
    assert!(node.container().ready);
    node.pass(1);
    assert_eq!(asked(&mut node), [], "once it has succeeded it is not asked again");

    let mut node = running(&probed("Always", all));
    for _ in 0..2 {
        answer(&mut node, 0, ProbeKind::Startup, false);
        node.pass(1);
    }
    assert_eq!(node.texts().last().unwrap(), "Container c failed startup probe, will be restarted");
}

#[test]
fn results_do_not_outlive_their_run() {
    let mut node = running(&probed("Always", json!({"readinessProbe": {}})));
    answer(&mut node, 0, ProbeKind::Readiness, true);
    assert!(node.container().ready);
    node.take();
    node.exit("c", 0, 1);
    assert!(!node.container().ready);
    node.start_all();
    assert_eq!(node.container().restart_count, 1);
    assert!(!node.container().ready, "a new run has to show it anew");
    answer(&mut node, 0, ProbeKind::Readiness, true);
    assert!(!node.container().ready, "an answer about the run before says nothing");
    answer(&mut node, 1, ProbeKind::Readiness, true);
    assert!(node.container().ready);
}

#[test]
fn an_ending_container_is_asked_for_readiness_alone() {
    let wanted = probed(
        "Always",
        json!({"livenessProbe": {"periodSeconds": 2}, "readinessProbe": {"periodSeconds": 2}}),
    );
    let mut node = running(&wanted);
    answer(&mut node, 0, ProbeKind::Liveness, true);
    answer(&mut node, 0, ProbeKind::Readiness, true);
    node.machine.desire(&deleted(&wanted, 30), at(node.now)).unwrap();
    node.step();
    node.take();
    node.pass(2);
    assert_eq!(asked(&mut node), [ProbeKind::Readiness]);
}

#[test]
fn probes_of_all_pods_are_due_together() {
    let mut node = Node::new(&probed("Always", json!({"livenessProbe": {"periodSeconds": 3}})));
    node.now += Duration::from_millis(400);
    node.start_all();
    assert_eq!(asked(&mut node), [ProbeKind::Liveness], "the first at once");
    answer(&mut node, 0, ProbeKind::Liveness, true);
    assert_eq!(node.wake, Some(Duration::from_secs(1003)), "and then at whole seconds");
}

#[test]
fn the_same_failure_is_not_told_each_time() {
    let mut node = running(&probed("Always", json!({"readinessProbe": {"periodSeconds": 60}})));
    let mut told = Vec::new();
    for _ in 0..12 {
        answer(&mut node, 0, ProbeKind::Readiness, false);
        told.push(node.events.iter().filter(|it| *it == "Unhealthy").count());
        node.pass(60);
    }
    assert_eq!(told, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]);
    let container = "c".to_owned();
    let outcome = ProbeOutcome::Error("exec: nope".to_owned());
    let kind = ProbeKind::Readiness;
    node.see(Observation::Probed { container, attempt: 0, kind, outcome });
    assert_eq!(
        node.texts().last().unwrap(),
        "Readiness probe errored and resulted in unknown state: exec: nope"
    );
}

#[test]
fn an_adopted_container_stays_ready_until_its_probe_says_otherwise() {
    let wanted = probed(
        "Always",
        json!({
        "startupProbe": {"failureThreshold": 1}, "livenessProbe": {"periodSeconds": 40},
        "readinessProbe": {"periodSeconds": 20, "failureThreshold": 1}}),
    );
    let mut node = running(&wanted);
    answer(&mut node, 0, ProbeKind::Startup, true);
    answer(&mut node, 0, ProbeKind::Readiness, true);
    let before = node.status();
    let alive = ContainerFound {
        name: "c".into(),
        attempt: 0,
        started_at: Some(at(node.now).wall),
        exit: None,
    };
    let sandbox = SandboxFound { ip: "10.244.0.2".parse().ok(), containers: vec![alive] };
    let found =
        |status| Recovered { status, sandbox: Some(sandbox.clone()), ..Recovered::default() };
    let mut after = Node::resume(&wanted, found(Some(before.clone())), Duration::from_secs(5000));
    assert_eq!(after.status(), before);
    assert!(after.wake.unwrap() <= after.now + Duration::from_secs(20), "spread over a period");
    after.pass(40);
    assert_eq!(asked(&mut after), [ProbeKind::Liveness, ProbeKind::Readiness]);
    answer(&mut after, 0, ProbeKind::Readiness, false);
    assert!(!after.container().ready);

    let after = Node::resume(&wanted, found(None), Duration::from_secs(5000));
    assert_eq!(after.container().started, Some(false), "nobody has said that it had started");
}

#[test]
fn readiness_gates_are_others_to_open() {
    let gated = json!({"readinessGates": [{"conditionType": "example.com/balanced"}],
        "containers": [{"name": "c", "image": "x:1"}]});
    let mut wanted = pod(gated);
    let mut node = running(&wanted);
    assert_eq!(node.condition("ContainersReady").0, "True");
    let (status, _, reason) = node.condition("Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ReadinessGatesNotReady"));
    wanted.status = serde_json::from_value(
        json!({"conditions": [{"type": "example.com/balanced", "status": "True"}]}),
    )
    .unwrap();
    node.machine.desire(&wanted, at(node.now)).unwrap();
    node.step();
    assert_eq!(node.condition("Ready").0, "True");
}
