//! Init containers that stay, and containers that a person adds to look at a pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::json;
use toono_podmachine::{Action, Observation, ProbeKind, ProbeOutcome, StopSignal};

use crate::node::{Node, at, deleted, pod};

fn with_sidecars(policy: &str) -> Pod {
    pod(json!({
        "restartPolicy": policy, "terminationGracePeriodSeconds": 20,
        "initContainers": [
            {"name": "a", "image": "x:1", "restartPolicy": "Always", "startupProbe": {}},
            {"name": "i", "image": "x:1"},
            {"name": "b", "image": "x:1", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "x:1"}],
    }))
}

fn started(node: &mut Node, container: &str, attempt: u32) {
    let (kind, outcome) = (ProbeKind::Startup, ProbeOutcome::Success);
    node.see(Observation::Probed { container: container.into(), attempt, kind, outcome });
}

fn init(node: &Node, name: &str) -> ContainerStatus {
    let mut list = node.status().init_container_statuses.unwrap().into_iter();
    list.find(|it| it.name == name).unwrap()
}

fn terminated(node: &mut Node) -> Vec<String> {
    let name = |action| match action {
        Action::SignalContainer { container, signal: StopSignal::Terminate, .. } => Some(container),
        _ => None,
    };
    node.take().into_iter().filter_map(name).collect()
}

/// All of them run.
fn whole(policy: &str) -> Node {
    let mut node = Node::new(&with_sidecars(policy));
    node.start_all();
    started(&mut node, "a", 0);
    node.start_all();
    node.exit("i", 0, 0);
    node.start_all();
    assert_eq!(node.phase(), "Running");
    node
}

#[test]
fn a_sidecar_that_has_started_lets_the_next_begin() {
    let mut node = Node::new(&with_sidecars("Always"));
    node.start_all();
    assert_eq!(node.machine.running_attempt("a"), Some(0));
    assert_eq!(node.machine.running_attempt("i"), None, "the startup probe has not succeeded");
    assert_eq!((init(&node, "a").started, init(&node, "a").ready), (Some(false), false));
    started(&mut node, "a", 0);
    node.start_all();
    assert_eq!((init(&node, "a").started, init(&node, "a").ready), (Some(true), true));
    assert_eq!(node.machine.running_attempt("i"), Some(0));
    assert_eq!(node.machine.running_attempt("b"), None, "a common one has to end first");
    assert_eq!(node.condition("Initialized").0, "False");
    node.exit("i", 0, 0);
    node.start_all();
    for name in ["a", "b", "c"] {
        assert_eq!(node.machine.running_attempt(name), Some(0), "{name}");
    }
    assert_eq!((node.phase().as_str(), node.condition("Ready").0.as_str()), ("Running", "True"));
    assert_eq!(node.condition("Initialized").0, "True");
}

#[test]
fn a_sidecar_restarts_by_itself_whatever_the_policy() {
    let mut node = whole("Never");
    node.exit("b", 0, 0);
    assert_eq!(node.condition("Ready").0, "False", "a sidecar counts for readiness");
    assert_eq!(node.condition("Initialized").0, "True", "and not twice for initialisation");
    node.start_all();
    assert_eq!(node.machine.running_attempt("b"), Some(1));
    assert_eq!(init(&node, "b").restart_count, 1);
    assert_eq!(node.machine.running_attempt("c"), Some(0), "the others go on");
    assert_eq!(node.machine.running_attempt("i"), None);
    assert_eq!(node.condition("Ready").0, "True");
}

#[test]
fn a_pod_completes_with_its_main_containers() {
    for (code, phase) in [(0, "Succeeded"), (1, "Failed")] {
        let mut node = whole("Never");
        node.take();
        node.exit("c", 0, code);
        assert_eq!(terminated(&mut node), ["b"], "the last one first");
        assert_eq!(node.phase(), "Running", "as long as one of them runs");
        node.exit("b", 0, 143);
        assert_eq!(terminated(&mut node), ["a"]);
        node.exit("a", 0, 143);
        node.settle();
        assert_eq!(node.phase(), phase);
        assert_eq!(node.condition("PodReadyToStartContainers").0, "False");
        assert!(!node.machine.is_gone(), "it stays until it is deleted");
        assert_eq!(node.wake, None);
    }
}

#[test]
fn sidecars_end_last_and_get_what_is_left_of_the_grace() {
    let mut node = whole("Always");
    node.take();
    let deleted = deleted(&with_sidecars("Always"), 20);
    node.machine.desire(&deleted, at(node.now)).unwrap();
    node.step();
    assert_eq!(terminated(&mut node), ["c"]);
    node.pass(15);
    node.exit("c", 0, 143);
    assert_eq!(terminated(&mut node), ["b"]);
    node.pass(5);
    assert_eq!(terminated(&mut node), ["a"], "there is no more time for turns");
    assert_eq!(node.wake, Some(node.now + Duration::from_secs(2)));
    node.exit("b", 0, 137);
    node.exit("a", 0, 137);
    node.settle();
    assert!(node.machine.is_gone());
}

#[test]
fn a_failed_init_container_ends_the_sidecars_of_a_pod_that_never_restarts() {
    let mut node = Node::new(&with_sidecars("Never"));
    node.start_all();
    started(&mut node, "a", 0);
    node.start_all();
    node.take();
    node.exit("i", 0, 3);
    assert_eq!(terminated(&mut node), ["a"]);
    node.exit("a", 0, 143);
    node.settle();
    assert_eq!(node.phase(), "Failed");
}

#[test]
fn a_power_cut_does_not_undo_a_completed_pod() {
    let mut node = whole("Never");
    node.exit("c", 0, 0);
    node.exit("b", 0, 143);
    node.exit("a", 0, 143);
    node.settle();
    let found = toono_podmachine::Recovered { status: Some(node.status()), ..Default::default() };
    let mut after = Node::resume(&with_sidecars("Never"), found, Duration::ZERO);
    assert_eq!((after.take(), after.phase().as_str()), (vec![], "Succeeded"));
}

#[test]
fn an_ephemeral_container_changes_nothing_of_its_pod() {
    let mut wanted = with_sidecars("Never");
    let mut node = whole("Never");
    wanted.spec.as_mut().unwrap().ephemeral_containers =
        serde_json::from_value(json!([{"name": "debug", "image": "x:1"}])).unwrap();
    node.machine.desire(&wanted, at(node.now)).unwrap();
    node.step();
    node.start_all();
    assert_eq!(node.machine.running_attempt("debug"), Some(0));
    let ready = node.condition("Ready").0;
    let status = |node: &Node| node.status().ephemeral_container_statuses.unwrap().remove(0);
    assert!(status(&node).state.unwrap().running.is_some());
    node.exit("debug", 0, 1);
    node.start_all();
    assert_eq!(node.machine.running_attempt("debug"), None, "it never runs again");
    assert_eq!((node.phase().as_str(), node.condition("Ready").0), ("Running", ready));
    assert_eq!(status(&node).state.unwrap().terminated.unwrap().exit_code, 1);
    node.exit("c", 0, 0);
    node.exit("b", 0, 0);
    node.exit("a", 0, 0);
    node.settle();
    assert_eq!(node.phase(), "Succeeded");
}
