//! A pod's life told as tables: one scripted node, its answers, and what the pod looks like after each.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};
use toono_podmachine::{
    Action, ContainerFound, Exit, Moment, Observation, PodMachine, Recovered, SandboxFound,
    StartFailure, StopSignal,
};

const START: i64 = 1_800_000_000;

/// A machine with a clock, and what it has said so far.
struct Node {
    machine: PodMachine,
    now: Duration,
    actions: Vec<Action>,
    events: Vec<String>,
    wake: Option<Duration>,
}

fn at(elapsed: Duration) -> Moment {
    let wall = Timestamp::from_second(START).unwrap() + elapsed;
    Moment { wall, elapsed }
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec,
    }))
    .unwrap()
}

fn simple(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "busybox:1"}]}))
}

fn deleted(pod: &Pod, grace: i64) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

impl Node {
    fn new(pod: &Pod) -> Self {
        Self::resume(pod, Recovered::default(), Duration::from_secs(1000))
    }

    fn resume(pod: &Pod, found: Recovered, now: Duration) -> Self {
        let host = Some("192.0.2.1".parse().unwrap());
        let machine = PodMachine::resume(pod, host, found, at(now)).unwrap();
        let mut node = Self { machine, now, actions: vec![], events: vec![], wake: None };
        node.step();
        node
    }

    fn step(&mut self) {
        let step = self.machine.step(at(self.now));
        self.actions.extend(step.actions);
        self.events.extend(step.events.into_iter().map(|event| event.reason));
        self.wake = step.wake;
    }

    fn see(&mut self, seen: Observation) {
        self.machine.observe(seen, at(self.now));
        self.step();
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.step();
    }

    fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Answers everything well until nothing is asked any more.
    fn settle(&mut self) {
        loop {
            let actions = self.take();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::LookUpImage { container, .. } => self.see(Observation::ImagePresent {
                        container,
                        image_id: "busybox@sha256:1".into(),
                    }),
                    Action::PullImage { container, .. } => self.see(Observation::ImagePulled {
                        container,
                        image_id: "busybox@sha256:1".into(),
                        took: Duration::from_millis(1500),
                        size: 42,
                    }),
                    Action::CreateSandbox => {
                        self.see(Observation::SandboxReady {
                            ip: Some("10.244.0.2".parse().unwrap()),
                        });
                    }
                    Action::StartContainer { container, attempt, .. } => {
                        let at = at(self.now).wall;
                        self.see(Observation::Started { container, attempt, at });
                    }
                    Action::TearDownSandbox => self.see(Observation::SandboxGone),
                    Action::SignalContainer { .. } | Action::RemoveContainer { .. } => {}
                }
            }
        }
    }

    fn exit(&mut self, container: &str, attempt: u32, code: i32) {
        self.see(Observation::Exited {
            container: container.into(),
            attempt,
            exit: exit(code, self.now),
        });
    }

    fn status(&self) -> PodStatus {
        self.machine.status()
    }

    fn container(&self) -> ContainerStatus {
        self.status().container_statuses.unwrap().remove(0)
    }

    fn phase(&self) -> String {
        self.status().phase.unwrap()
    }

    /// `Running`, `Waiting:REASON` or `Terminated:REASON`.
    fn state(&self) -> String {
        let state = self.container().state.unwrap();
        if state.running.is_some() {
            "Running".into()
        } else if let Some(waiting) = state.waiting {
            format!("Waiting:{}", waiting.reason.unwrap())
        } else {
            format!("Terminated:{}", state.terminated.unwrap().reason.unwrap())
        }
    }

    fn condition(&self, kind: &str) -> (String, i64, String) {
        let found =
            self.status().conditions.unwrap().into_iter().find(|it| it.type_ == kind).unwrap();
        let since = found.last_transition_time.unwrap().0.as_second() - START;
        (found.status, since, found.reason.unwrap_or_default())
    }
}

