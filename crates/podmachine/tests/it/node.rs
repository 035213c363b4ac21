//! One scripted node: what a machine asks of it, and what it answers.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};
use toono_podmachine::{Action, Exit, Moment, Observation, PodMachine, ProbeOutcome, Recovered};

pub(crate) const START: i64 = 1_800_000_000;

/// A machine with a clock, and what it has said so far.
pub(crate) struct Node {
    pub(crate) machine: PodMachine,
    pub(crate) now: Duration,
    pub(crate) actions: Vec<Action>,
    pub(crate) events: Vec<String>,
    texts: Vec<String>,
    pub(crate) wake: Option<Duration>,
}

pub(crate) fn at(elapsed: Duration) -> Moment {
    let wall = Timestamp::from_second(START).unwrap() + elapsed;
    Moment { wall, elapsed }
}

pub(crate) fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec,
    }))
    .unwrap()
}

pub(crate) fn simple(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "busybox:1"}]}))
}

pub(crate) fn deleted(pod: &Pod, grace: i64) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

impl Node {
    pub(crate) fn new(pod: &Pod) -> Self {
        Self::resume(pod, Recovered::default(), Duration::from_secs(1000))
    }

    pub(crate) fn resume(pod: &Pod, found: Recovered, now: Duration) -> Self {
        let host = Some("192.0.2.1".parse().unwrap());
        let machine = PodMachine::resume(pod, host, found, at(now)).unwrap();
        let mut node =
            Self { machine, now, actions: vec![], events: vec![], texts: vec![], wake: None };
        node.step();
        node
    }

    pub(crate) fn step(&mut self) {
        let step = self.machine.step(at(self.now));
        self.actions.extend(step.actions);
        self.texts.extend(step.events.iter().map(|event| event.message.clone()));
        self.events.extend(step.events.into_iter().map(|event| event.reason));
        self.wake = step.wake;
    }

    pub(crate) fn see(&mut self, seen: Observation) {
        self.machine.observe(seen, at(self.now));
        self.step();
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.step();
    }

    pub(crate) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The events' messages.
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Answers everything well until nothing is asked any more.
    pub(crate) fn settle(&mut self) {
        while !self.actions.is_empty() {
            self.start_all();
            for action in self.take() {
                match action {
                    Action::RunHook { container, attempt, hook } => {
                        self.see(Observation::HookDone { container, attempt, hook, error: None });
                    }
                    Action::Probe { container, attempt, kind } => {
                        let outcome = ProbeOutcome::Success;
                        self.see(Observation::Probed { container, attempt, kind, outcome });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Answers all that is asked for containers to start, and leaves the rest.
    pub(crate) fn start_all(&mut self) {
        let mut left = Vec::new();
        loop {
            let actions = self.take();
            if actions.is_empty() {
                self.actions = left;
                return;
            }
            for action in actions {
                left.extend(self.answer(action));
            }
        }
    }

    /// Answers an action well, or gives it back.
    fn answer(&mut self, action: Action) -> Option<Action> {
        let image_id = || "busybox@sha256:1".to_owned();
        let seen = match action {
            Action::LookUpImage { container, .. } => {
                Observation::ImagePresent { container, image_id: image_id() }
            }
            Action::PullImage { container, .. } => Observation::ImagePulled {
                container,
                image_id: image_id(),
                took: Duration::from_millis(1500),
                size: 42,
            },
            Action::CreateSandbox => {
                Observation::SandboxReady { ip: Some("10.244.0.2".parse().unwrap()) }
            }
            Action::StartContainer { container, attempt, .. } => {
                Observation::Started { container, attempt, at: at(self.now).wall }
            }
            Action::TearDownSandbox => Observation::SandboxGone,
            Action::SignalContainer { .. } | Action::RemoveContainer { .. } => return Some(action),
            Action::RunHook { .. } | Action::Probe { .. } => return Some(action),
        };
        self.see(seen);
        None
    }

    pub(crate) fn exit(&mut self, container: &str, attempt: u32, code: i32) {
        self.see(Observation::Exited {
            container: container.into(),
            attempt,
            exit: exit(code, self.now),
        });
    }

    pub(crate) fn status(&self) -> PodStatus {
        self.machine.status()
    }

    pub(crate) fn container(&self) -> ContainerStatus {
        self.status().container_statuses.unwrap().remove(0)
    }

    pub(crate) fn phase(&self) -> String {
        self.status().phase.unwrap()
    }

    /// `Running`, `Waiting:REASON` or `Terminated:REASON`.
    pub(crate) fn state(&self) -> String {
        let state = self.container().state.unwrap();
        if state.running.is_some() {
            "Running".into()
        } else if let Some(waiting) = state.waiting {
            format!("Waiting:{}", waiting.reason.unwrap())
        } else {
            format!("Terminated:{}", state.terminated.unwrap().reason.unwrap())
        }
    }

    pub(crate) fn condition(&self, kind: &str) -> (String, i64, String) {
        let found =
            self.status().conditions.unwrap().into_iter().find(|it| it.type_ == kind).unwrap();
        let since = found.last_transition_time.unwrap().0.as_second() - START;
        (found.status, since, found.reason.unwrap_or_default())
    }
}

pub(crate) fn exit(code: i32, now: Duration) -> Exit {
    let finished_at = at(now).wall;
    Exit { code, signal: None, oom: false, started_at: None, finished_at, message: None }
}

pub(crate) fn start(container: &str, attempt: u32) -> Action {
    let image_id = "busybox@sha256:1".into();
    Action::StartContainer { container: container.into(), attempt, image_id }
}
