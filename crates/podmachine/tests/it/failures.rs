//! What goes wrong with pods on a node, and what is said of it.

use std::time::Duration;

use serde_json::json;
use toono_podmachine::{Action, Observation, StartFailure};

use crate::node::{Node, at, pod, simple, start};

#[test]
fn crashes_back_off_and_are_forgiven() {
    let mut node = Node::new(&simple("Always"));
    node.settle();
    let mut attempt = 0;
    for delay in [0, 10, 20, 40, 80, 160, 300, 300] {
        node.pass(1);
        node.exit("c", attempt, 1);
        if delay > 0 {
            assert_eq!(node.state(), "Waiting:CrashLoopBackOff");
            assert_eq!(node.wake, Some(node.now + Duration::from_secs(delay)));
            node.pass(delay - 1);
            assert_eq!(node.take(), [], "{delay} s are not over");
            node.pass(1);
        }
        attempt += 1;
        node.settle();
        assert_eq!(node.state(), "Running");
        let container = node.container();
        assert_eq!(container.restart_count, i32::try_from(attempt).unwrap());
        assert_eq!(container.last_state.unwrap().terminated.unwrap().exit_code, 1);
    }
    node.pass(600);
    node.exit("c", attempt, 1);
    node.settle();
    assert_eq!(node.state(), "Running", "after ten good minutes a crash is a first one");
    assert!(node.events.contains(&"BackOff".to_owned()));
}

#[test]
fn pulls_back_off_and_say_why() {
    let mut node = Node::new(&simple("Always"));
    node.take();
    node.see(Observation::ImageAbsent { container: "c".into() });
    let failed = || Observation::ImagePullFailed {
        container: "c".into(),
        unreachable: false,
        message: "manifest unknown".into(),
    };
    node.see(failed());
    assert_eq!(node.state(), "Waiting:ErrImagePull");
    node.pass(1);
    assert_eq!(node.state(), "Waiting:ImagePullBackOff");
    let message = node.container().state.unwrap().waiting.unwrap().message.unwrap();
    assert!(message.contains("busybox:1") && message.contains("manifest unknown"), "{message}");
    node.take();
    node.pass(9);
    assert!(matches!(node.take()[..], [Action::LookUpImage { .. }]));
    node.see(Observation::ImageAbsent { container: "c".into() });
    node.see(failed());
    assert_eq!(node.state(), "Waiting:ImagePullBackOff");
    assert_eq!(node.wake, Some(node.now + Duration::from_secs(20)));
}

#[test]
fn an_unreachable_registry_does_not_keep_a_container_from_restarting() {
    let floating = pod(json!({"containers": [{"name": "c", "image": "busybox"}]}));
    let unreachable = || Observation::ImagePullFailed {
        container: "c".into(),
        unreachable: true,
        message: "no route".into(),
    };
    let mut node = Node::new(&floating);
    node.take();
    node.see(Observation::SandboxReady { ip: None });
    node.see(unreachable());
    assert_eq!(node.state(), "Waiting:ErrImagePull", "an image never seen cannot be trusted");
    node.pass(10);
    node.settle();
    assert_eq!(node.state(), "Running");
    node.exit("c", 0, 1);
    assert!(matches!(node.take()[..], [Action::PullImage { .. }]));
    node.see(unreachable());
    assert!(
        matches!(node.take()[..], [Action::LookUpImage { .. }]),
        "the one that ran is good enough"
    );
    node.see(Observation::ImagePresent {
        container: "c".into(),
        image_id: "busybox@sha256:1".into(),
    });
    node.settle();
    assert_eq!(node.container().restart_count, 1);
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut node = Node::new(&pod(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "a", "image": "x:1"}],
        "containers": [{"name": "c", "image": "x:1"}],
    })));
    node.settle();
    node.exit("a", 0, 1);
    node.settle();
    assert_eq!(
        (node.phase().as_str(), node.state().as_str()),
        ("Failed", "Waiting:PodInitializing")
    );
    assert_eq!(node.wake, None);
}

#[test]
fn starts_that_fail_are_told_apart() {
    for (failure, state, restarts) in [
        (StartFailure::Config, "Waiting:CreateContainerConfigError", 0),
        (StartFailure::Create, "Waiting:CreateContainerError", 0),
        (StartFailure::Run, "Waiting:CrashLoopBackOff", 1),
    ] {
        let mut node = Node::new(&simple("Always"));
        for attempt in [0, restarts] {
            node.take();
            let image_id = "busybox@sha256:1".into();
            node.see(Observation::ImagePresent { container: "c".into(), image_id });
            node.see(Observation::SandboxReady { ip: None });
            assert!(node.actions.contains(&start("c", attempt)), "{:?}", node.actions);
            let message = "exec: no such file".to_owned();
            node.see(Observation::StartFailed { container: "c".into(), attempt, failure, message });
        }
        assert_eq!(node.state(), state);
        assert_eq!(node.container().restart_count, i32::try_from(restarts).unwrap());
        assert_eq!(node.wake, Some(node.now + Duration::from_secs(10)), "the second failure waits");
    }
}

#[test]
fn unsupported_fields_are_said_aloud() {
    let mut node = Node::new(&pod(json!({
        "containers": [{"name": "c", "image": "x:1"}],
        "volumes": [{"name": "conf", "configMap": {"name": "x"}}],
    })));
    assert_eq!(node.take(), [], "nothing is run that would be run wrongly");
    assert_eq!(node.state(), "Waiting:CreateContainerConfigError");
    let message = node.container().state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(message, "spec.volumes[conf].configMap is not supported by this node");
    assert_eq!(node.events, ["UnsupportedField", "Failed"]);
    node.machine.remove(at(node.now));
    node.step();
    assert!(node.machine.is_gone());

    let probed = json!({"containers": [{"name": "c", "image": "x:1", "livenessProbe": {}}]});
    let mut node = Node::new(&pod(probed));
    node.settle();
    assert_eq!(node.state(), "Running", "a probe left out is said, and does no harm");
    assert_eq!(node.condition("toono.io/FieldsUnsupported").2, "UnsupportedFields");
    assert_eq!(node.events[0], "UnsupportedField");
}
