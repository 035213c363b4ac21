//! How pods begin, go on and end.

use std::time::Duration;

use serde_json::json;
use toono_podmachine::{Action, Observation, Recovered, StopSignal};

use crate::node::{Node, at, deleted, pod, simple, start};

#[test]
fn from_nothing_to_running() {
    let mut node = Node::new(&simple("Always"));
    assert_eq!(
        (node.phase().as_str(), node.state().as_str()),
        ("Pending", "Waiting:ContainerCreating")
    );
    assert_eq!(node.condition("Ready"), ("False".into(), 1000, "ContainersNotReady".into()));
    let image = || ("c".to_owned(), "busybox:1".to_owned());
    let (container, image_ref) = image();
    assert_eq!(
        node.take(),
        [Action::CreateSandbox, Action::LookUpImage { container, image: image_ref }],
        "image and sandbox are got side by side"
    );
    node.see(Observation::ImageAbsent { container: "c".into() });
    let (container, image_ref) = image();
    assert_eq!(node.take(), [Action::PullImage { container, image: image_ref }]);
    node.pass(3);
    node.see(Observation::ImagePulled {
        container: "c".into(),
        image_id: "busybox@sha256:1".into(),
        took: Duration::from_secs(3),
        size: 1,
    });
    assert_eq!(node.take(), [], "no start without a sandbox");
    node.see(Observation::SandboxReady { ip: Some("10.244.0.2".parse().unwrap()) });
    assert_eq!(node.take(), [start("c", 0)]);
    node.see(Observation::Started { container: "c".into(), attempt: 0, at: at(node.now).wall });
    assert_eq!(node.events, ["Pulling", "Pulled", "Created", "Started"]);
    assert_eq!((node.phase().as_str(), node.state().as_str()), ("Running", "Running"));
    assert_eq!(node.condition("Ready"), ("True".into(), 1003, String::new()));
    let status = node.status();
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let container = node.container();
    assert_eq!(
        (container.ready, container.started, container.restart_count),
        (true, Some(true), 0)
    );
    assert_eq!(container.container_id.as_deref(), Some("toono://u1_c_0"));
    node.pass(500);
    assert_eq!(node.condition("Ready").1, 1003, "a condition keeps the time of its change");
    assert_eq!(node.wake, None, "a running pod needs no timer");
}

#[test]
fn the_restart_policy_decides_the_phase() {
    for (policy, code, phase, state) in [
        ("Never", 0, "Succeeded", "Terminated:Completed"),
        ("Never", 3, "Failed", "Terminated:Error"),
        ("OnFailure", 0, "Succeeded", "Terminated:Completed"),
        ("OnFailure", 3, "Running", "Running"),
        ("Always", 0, "Running", "Running"),
    ] {
        let mut node = Node::new(&simple(policy));
        node.settle();
        node.exit("c", 0, code);
        node.settle();
        assert_eq!(
            (node.phase().as_str(), node.state().as_str()),
            (phase, state),
            "{policy} {code}"
        );
        let over = phase != "Running";
        assert_eq!(
            node.condition("PodReadyToStartContainers").0,
            if over { "False" } else { "True" }
        );
        if over {
            assert_eq!(
                node.status().pod_ip.as_deref(),
                Some("10.244.0.2"),
                "the address is still told"
            );
            assert!(!node.machine.is_gone(), "an ended pod stays until it is deleted");
            node.machine.desire(&deleted(&simple(policy), 30), at(node.now)).unwrap();
            node.step();
            assert!(node.machine.is_gone());
        }
    }
}

#[test]
fn deletion_terminates_then_kills_then_tears_down() {
    let wanted = simple("Always");
    let mut node = Node::new(&wanted);
    node.settle();
    node.machine.desire(&deleted(&wanted, 30), at(node.now)).unwrap();
    node.step();
    let signal = |signal| Action::SignalContainer { container: "c".into(), attempt: 0, signal };
    assert_eq!(node.take(), [signal(StopSignal::Terminate)]);
    assert_eq!(node.events.last().unwrap(), "Killing");
    node.pass(5);
    node.machine.desire(&deleted(&wanted, 10), at(node.now)).unwrap();
    node.step();
    assert_eq!(node.wake, Some(node.now + Duration::from_secs(10)), "a shorter grace counts");
    node.pass(9);
    assert_eq!(node.take(), []);
    node.pass(1);
    assert_eq!(node.take(), [signal(StopSignal::Kill)]);
    assert!(!node.machine.is_gone());
    node.exit("c", 0, 137);
    assert_eq!(node.take(), [Action::TearDownSandbox]);
    assert_eq!(node.phase(), "Failed");
    assert!(!node.machine.is_gone(), "not before the sandbox is gone");
    node.see(Observation::SandboxGone);
    assert!(node.machine.is_gone());
}