fn exit(code: i32, now: Duration) -> Exit {
    let finished_at = at(now).wall;
    Exit { code, signal: None, oom: false, started_at: None, finished_at, message: None }
}

fn start(container: &str, attempt: u32) -> Action {
    let image_id = "busybox@sha256:1".into();
    Action::StartContainer { container: container.into(), attempt, image_id }
}

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
fn a_living_keeper_is_adopted_without_a_restart() {
    let wanted = simple("Always");
    let mut node = Node::new(&wanted);
    node.settle();
    node.exit("c", 0, 1);
    node.settle();
    let before = node.status();
    let alive = ContainerFound {
        name: "c".into(),
        attempt: 1,
        started_at: Some(at(node.now).wall),
        exit: None,
    };
    let found = Recovered {
        status: Some(before.clone()),
        sandbox: Some(SandboxFound {
            ip: Some("10.244.0.2".parse().unwrap()),
            containers: vec![alive.clone()],
        }),
        attempts: BTreeMap::from([("c".to_owned(), 1)]),
    };
    let mut after = Node::resume(&wanted, found.clone(), Duration::from_secs(5000));
    assert_eq!(after.take(), []);
    assert_eq!(after.status(), before, "the status is the same to the last field");
    after.exit("c", 1, 1);
    after.settle();
    assert_eq!(after.container().restart_count, 2);

    // Without the persisted status the keeper alone tells the count.
    let found = Recovered { status: None, ..found };
    let after = Node::resume(&wanted, found, Duration::from_secs(5000));
    assert_eq!((after.container().restart_count, after.state().as_str()), (1, "Running"));

    // It ended while no agent was there.
    let exited = ContainerFound { exit: Some(exit(7, node.now)), ..alive };
    let found = Recovered {
        status: Some(before),
        sandbox: Some(SandboxFound { ip: None, containers: vec![exited] }),
        attempts: BTreeMap::new(),
    };
    let mut after = Node::resume(&wanted, found, Duration::from_secs(5000));
    after.settle();
    let container = after.container();
    assert_eq!(container.restart_count, 2);
    assert_eq!(container.last_state.unwrap().terminated.unwrap().exit_code, 7);
}

#[test]
fn a_power_cut_counts_one_restart_each() {
    let wanted = simple("Always");
    let mut node = Node::new(&wanted);
    node.settle();
    let found = Recovered { status: Some(node.status()), ..Recovered::default() };
    let mut after = Node::resume(&wanted, found, Duration::ZERO);
    after.settle();
    let container = after.container();
    assert_eq!((after.state().as_str(), container.restart_count), ("Running", 1));
    let last = container.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("ContainerStatusUnknown")));

    // The status was lost too, or older than the last start: the log files tell.
    let attempts = BTreeMap::from([("c".to_owned(), 4)]);
    let found = Recovered { status: Some(node.status()), attempts, ..Recovered::default() };
    let mut after = Node::resume(&wanted, found, Duration::ZERO);
    after.settle();
    assert_eq!(after.container().restart_count, 5);
}

#[test]
fn what_had_ended_before_a_power_cut_stays_ended() {
    let wanted = simple("Never");
    let mut node = Node::new(&wanted);
    node.settle();
    node.exit("c", 0, 0);
    node.settle();
    let found = Recovered { status: Some(node.status()), ..Recovered::default() };
    let mut after = Node::resume(&wanted, found, Duration::ZERO);
    assert_eq!((after.take(), after.phase().as_str()), (vec![], "Succeeded"));

    // And one that was running and must not restart has failed.
    let mut node = Node::new(&wanted);
    node.settle();
    let found = Recovered { status: Some(node.status()), ..Recovered::default() };
    let mut after = Node::resume(&wanted, found, Duration::ZERO);
    assert_eq!((after.take(), after.phase().as_str()), (vec![], "Failed"));
    assert_eq!(after.state(), "Terminated:ContainerStatusUnknown");
}
