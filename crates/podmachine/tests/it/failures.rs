//! What goes wrong with pods on a node, and what is said of it.

use std::time::Duration;

use serde_json::json;
use toono_podmachine::{Action, Observation, PodMachine, Recovered, StartFailure};

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
        "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": "x"}}],
    })));
    assert_eq!(node.take(), [], "nothing is run that would be run wrongly");
    assert_eq!(node.state(), "Waiting:CreateContainerConfigError");
    let message = node.container().state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(message, "spec.volumes[disk].persistentVolumeClaim is not supported by this node");
    assert_eq!(node.events, ["UnsupportedField", "Failed"]);
    node.machine.remove(at(node.now));
    node.step();
    assert!(node.machine.is_gone());

    let profiled = json!({"containers": [{"name": "c", "image": "x:1",
        "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}]});
    let mut node = Node::new(&pod(profiled));
    node.settle();
    assert_eq!(node.state(), "Running", "a profile left out is said, and does no harm");
    assert_eq!(node.condition("toono.io/FieldsUnsupported").2, "UnsupportedFields");
    assert_eq!(node.events[0], "UnsupportedField");
}

#[test]
fn a_pod_waits_for_its_volumes_and_for_what_they_are_made_of() {
    let mut node = Node::new(&simple("Always"));
    assert!(node.take().contains(&Action::CreateSandbox));
    let failed = || Observation::VolumesFailed { failures: vec!["no m".into(), "no n".into()] };
    node.see(failed());
    assert_eq!(node.state(), "Waiting:ContainerCreating");
    assert_eq!(node.events.iter().filter(|reason| *reason == "FailedMount").count(), 2);
    node.take();
    assert!(node.wake.is_some(), "it tries again by itself");
    node.see(Observation::ReferentsChanged);
    assert!(node.take().contains(&Action::CreateSandbox), "and at once when something came");
    node.see(Observation::ImagePresent { container: "c".into(), image_id: "i".into() });
    node.see(Observation::SandboxReady { ip: None });
    node.settle();
    assert_eq!(node.state(), "Running");
    node.see(failed());
    assert_eq!((node.state().as_str(), node.take().len()), ("Running", 0), "it has what it had");
}

#[test]
fn a_container_that_cannot_be_configured_starts_when_it_can() {
    let mut node = Node::new(&simple("Never"));
    node.take();
    node.see(Observation::SandboxReady { ip: None });
    for _ in 0..2 {
        let image_id = "busybox@sha256:1".to_owned();
        node.see(Observation::ImagePresent { container: "c".into(), image_id });
        assert!(node.take().contains(&start("c", 0)));
        node.see(Observation::StartFailed {
            container: "c".into(),
            attempt: 0,
            failure: StartFailure::Config,
            message: "secret \"s\" not found".into(),
        });
        assert_eq!(node.state(), "Waiting:CreateContainerConfigError");
    }
    assert_eq!(node.take(), [], "the second failure waits");
    node.see(Observation::ReferentsChanged);
    node.settle();
    assert_eq!((node.state().as_str(), node.container().restart_count), ("Running", 0));
}

#[test]
fn a_name_that_is_no_image_is_called_so() {
    let mut node = Node::new(&pod(json!({"containers": [{"name": "c", "image": "Web:1"}]})));
    node.take();
    let message = "its path is not made of lower-case letters, digits and separators".to_owned();
    let invalid =
        || Observation::ImageNameInvalid { container: "c".into(), message: message.clone() };
    node.see(invalid());
    assert_eq!(node.state(), "Waiting:InvalidImageName");
    let text = node.container().state.unwrap().waiting.unwrap().message.unwrap();
    assert!(
        text.starts_with("Failed to apply default image tag \"Web:1\": couldn't parse"),
        "{text}"
    );
    assert!(node.events.contains(&"InspectFailed".to_owned()), "{:?}", node.events);
    // It is looked at again, also where the policy is to pull: the pod's image may have been changed.
    node.pass(10);
    assert!(matches!(node.take()[..], [Action::LookUpImage { .. }]));
    let mut node = Node::new(&pod(json!({"containers": [{"name": "c", "image": "Web"}]})));
    node.take();
    node.see(invalid());
    assert_eq!(node.state(), "Waiting:InvalidImageName");
}

#[test]
fn an_image_that_must_not_be_pulled_is_waited_for() {
    let never = json!({"containers": [{"name": "c", "image": "x:1", "imagePullPolicy": "Never"}]});
    let mut node = Node::new(&pod(never));
    node.take();
    node.see(Observation::SandboxReady { ip: None });
    node.see(Observation::ImageAbsent { container: "c".into() });
    assert_eq!(node.state(), "Waiting:ErrImageNeverPull");
    node.pass(10);
    assert!(matches!(node.take()[..], [Action::LookUpImage { .. }]));
    node.see(Observation::ImagePresent { container: "c".into(), image_id: "x@sha256:1".into() });
    node.settle();
    assert_eq!(node.state(), "Running", "somebody imported it");
}

#[test]
fn a_pod_with_an_unsafe_sysctl_is_rejected_at_once() {
    let spec = json!({"containers": [{"name": "c", "image": "busybox:1"}],
        "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}});
    let mut node = Node::new(&pod(spec));
    assert_eq!(node.take(), []);
    assert_eq!(node.phase(), "Failed");
    let status = node.status();
    assert_eq!(status.reason.as_deref(), Some("SysctlForbidden"));
    let told = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    assert_eq!(status.message, Some(format!("Pod was rejected: {told}")));
    assert!(
        node.texts().contains(&told.to_owned()) && node.events.contains(&"SysctlForbidden".into())
    );
    let found = Recovered { status: Some(status), ..Recovered::default() };
    let again = Node::resume(
        &pod(json!({"containers": [{"name": "c", "image": "busybox:1"}]})),
        found,
        node.now,
    );
    assert_eq!((again.phase().as_str(), again.actions.len()), ("Failed", 0));
}

#[test]
fn exit_codes_have_rules_of_their_own() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox:1",
        "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]});
    let mut node = Node::new(&pod(spec));
    node.settle();
    node.exit("c", 0, 42);
    node.settle();
    assert_eq!((node.state().as_str(), node.container().restart_count), ("Running", 1));
    node.exit("c", 1, 3);
    node.settle();
    assert_eq!(node.phase(), "Failed");
}

#[test]
fn an_evicted_pod_ends_soon_and_stays_failed() {
    let mut node = Node::new(&simple("Always"));
    node.settle();
    node.take();
    node.machine.evict(
        "The node was low on resource: memory. ".to_owned(),
        true,
        None,
        at(node.now),
    );
    node.step();
    let actions = node.take();
    assert!(matches!(actions.as_slice(), [Action::SignalContainer { .. }]), "{actions:?}");
    // The kubelet gives no container less than two seconds.
    assert_eq!(node.wake, Some(node.now + Duration::from_secs(2)));
    assert_eq!(node.status().phase.as_deref(), Some("Running"));
    node.exit("c", 0, 143);
    let status = node.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(status.message.as_deref(), Some("The node was low on resource: memory. "));
    let conditions = status.conditions.clone().unwrap();
    let target = conditions.iter().find(|it| it.type_ == "DisruptionTarget").unwrap();
    assert_eq!(target.reason.as_deref(), Some("TerminationByKubelet"));
    assert!(node.events.contains(&"Evicted".to_owned()));
    let found = Recovered { status: Some(status), ..Recovered::default() };
    let mut later = Node::resume(&simple("Always"), found, node.now);
    assert_eq!(later.take(), [], "an agent that starts later lets it rest");
    assert_eq!(later.status().reason.as_deref(), Some("Evicted"));
}

#[test]
fn where_there_is_time_an_evicted_pod_gets_its_own_up_to_a_limit() {
    for (most, wanted) in [(10, 10), (600, 30), (0, 2)] {
        let mut node = Node::new(&simple("Always"));
        node.settle();
        let most = Some(Duration::from_secs(most));
        node.machine.evict("no room".to_owned(), true, most, at(node.now));
        node.step();
        assert_eq!(node.wake, Some(node.now + Duration::from_secs(wanted)), "{most:?}");
    }
}

#[test]
fn an_agent_that_starts_during_an_eviction_finishes_it() {
    let mut node = Node::new(&simple("Always"));
    node.settle();
    node.machine.evict("no room".to_owned(), true, None, at(node.now));
    node.step();
    let status = node.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let found = Recovered { status: Some(status), ..Recovered::default() };
    let later = Node::resume(&simple("Always"), found, node.now);
    assert_eq!(later.status().phase.as_deref(), Some("Failed"));
}

#[test]
fn a_pod_that_is_refused_never_starts() {
    let mut node = Node::new(&simple("Always"));
    node.take();
    let mut fresh = PodMachine::new(&simple("Always"), None, at(node.now)).unwrap();
    let message = "Node didn't have enough resource: cpu, requested: 9000, used: 0, capacity: 2000";
    fresh.refuse("OutOfcpu", message, at(node.now));
    node.machine = fresh;
    node.step();
    assert_eq!(node.take(), []);
    let status = node.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert_eq!(status.message, Some(format!("Pod was rejected: {message}")));
    assert!(node.events.contains(&"OutOfcpu".to_owned()));
}