#[test]
fn a_forced_deletion_kills_at_once() {
    let wanted = simple("Always");
    let mut node = Node::new(&wanted);
    node.settle();
    node.machine.desire(&deleted(&wanted, 0), at(node.now)).unwrap();
    node.step();
    let signal = StopSignal::Kill;
    assert_eq!(
        node.take(),
        [Action::SignalContainer { container: "c".into(), attempt: 0, signal }]
    );
}

#[test]
fn a_pod_removed_while_it_starts_is_stopped_when_it_has_started() {
    let mut node = Node::new(&simple("Always"));
    node.take();
    node.see(Observation::ImagePresent {
        container: "c".into(),
        image_id: "busybox@sha256:1".into(),
    });
    node.see(Observation::SandboxReady { ip: None });
    assert_eq!(node.take(), [start("c", 0)]);
    node.machine.remove(at(node.now));
    node.step();
    assert_eq!(node.take(), [], "what is being started cannot be signalled yet");
    node.see(Observation::Started { container: "c".into(), attempt: 0, at: at(node.now).wall });
    assert!(matches!(node.take()[..], [Action::SignalContainer { .. }]));
    node.exit("c", 0, 143);
    node.settle();
    assert!(node.machine.is_gone());
}

#[test]
fn init_containers_run_in_order_and_again_in_a_new_sandbox() {
    let mut node = Node::new(&pod(json!({
        "initContainers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"}],
        "containers": [{"name": "c", "image": "x:1"}],
    })));
    node.settle();
    assert_eq!(
        (node.phase().as_str(), node.state().as_str()),
        ("Pending", "Waiting:PodInitializing")
    );
    assert_eq!(node.machine.running_attempt("a"), Some(0));
    assert_eq!(node.machine.running_attempt("b"), None);
    node.exit("a", 0, 1);
    node.settle();
    assert_eq!(node.machine.running_attempt("a"), Some(1), "a failed one is tried again");
    node.exit("a", 1, 0);
    node.settle();
    assert_eq!(node.machine.running_attempt("b"), Some(0));
    assert_eq!(node.condition("Initialized").0, "False");
    node.exit("b", 0, 0);
    node.settle();
    assert_eq!((node.phase().as_str(), node.state().as_str()), ("Running", "Running"));
    assert_eq!(node.condition("Initialized").0, "True");

    node.see(Observation::SandboxLost);
    assert_eq!(node.actions[0], Action::TearDownSandbox);
    node.settle();
    assert_eq!(node.machine.running_attempt("a"), Some(2), "a new sandbox is initialised anew");
    assert!(node.events.contains(&"SandboxChanged".to_owned()));
    node.exit("a", 2, 0);
    node.settle();
    node.exit("b", 1, 0);
    node.settle();
    assert_eq!(node.container().restart_count, 1);
    assert_eq!(node.state(), "Running");
}

#[test]
fn the_active_deadline_ends_the_pod() {
    let mut node = Node::new(&pod(json!({
        "activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "c", "image": "x:1"}],
    })));
    node.settle();
    assert_eq!(node.wake, Some(Duration::from_secs(1060)));
    node.pass(60);
    assert!(matches!(node.take()[..], [Action::SignalContainer { .. }]));
    node.exit("c", 0, 143);
    node.settle();
    let status = node.status();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
    let found = Recovered { status: Some(status), ..Recovered::default() };
    let mut node = Node::resume(&simple("Always"), found, node.now);
    assert_eq!((node.take(), node.phase().as_str()), (vec![], "Failed"), "also after a restart");
}

// === an agent that starts again ===

#[test]
fn a_changed_image_replaces_the_container() {
    let mut node = Node::new(&simple("Always"));
    node.settle();
    let newer = pod(json!({"containers": [{"name": "c", "image": "busybox:2"}]}));
    node.machine.desire(&newer, at(node.now)).unwrap();
    node.step();
    assert!(matches!(node.take()[..], [Action::SignalContainer { .. }]));
    node.exit("c", 0, 143);
    let asked = node
        .actions
        .iter()
        .any(|it| matches!(it, Action::LookUpImage { image, .. } if image == "busybox:2"));
    assert!(asked, "{:?}", node.actions);
    node.settle();
    assert_eq!((node.container().image.as_str(), node.container().restart_count), ("busybox:2", 1));
}
