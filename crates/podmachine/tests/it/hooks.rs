//! Lifecycle hooks: after the start, before the end, and what their failures cost.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use toono_podmachine::{
    Action, ContainerFound, Hook, Observation, Recovered, SandboxFound, StopSignal,
};

use crate::node::{Node, at, deleted, pod, start};

fn hooked(hook: &str) -> Pod {
    pod(json!({"terminationGracePeriodSeconds": 30, "containers": [
        {"name": "c", "image": "busybox:1", "lifecycle": {hook: {"exec": {"command": ["x"]}}}}]}))
}

fn run(hook: Hook) -> Action {
    Action::RunHook { container: "c".into(), attempt: 0, hook }
}

fn done(hook: Hook, error: Option<&str>) -> Observation {
    let error = error.map(str::to_owned);
    Observation::HookDone { container: "c".into(), attempt: 0, hook, error }
}

fn signal(signal: StopSignal) -> Action {
    Action::SignalContainer { container: "c".into(), attempt: 0, signal }
}

#[test]
fn a_container_runs_once_its_hook_is_done() {
    let mut node = Node::new(&hooked("postStart"));
    node.start_all();
    assert_eq!(node.take(), [run(Hook::PostStart)]);
    assert_eq!(
        (node.phase().as_str(), node.state().as_str()),
        ("Pending", "Waiting:ContainerCreating")
    );
    assert_eq!(node.machine.running_attempt("c"), Some(0), "its process can be looked at");
    node.see(done(Hook::PostStart, None));
    assert_eq!((node.phase().as_str(), node.state().as_str()), ("Running", "Running"));
    assert!(node.container().ready);
}

#[test]
fn a_failed_hook_after_the_start_ends_the_container() {
    let mut node = Node::new(&hooked("postStart"));
    node.start_all();
    node.take();
    node.see(done(Hook::PostStart, Some("no such thing")));
    assert_eq!(node.take(), [signal(StopSignal::Terminate)]);
    let last: Vec<_> = node.texts().iter().rev().take(2).cloned().collect();
    assert_eq!(last, ["FailedPostStartHook", "PostStartHook failed"]);
    node.exit("c", 0, 143);
    assert_eq!(node.state(), "Waiting:PostStartHookError");
    node.start_all();
    assert!(node.actions.iter().any(|it| matches!(it, Action::RunHook { attempt: 1, .. })));
}

#[test]
fn main_containers_wait_for_the_hooks_of_those_before() {
    let mut node = Node::new(&pod(json!({"containers": [
        {"name": "c", "image": "x:1", "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}},
        {"name": "d", "image": "x:1"}]})));
    node.start_all();
    assert_eq!(node.machine.running_attempt("d"), None);
    node.see(done(Hook::PostStart, None));
    assert!(node.actions.contains(&start("d", 0)), "{:?}", node.actions);
}

#[test]
fn the_hook_before_the_end_runs_within_the_grace() {
    let wanted = hooked("preStop");
    let ending = || {
        let mut node = Node::new(&wanted);
        node.start_all();
        node.machine.desire(&deleted(&wanted, 30), at(node.now)).unwrap();
        node.step();
        assert_eq!(node.take(), [run(Hook::PreStop)]);
        assert_eq!(node.events.last().unwrap(), "Killing");
        node
    };
    let mut node = ending();
    node.pass(10);
    node.see(done(Hook::PreStop, None));
    assert_eq!(node.take(), [signal(StopSignal::Terminate)]);
    node.pass(19);
    assert_eq!(node.take(), []);
    node.pass(1);
    assert_eq!(node.take(), [signal(StopSignal::Kill)], "the hook's time is of the grace period");

    let mut node = ending();
    node.see(done(Hook::PreStop, Some("no")));
    assert_eq!(node.take(), [signal(StopSignal::Terminate)]);
    assert_eq!(node.events.last().unwrap(), "FailedPreStopHook");

    let mut node = ending();
    node.pass(30);
    assert_eq!(node.take(), [signal(StopSignal::Terminate)], "a hook that hangs has had its time");
    assert_eq!(node.wake, Some(node.now + Duration::from_secs(2)));
    node.pass(2);
    assert_eq!(node.take(), [signal(StopSignal::Kill)]);
    node.see(done(Hook::PreStop, None));
    assert_eq!(node.take(), [], "it comes too late to matter");

    let mut node = Node::new(&wanted);
    node.start_all();
    node.machine.desire(&deleted(&wanted, 0), at(node.now)).unwrap();
    node.step();
    assert_eq!(node.take(), [signal(StopSignal::Kill)], "there is no time for a hook");
}

#[test]
fn a_hook_that_an_agent_did_not_see_end_runs_again() {
    let wanted = hooked("postStart");
    let mut node = Node::new(&wanted);
    node.start_all();
    let alive = ContainerFound {
        name: "c".into(),
        attempt: 0,
        started_at: Some(at(node.now).wall),
        exit: None,
    };
    let found = |status| Recovered {
        status: Some(status),
        sandbox: Some(SandboxFound { ip: None, containers: vec![alive.clone()] }),
        ..Recovered::default()
    };
    let mut after = Node::resume(&wanted, found(node.status()), node.now);
    assert_eq!(after.take(), [run(Hook::PostStart)]);
    node.see(done(Hook::PostStart, None));
    let mut after = Node::resume(&wanted, found(node.status()), node.now);
    assert_eq!(after.take(), [], "and one whose end was written down does not");
}
